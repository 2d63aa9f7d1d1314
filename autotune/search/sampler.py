"""Candidates from Optuna: the search space as distributions, and samplers that keep to its grid.

In: a search space, a sampler's name, and what is worth a trial. Out: a sampler of `Candidate`s, and Optuna's
form of the trial that begins with one. Talks to Optuna only. Invariants: a value in the storage is exactly
the value launched (Optuna's log scales know no step, so the sampler below snaps them); what is not worth a
trial is drawn again before Optuna sees it, so that the storage holds launches and not rejections.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types

import autotune.search
from autotune.errors import parse_choice
from autotune.record import Outcome, TrialRecord
from autotune.search.botorch import botorch_sampler
from autotune.space import (
    Candidate,
    Choices,
    FlagValue,
    FloatRange,
    IntRange,
    LauncherKind,
    SearchSpace,
    Tunable,
)

if TYPE_CHECKING:
    from autotune.search.gp.appraisal import Appraisal
    from autotune.search.gp.prior import Prior
    from autotune.search.gp.sampler import CrashAwareSampler

optuna.logging.set_verbosity(logging.ERROR)

INFORMED_DRAWS = 20
UNIFORM_DRAWS = 200
"""How often a candidate is drawn that is not worth a trial: by the study's sampler, then evenly."""


class SamplerKind(StrEnum):
    """The samplers a study can use."""

    TPE = "tpe"
    GP = "gp"
    RANDOM = "random"
    BOTORCH = "botorch"


def parse_sampler(name: str) -> SamplerKind:
    """Return the sampler of that name.

    Raises:
        ConfigError: there is none.
    """
    return parse_choice(SamplerKind, "--sampler", name)


def default_sampler(space: SearchSpace) -> SamplerKind:
    """Return the sampler of a study that names none.

    A launch that costs nothing is not worth a Gaussian process, and a simulated study has no twin that would
    make it the better one (`search.twin`).
    """
    return SamplerKind.TPE if space.launcher is LauncherKind.SIMULATED else SamplerKind.GP


@dataclass(frozen=True)
class Proposal:
    """A candidate to launch next, and what the best of those that are left is expected to gain.

    `gain`: expected improvement times the chance of feasibility, as a share of the best feasible trial's
    value; None where that is not known (`CrashAwareSampler.expected_gain`).
    """

    candidate: Candidate
    gain: float | None


