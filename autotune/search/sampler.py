"""Candidates from Optuna: the search space as distributions, and samplers that keep to its grid.

In: a search space and a sampler's name. Out: an Optuna sampler, and `suggest`, which turns an asked trial
into a `Candidate`. Talks to Optuna only. Invariant: a value in the storage is exactly the value launched
(Optuna's log scales know no step, so the sampler below snaps them).
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

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


class SamplerKind(StrEnum):
    """The samplers a study can use."""

    TPE = "tpe"
    RANDOM = "random"


class SnappingSampler(BaseSampler):
    """Another sampler, whose values are snapped to the space's grid.

    The relative search space is that of the unconditional flags, whatever finished trials hold, so that a
    baseline outside the space cannot shrink it.
    """

    def __init__(self, inner: BaseSampler, space: SearchSpace) -> None:
        self._inner = inner
        self._space = space

    def reseed_rng(self) -> None:
        """Reseed the inner sampler."""
        self._inner.reseed_rng()

    def infer_relative_search_space(self, _study: Study, _trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the flags that take part in every candidate."""
        return {
            name: distribution_of(tunable)
            for name, tunable in self._space.tune.items()
            if tunable.when is None
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return snapped values for the flags that take part in every candidate."""
        values = self._inner.sample_relative(study, trial, search_space)
        return {name: self._snap(name, value) for name, value in values.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a snapped value for one flag."""
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

    def _snap(self, name: str, value: Any) -> Any:
        tunable = self._space.tune[name]
        return value if isinstance(tunable, Choices) else tunable.snap(value)


def make_sampler(kind: SamplerKind, space: SearchSpace, *, seed: int) -> BaseSampler:
    """Return a seeded sampler for the space."""
    match kind:
        case SamplerKind.TPE:
            return SnappingSampler(TPESampler(seed=seed, n_startup_trials=8), space)
        case SamplerKind.RANDOM:
            return SnappingSampler(RandomSampler(seed=seed), space)


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
