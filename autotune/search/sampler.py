"""Candidates from Optuna: the search space as distributions, and samplers that keep to its grid.

In: a search space, a sampler's name, and what is worth a trial. Out: an Optuna sampler, and `suggest`, which
turns an asked trial into a `Candidate`. Talks to Optuna only. Invariants: a value in the storage is exactly
the value launched (Optuna's log scales know no step, so the sampler below snaps them); what is not worth a
trial is drawn again before Optuna sees it, so that the storage holds launches and not rejections.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from autotune.space import Candidate, Choices, FlagValue, FloatRange, IntRange, SearchSpace, Tunable

optuna.logging.set_verbosity(logging.ERROR)

INFORMED_DRAWS = 20
UNIFORM_DRAWS = 200
"""How often a candidate is drawn that is not worth a trial: by the study's sampler, then evenly."""


class SamplerKind(StrEnum):
    """The samplers a study can use."""

    TPE = "tpe"
    RANDOM = "random"


class SpaceSampler(BaseSampler):
    """Another sampler, whose draws are snapped to the space's grid and repeated until one is worth a trial.

    After `INFORMED_DRAWS` of the inner sampler come `UNIFORM_DRAWS` over the whole space; if none is worth a
    trial, the last one is asked all the same. The relative search space is that of the unconditional flags,
    whatever finished trials hold, so that a baseline outside the space cannot shrink it.
    """

    def __init__(
        self, inner: BaseSampler, space: SearchSpace, *, seed: int, accepts: Callable[[Candidate], bool]
    ) -> None:
        self._inner = inner
        self._uniform = RandomSampler(seed=seed + 1)
        self._space = space
        self._accepts = accepts
        self._distributions = {name: distribution_of(tunable) for name, tunable in space.tune.items()}
        self._drawn: dict[str, FlagValue] = {}

    def reseed_rng(self) -> None:
        """Reseed the samplers within."""
        self._inner.reseed_rng()
        self._uniform.reseed_rng()

    def infer_relative_search_space(self, _study: Study, _trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the flags that take part in every candidate."""
        return {
            name: distribution
            for name, distribution in self._distributions.items()
            if self._space.tune[name].when is None
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw a whole candidate; return its flags that take part in every candidate."""
        self._drawn = {}
        if "fixed_params" in trial.system_attrs:
            return {}  # an enqueued trial brings its own values
        for index in range(INFORMED_DRAWS + UNIFORM_DRAWS):
            sampler = self._inner if index < INFORMED_DRAWS else self._uniform
            self._drawn = self._draw(sampler, study, trial, search_space)
            if self._accepts(Candidate.of(self._drawn)):
                break
        return {name: value for name, value in self._drawn.items() if name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the value of a conditional flag, which was drawn with the others."""
        if param_name in self._drawn:
            return self._drawn[param_name]
        value = self._inner.sample_independent(study, trial, param_name, param_distribution)
        return self._snap(param_name, value)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass on."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Pass on."""
        self._inner.after_trial(study, trial, state, values)

    def _draw(
        self,
        sampler: BaseSampler,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, FlagValue]:
        """Return one candidate of the sampler, conditional flags only where their condition holds."""
        joint = sampler.sample_relative(study, trial, search_space)
        flags: dict[str, FlagValue] = {}
        for name, distribution in self._distributions.items():
            if not self._space.is_active(name, flags):
                continue
            if name not in joint:
                joint[name] = sampler.sample_independent(study, trial, name, distribution)
            flags[name] = self._snap(name, joint[name])
        return flags

    def _snap(self, name: str, value: Any) -> Any:
        tunable = self._space.tune[name]
        return value if isinstance(tunable, Choices) else tunable.snap(value)


def make_sampler(
    kind: SamplerKind,
    space: SearchSpace,
    *,
    seed: int,
    accepts: Callable[[Candidate], bool] = lambda _candidate: True,
) -> BaseSampler:
    """Return a seeded sampler for the space; `accepts` tells whether a candidate is worth a trial."""
    return SpaceSampler(_inner_sampler(kind, seed), space, seed=seed, accepts=accepts)


def draw(space: SearchSpace, *, accepts: Callable[[Candidate], bool]) -> Candidate:
    """Return a random candidate that is accepted, the last one drawn if none is."""
    sampler = make_sampler(SamplerKind.RANDOM, space, seed=0, accepts=accepts)
    return suggest(optuna.create_study(sampler=sampler).ask(), space)


def _inner_sampler(kind: SamplerKind, seed: int) -> BaseSampler:
    match kind:
        case SamplerKind.TPE:
            return TPESampler(seed=seed, n_startup_trials=8)
        case SamplerKind.RANDOM:
            return RandomSampler(seed=seed)


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


def suggest(trial: Trial, space: SearchSpace) -> Candidate:
    """Return the candidate of an asked trial, conditional flags only where their condition holds."""
    flags: dict[str, FlagValue] = {}
    for name, tunable in space.tune.items():
        if space.is_active(name, flags):
            flags[name] = suggest_one(trial, name, tunable)
    return Candidate.of(flags)


def suggest_one(trial: Trial, name: str, tunable: Tunable) -> FlagValue:
    """Return the value of one flag in an asked trial, and let the storage know it."""
    match tunable:
        case Choices():
            index = tunable.choices.index(trial.suggest_categorical(name, tunable.choices))
            return tunable.choices[index]
        case IntRange():
            low, high, log = _range(tunable)
            step = 1 if log else tunable.multiple_of
            return tunable.snap(trial.suggest_int(name, int(low), int(high), step=step, log=log))
        case FloatRange():
            low, high, log = _range(tunable)
            grid = None if log else tunable.step
            return tunable.snap(trial.suggest_float(name, low, high, step=grid, log=log))


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