class SpaceSampler:
    """One of Optuna's samplers, whose draws are snapped to the grid and repeated until one is worth a trial.

    After `INFORMED_DRAWS` of the inner sampler come `UNIFORM_DRAWS` over the whole space; if none is worth a
    trial, the last one is asked all the same. The inner sampler's relative search space is that of the
    unconditional flags, whatever finished trials hold, so that a baseline outside the space cannot shrink it;
    one that knows the space's conditions (`is_joint`) draws every flag together. `judge`: who says how much
    is left to gain, the inner sampler or another one; nobody without it.
    """

    def __init__(
        self,
        inner: BaseSampler,
        space: SearchSpace,
        *,
        seed: int,
        accepts: Callable[[Candidate], bool],
        is_joint: bool = False,
        judge: "CrashAwareSampler | None" = None,
    ) -> None:
        self._inner = inner
        self._judge = judge
        self._uniform = RandomSampler(seed=seed + 1)
        self._space = space
        self._accepts = accepts
        self._distributions = {name: distribution_of(tunable) for name, tunable in space.tune.items()}
        self._relative = {
            name: distribution
            for name, distribution in self._distributions.items()
            if is_joint or space.tune[name].when is None
        }

    def propose(self, study: Study) -> Proposal:
        """Return the study's next candidate, and how much is left to gain.

        On one thread: for matrices of a study's size, several wait for each other more than they compute.
        """
        with threadpool_limits(limits=1, user_api="blas"):
            candidate = self.draw(study)
            if self._judge is None:
                return Proposal(candidate, None)
            if self._judge is not self._inner:
                running = create_trial(state=TrialState.RUNNING)
                self._judge.sample_relative(study, running, self._distributions)
            return Proposal(candidate, self._judge.expected_gain)

    def appraise(
        self, study: Study, places: Sequence[Mapping[str, FlagValue]], *, host: int | None
    ) -> "Appraisal | None":
        """Return what tells the promise of candidates, given by where they lie; None if nobody can.

        `host`: the number of a trial that runs now, whose result will be told to it; then it also tells the
        promise of the best others.
        """
        if self._judge is None or self._judge is not self._inner:
            return None
        with threadpool_limits(limits=1, user_api="blas"):
            trial = create_trial(state=TrialState.RUNNING)
            trial.number = -1 if host is None else host
            return self._judge.appraise(study, trial, self._relative, places, has_others=host is not None)

    def worth_of(self, study: Study, places: Sequence[Mapping[str, FlagValue]]) -> list[float] | None:
        """Return what a launch of each candidate is believed to be worth, None if nobody can tell.

        Logarithms up to a constant (`CrashAwareSampler.worth_of`); given by where they lie.
        """
        if self._judge is None:
            return None
        with threadpool_limits(limits=1, user_api="blas"):
            running = create_trial(state=TrialState.RUNNING)
            return self._judge.worth_of(study, running, self._distributions, places)

    def draw(self, study: Study) -> Candidate:
        """Return the study's next candidate."""
        candidate = Candidate.of({})
        for index in range(INFORMED_DRAWS + UNIFORM_DRAWS):
            candidate = self._draw(self._inner if index < INFORMED_DRAWS else self._uniform, study)
            if self._accepts(candidate):
                break
        return candidate

    def _draw(self, sampler: BaseSampler, study: Study) -> Candidate:
        """Return one candidate of a sampler, conditional flags only where their condition holds."""
        trial = create_trial(state=TrialState.RUNNING)
        joint = sampler.sample_relative(study, trial, self._relative)
        flags: dict[str, FlagValue] = {}
        for name, distribution in self._distributions.items():
            if not self._space.is_active(name, flags):
                continue
            if name not in joint:
                joint[name] = sampler.sample_independent(study, trial, name, distribution)
            flags[name] = self._snap(name, joint[name])
        return Candidate.of(flags)

    def _snap(self, name: str, value: Any) -> Any:
        tunable = self._space.tune[name]
        return value if isinstance(tunable, Choices) else tunable.snap(value)


def make_sampler(
    kind: SamplerKind,
    space: SearchSpace,
    *,
    seed: int,
    accepts: Callable[[Candidate], bool] = lambda _candidate: True,
    prior: "Prior | None" = None,
    is_parallel: bool = False,
    is_judged: bool = False,
) -> SpaceSampler:
    """Return a seeded sampler for the space; `accepts` tells whether a candidate is worth a trial.

    `prior`: what a model expects of each candidate, for the sampler that can use it. `is_parallel`: other
    trials may run when one is drawn, and it keeps away from them. `is_judged`: proposals say how much is left
    to gain; a sampler that does not know gets a Gaussian process beside it.
    """
    is_knowing = kind is SamplerKind.GP
    judge = _crash_aware(space, accepts, seed, prior) if is_judged or is_knowing else None
    inner = judge if judge is not None and is_knowing else _plain(kind, seed, is_parallel=is_parallel)
    return SpaceSampler(inner, space, seed=seed, accepts=accepts, is_joint=is_knowing, judge=judge)


def _crash_aware(
    space: SearchSpace, accepts: Callable[[Candidate], bool], seed: int, prior: "Prior | None"
) -> "CrashAwareSampler":
    domain = SpaceDomain(space, accepts)
    return autotune.search.CrashAwareSampler(seed=seed, prior=prior, domain=domain, is_crash=crashed)


