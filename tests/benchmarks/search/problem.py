"""A problem of the benchmark: a space, what is true of every candidate, and what a noisy launch shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from autotune.failure import FailureKind
from autotune.metrics import Metric, Samples
from autotune.search.calibration.case import Case
from autotune.search.calibration.pool import PoolFact
from autotune.search.gp.encoding import Encoding
from autotune.search.sampler import SpaceDomain
from autotune.search.twin import Twin
from autotune.slo import Slo
from autotune.space import Candidate, SearchSpace

NOISE = 0.05
"""Standard deviation of the logarithm of every measured number."""
TOLERANCE = 1.02
"""Production forgives a ceiling that is missed by less than this factor."""
_ROUNDS = 4


@dataclass(frozen=True)
class Truth:
    """Without noise: value (more is better; None: it crashes), log(measured / limit), and what it costs.

    `excess` and `samples` go by the ceiling's text; the latter are those of percentile ceilings, by which a
    launch is judged. `cases` and `pool`: what else a launch shows, that a twin can learn from.
    """

    value: float | None
    excess: Mapping[str, float]
    launch_s: float
    failure: FailureKind | None = None
    samples: Mapping[str, Samples] = field(default_factory=dict)
    cases: tuple[Case, ...] = ()
    pool: PoolFact | None = None

    @property
    def misses(self) -> bool:
        """Whether it would break its promise in production."""
        return self.value is None or any(each > np.log(TOLERANCE) for each in self.excess.values())

    @property
    def worth(self) -> float:
        """The value for production, nothing if it breaks its promise."""
        return 0.0 if self.value is None or self.misses else self.value


@dataclass(frozen=True)
class Problem:
    """`truth` is cached; `baseline` is launched first; `prior` is the twin, if there is one.

    Its argument is a factor on every constant that the twin believes in.
    """

    name: str
    space: SearchSpace
    slo: Slo
    truth: Callable[[Candidate], Truth]
    baseline: Candidate
    candidates: int
    prior: Callable[[float], Twin | None] = lambda _off: None

    @cached_property
    def optimum(self) -> float:
        """The best worth among random candidates, and then near the best of them."""
        domain = SpaceDomain(self.space, lambda _: True)
        encoding, generator = Encoding(domain.distributions), np.random.default_rng(77)
        known: list[Candidate] = [self.baseline]
        rows = encoding.spread(self.candidates, generator)
        best = known
        for _ in range(1 + _ROUNDS):
            known += [Candidate.of(domain.complete(values)) for values in encoding.values(rows)]
            best = sorted(set(known), key=lambda each: -self.truth(each).worth)[:5]
            units = encoding.units([each.to_dict() for each in best])
            rows = np.vstack([encoding.around(row, self.candidates // 25 + 1, generator) for row in units])
        return self.truth(best[0]).worth


@dataclass(frozen=True)
class Launch:
    """One launch of a study: what was seen, and what is true.

    `gain`: what a method that knows expected it to gain, as a share of its best so far.
    """

    candidate: Candidate
    value: float | None
    excess: Mapping[str, float]
    truth: Truth
    cases: tuple[Case, ...] = ()
    gain: float | None = None

    @property
    def looks_feasible(self) -> bool:
        """Whether it was measured and met every ceiling, as far as it was seen."""
        return self.value is not None and all(each <= 0 for each in self.excess.values())


def launch(problem: Problem, candidate: Candidate, generator: np.random.Generator) -> Launch:
    """Launch once; every number that is measured has a factor of its own, statistics that of their metric."""
    truth = problem.truth(candidate)
    draws = generator.standard_normal(1 + len(truth.excess)) * NOISE
    if truth.value is None:
        return Launch(candidate, None, {}, truth)
    excess = {key: each + draw for (key, each), draw in zip(truth.excess.items(), draws[1:], strict=True)}
    by_metric = dict(zip(Metric, generator.standard_normal(len(Metric)) * NOISE, strict=True))
    by_metric |= {Metric(key.split()[0]): draw for key, draw in zip(truth.excess, draws[1:], strict=True)}
    by_metric[Metric.OUTPUT_THROUGHPUT] = draws[0]
    cases = tuple(
        replace(
            case, shown={key: each * float(np.exp(by_metric[key[0]])) for key, each in case.shown.items()}
        )
        for case in truth.cases
    )
    return Launch(candidate, truth.value * float(np.exp(draws[0])), excess, truth, cases)
