"""The methods that are compared, as generators of launches: samplers behind one loop, and two procedures.

A method sees what a launch showed, never what is true. The samplers launch the baseline first, as studies do.
Those that need torch are in `peers`.
`gp` and `gp + twin` have the tuner's feasibility layer in front (nothing as heavy as what ran out of memory);
the others are as they come.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TypeAlias

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from autotune.failure import EngineFailure, StartPhase
from autotune.record import Outcome, Role, TrialRecord
from autotune.search import CrashAwareSampler
from autotune.search.calibration.evidence import Evidence
from autotune.search.confirmation import NumberedTrial
from autotune.search.feasibility import DOUBTED_PER_LAUNCH, MemoryLessons
from autotune.search.gp.acquisition import log_improvement
from autotune.search.gp.encoding import Encoding
from autotune.search.gp.kernel import GaussianProcess
from autotune.search.sampler import Proposal, SpaceDomain, SpaceSampler, distribution_of
from autotune.search.twin import Twin
from autotune.space import Candidate, Choices, FlagValue, SearchSpace
from tests.benchmarks.search.forest import infeasible_chance
from tests.benchmarks.search.problem import Launch, Problem, launch

_SCOOT_POOL, _SCOOT_START_UP, _SCOOT_FEWEST = 1000, 10, 4
Method: TypeAlias = Callable[[Problem, int], Iterator[Launch]]
Belief: TypeAlias = Callable[[Problem, Sequence[Launch], Sequence[Candidate]], Sequence[float] | None]
"""What launches of candidates are believed to be worth after these launches, as the tuner's ranking."""
_Prior: TypeAlias = Callable[[Problem], Twin | None]

_PRIORS: Mapping[str, _Prior] = {
    "gp": lambda _: None,
    "gp + twin": lambda problem: problem.prior(1.0),
    "gp + twin off by 2": lambda problem: problem.prior(2.0),
}


def methods() -> dict[str, Method]:
    """Return the methods by name."""
    return {
        "random": _plain(lambda seed: RandomSampler(seed=seed)),
        "optuna TPE": _plain(lambda seed: TPESampler(seed=seed, n_startup_trials=8, constant_liar=False)),
        "vLLM auto_tune": vllm_auto_tune,
        "SGLang auto_benchmark": sglang_auto_benchmark,
        "SCOOT-like": scoot_like,
        **{name: _crash_aware(prior) for name, prior in _PRIORS.items()},
    }


def beliefs() -> dict[str, Belief]:
    """Return what the methods that have a model believe, by name."""
    return {name: _believed(prior) for name, prior in _PRIORS.items()}


def _plain(make: Callable[[int], BaseSampler]) -> Method:
    def run(problem: Problem, seed: int) -> Iterator[Launch]:
        known: set[Candidate] = set()
        sampler = SpaceSampler(
            make(seed), problem.space, seed=seed, accepts=lambda candidate: candidate not in known
        )
        return _study(problem, seed, sampler, known, lambda _: None)

    return run


def _crash_aware(prior: _Prior) -> Method:
    def run(problem: Problem, seed: int) -> Iterator[Launch]:
        known: set[Candidate] = set()
        gate, twin = _Gate(problem.space, known), prior(problem)
        made_so_far: list[Launch] = []

        def learn(made: Launch) -> None:
            gate.learn(made)
            made_so_far.append(made)
            if twin is not None:
                twin.learn_from(_evidence(made_so_far))

        inner = CrashAwareSampler(seed=seed, prior=twin, domain=SpaceDomain(problem.space, gate.accepts))
        sampler = SpaceSampler(
            inner, problem.space, seed=seed, accepts=gate.accepts, is_joint=True, judge=inner
        )
        return _study(problem, seed, sampler, known, learn)

    return run


class _Learnt:
    """A twin that learnt from launches; it goes on from there if those of the next call only became more."""

    def __init__(self, prior: _Prior) -> None:
        self._prior = prior
        self._twin: Twin | None = None
        self._launches: Sequence[Launch] = ()

    def twin(self, problem: Problem, launches: Sequence[Launch]) -> Twin | None:
        """Return it after these launches, None without a prior."""
        goes_on = len(launches) >= len(self._launches) > 0
        if not goes_on or any(a is not b for a, b in zip(self._launches, launches, strict=False)):
            self._twin = self._prior(problem)
        if self._twin is not None:
            self._twin.learn_from(_evidence(launches))
        self._launches = tuple(launches)
        return self._twin