def _plain(kind: SamplerKind, seed: int, *, is_parallel: bool) -> BaseSampler:
    if kind is SamplerKind.RANDOM:
        return RandomSampler(seed=seed)
    if kind is SamplerKind.BOTORCH:
        return botorch_sampler(seed)
    # The trial that is drawn for is not in the storage yet: those that run are others.
    return TPESampler(seed=seed, n_startup_trials=8, constant_liar=is_parallel)


@dataclass(frozen=True)
class SpaceDomain:
    """The search space as the sampler of the Gaussian process asks about it."""

    space: SearchSpace
    accepted: Callable[[Candidate], bool]

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Every tuned flag, conditional ones included."""
        return {name: distribution_of(tunable) for name, tunable in self.space.tune.items()}

    def complete(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the flags on the space's grid, conditional ones only where their condition holds."""
        flags: dict[str, Any] = {}
        for name, tunable in self.space.tune.items():
            if name in params and self.space.is_active(name, flags):
                value = params[name]
                flags[name] = value if isinstance(tunable, Choices) else tunable.snap(value)
        return flags

    def accepts(self, params: Mapping[str, Any]) -> bool:
        """Whether the candidate is worth a trial."""
        return self.accepted(Candidate.of(params))


def crashed(trial: FrozenTrial) -> bool:
    """Whether a trial failed because of its flags: not cut off, spoilt, refused, or lost to a node."""
    if "record" not in trial.user_attrs:
        return False
    record = TrialRecord.model_validate_json(trial.user_attrs["record"])
    return record.outcome is Outcome.FAILED and not record.is_lost_to_node


def draw(space: SearchSpace, *, accepts: Callable[[Candidate], bool]) -> Candidate:
    """Return a random candidate that is accepted, the last one drawn if none is."""
    return make_sampler(SamplerKind.RANDOM, space, seed=0, accepts=accepts).draw(optuna.create_study())


def distribution_of(tunable: Tunable) -> BaseDistribution:
    """Return Optuna's distribution of a tunable flag; a step on a log scale is left to the sampler."""
    match tunable:
        case Choices():
            return CategoricalDistribution(tunable.choices)
        case IntRange():
            low, high, log = _range(tunable)
            step = 1 if log else tunable.multiple_of
            return IntDistribution(int(low), int(high), log=log, step=step)
        case FloatRange():
            low, high, log = _range(tunable)
            return FloatDistribution(low, high, log=log, step=None if log else tunable.step)


def trial_at(space: SearchSpace, where: Mapping[str, FlagValue], attributes: dict[str, Any]) -> FrozenTrial:
    """Return a trial to begin, whose parameters are these flags of the space, in the space's order."""
    return create_trial(state=TrialState.RUNNING, user_attrs=attributes, **placed(space, where))


def placed(space: SearchSpace, where: Mapping[str, FlagValue]) -> dict[str, Any]:
    """Return parameters and distributions of a trial that lies here."""
    names = [name for name in space.tune if name in where]
    return {
        "params": {name: where[name] for name in names},
        "distributions": {name: distribution_of(space.tune[name]) for name in names},
    }


def _range(tunable: IntRange | FloatRange) -> tuple[float, float, bool]:
    """Return the lowest and highest allowed value, and whether the scale is logarithmic."""
    low, high = tunable.bounds
    return tunable.snap(low), tunable.snap(high), tunable.scale == "log"


def coordinates(space: SearchSpace, flags: Mapping[str, FlagValue]) -> dict[str, FlagValue]:
    """Return where flags lie in the space: numbers clipped and snapped, choices outside it left out."""
    values: dict[str, FlagValue] = {}
    for name, tunable in space.tune.items():
        value = flags.get(name)
        if value is None or not space.is_active(name, values):
            continue
        if isinstance(tunable, Choices):
            if tunable.contains(value):
                values[name] = value
        elif isinstance(value, int | float):
            values[name] = tunable.snap(value)
    return values