def _believed(prior: _Prior) -> Belief:
    learnt = _Learnt(prior)

    def worth(
        problem: Problem, launches: Sequence[Launch], candidates: Sequence[Candidate]
    ) -> Sequence[float] | None:
        twin, study = learnt.twin(problem, launches), optuna.create_study(direction="maximize")
        for made in launches:
            _tell(study, problem, made)
        inner = CrashAwareSampler(seed=0, prior=twin, domain=SpaceDomain(problem.space, lambda _: True))
        sampler = SpaceSampler(
            inner, problem.space, seed=0, accepts=lambda _: True, is_joint=True, judge=inner
        )
        return sampler.worth_of(study, [each.to_dict() for each in candidates])

    return worth


def _evidence(launches: Sequence[Launch]) -> Evidence:
    """Return what the launches showed of step times and memory."""
    return Evidence(
        cases=tuple(case for made in launches for case in made.cases),
        pools=tuple(made.truth.pool for made in launches if made.truth.pool is not None),
    )


class _Gate:
    """The tuner's feasibility layer: known candidates, and doubts that one in ten passes."""

    def __init__(self, space: SearchSpace, known: set[Candidate]) -> None:
        self._space, self._known = space, known
        self._trials: list[NumberedTrial] = []
        self._lessons = MemoryLessons(space, [])
        self._doubted = 0
        self._is_first = True

    def accepts(self, candidate: Candidate) -> bool:
        """Whether the candidate is launched; of the first of each draw, one doubted one in ten."""
        if candidate in self._known:
            return False
        is_first, self._is_first = self._is_first, False
        if self._lessons.doubt(candidate) is None:
            return True
        self._doubted += is_first
        return is_first and self._doubted % DOUBTED_PER_LAUNCH == 0

    def learn(self, made: Launch) -> None:
        """Take a launch in."""
        kind = made.truth.failure
        record = TrialRecord(
            outcome=Outcome.MEASURED if kind is None else Outcome.FAILED,
            role=Role.SEARCH,
            candidate=made.candidate.to_dict(),
            is_simulated=True,
            began_s=0.0,
            durations_s={"launch": made.truth.launch_s},
            failure=None
            if kind is None
            else EngineFailure(kind=kind, phase=StartPhase.GRAPH_CAPTURE, line="out of memory"),
        )
        self._trials.append(NumberedTrial(len(self._trials), record))
        self._lessons = MemoryLessons(self._space, self._trials)
        self._is_first = True


def _study(
    problem: Problem,
    seed: int,
    sampler: SpaceSampler,
    known: set[Candidate],
    learn: Callable[[Launch], None],
) -> Iterator[Launch]:
    generator = np.random.default_rng(seed)
    study = optuna.create_study(direction="maximize")
    proposal = Proposal(problem.baseline, None)
    while True:
        made = launch(problem, proposal.candidate, generator)
        yield replace(made, gain=proposal.gain)
        known.add(proposal.candidate)
        _tell(study, problem, made)
        learn(made)
        proposal = sampler.propose(study)


def _tell(study: optuna.Study, problem: Problem, made: Launch) -> None:
    """Tell Optuna as the tuner's ledger does: a crash is a failed trial without a value."""
    flags, number = made.candidate.to_dict(), len(study.get_trials(deepcopy=False))
    distributions = {name: distribution_of(problem.space.tune[name]) for name in flags}
    study.add_trial(optuna.create_trial(state=TrialState.RUNNING, params=flags, distributions=distributions))
    if made.value is None:
        study.tell(number, state=TrialState.FAIL)
        return
    trial = optuna.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)
    for key, excess in made.excess.items():
        trial.set_constraint(key, float(np.expm1(excess)))
    study.tell(number, made.value)


def vllm_auto_tune(problem: Problem, seed: int) -> Iterator[Launch]:
    """vLLM's benchmarks/auto_tune/auto_tune.sh, in SGLang's flags: the highest working fraction, then a grid.

    It lowers the fraction by 0.01 until an engine starts with the largest values, then launches every pair
    of running limit (128, 256) and batched tokens (512 ... 4096), its documentation's lists, and goes on with
    larger and smaller ones where the budget allows. Its bound on latency is the ceilings here.
    """
    generator, top = np.random.default_rng(seed), _top(problem.space)
    runs, chunks = (128, 256, 64, 512, 32), (2048, 4096, 1024, 512, 8192, 16384)
    fraction = top["mem-fraction-static"]
    while True:
        flags = {"mem-fraction-static": fraction, "max-running-requests": 256, "chunked-prefill-size": 4096}
        made = launch(problem, _with(problem, flags), generator)
        yield made
        if made.value is not None:
            break
        fraction = float(str(fraction)) - 0.01
    for running, chunk in product(runs, chunks):
        flags = {
            "mem-fraction-static": fraction,
            "max-running-requests": running,
            "chunked-prefill-size": chunk,
        }
        yield launch(problem, _with(problem, flags), generator)


def sglang_auto_benchmark(problem: Problem, seed: int) -> Iterator[Launch]:
    """SGLang's sglang.auto_benchmark (0.5.16): tier 1 one flag at a time, tier 2 a product of three.

    It launches anew for every candidate and rate; there is one load here, so every candidate is launched
    once. The values are three of each flag's range, in the order of the file.
    """
    generator, space = np.random.default_rng(seed), problem.space
    levels = {name: _levels(space, name) for name in space.tune}
    yield launch(problem, problem.baseline, generator)
    for name, values in levels.items():
        for value in values:
            yield launch(problem, _with(problem, {name: value}), generator)
    first = list(levels)[:3]
    for values in product(*(levels[name] for name in first)):
        yield launch(problem, _with(problem, dict(zip(first, values, strict=True))), generator)


def scoot_like(problem: Problem, seed: int) -> Iterator[Launch]:
    """A search as SCOOT describes (WWW 2025): ten spread samples, then a GP's expected improvement.

    Known constraints prune the space; hidden ones (crashes and missed ceilings alike) are learnt by a random
    forest, whose chance of feasibility the improvement is multiplied with.
    """
    generator = np.random.default_rng(seed)
    domain = SpaceDomain(problem.space, lambda _: True)
    encoding = Encoding(domain.distributions)
    launches: list[Launch] = []
    candidate = problem.baseline
    while True:
        launches.append(launch(problem, candidate, generator))
        yield launches[-1]
        rows = [domain.complete(row) for row in encoding.values(encoding.spread(_SCOOT_POOL, generator))]
        known = {made.candidate for made in launches}
        rows = [row for row in rows if Candidate.of(row) not in known]
        promise = _scoot_promise(encoding, launches, rows, generator)
        candidate = Candidate.of(rows[int(promise.argmax())])


def _scoot_promise(
    encoding: Encoding, launches: list[Launch], rows: list[dict[str, object]], generator: np.random.Generator
) -> np.ndarray:
    """Return how much each row promises; by chance until there are enough launches."""
    seen = [made for made in launches if made.value is not None]
    feasible = [made.value or 0.0 for made in launches if made.looks_feasible]
    if len(launches) < _SCOOT_START_UP or len(seen) < _SCOOT_FEWEST:
        return generator.random(len(rows))
    pool = encoding.columns(encoding.units(rows))
    tried = encoding.columns(encoding.units([made.candidate.to_dict() for made in launches]))
    labels = np.array([0.0 if made.looks_feasible else 1.0 for made in launches])
    chance = 1 - infeasible_chance(tried, labels, pool, generator)
    if not feasible:
        return chance
    values = np.array([made.value or 0.0 for made in seen])
    centre, scale = values.mean(), max(float(values.std()), 1e-9)
    measured = np.array([made.value is not None for made in launches])
    process = GaussianProcess.fit(tried[measured], (values - centre) / scale, encoding.groups)
    mean, deviation = process.predict(pool)
    return log_improvement(mean, deviation, (max(feasible) - centre) / scale) + np.log(chance + 1e-9)


def _with(problem: Problem, flags: Mapping[str, FlagValue]) -> Candidate:
    """Return the baseline with other values, on the space's grid."""
    return Candidate.of(
        SpaceDomain(problem.space, lambda _: True).complete({**problem.baseline.to_dict(), **flags})
    )


def _levels(space: SearchSpace, name: str) -> tuple[FlagValue, ...]:
    tunable = space.tune[name]
    if isinstance(tunable, Choices):
        return tunable.choices
    low, high = tunable.bounds
    middle = (low * high) ** 0.5 if tunable.scale == "log" else (low + high) / 2
    return tuple(tunable.snap(value) for value in (low, middle, high))


def _top(space: SearchSpace) -> dict[str, FlagValue]:
    return {name: _levels(space, name)[-1] for name in space.tune}
