"""What Optuna's trials say to a model: measured values, constraints, crashes, and what is still pending.

In: a study. Out: a `History`. Talks to Optuna's storage only. Invariants: a crashed trial has no value,
whatever it was told; a trial that says nothing about its parameters (pruned, or failed for other reasons) is
left out; values are signed so that more is better.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

PARTIAL = "partial"
"""A trial's user attribute: True if its values are of a load that was stopped; nothing is learnt of them."""

IsCrash: TypeAlias = Callable[[FrozenTrial], bool]


def has_failed(trial: FrozenTrial) -> bool:
    """Whether a trial failed: a crash, unless more is known about it."""
    return trial.state is TrialState.FAIL


@dataclass(frozen=True)
class Seen:
    """A finished trial; `values` None if it crashed or its values are no finite numbers.

    `is_partial`: they are not of a whole measurement, and say nothing but that there is one.
    """

    params: Mapping[str, Any]
    values: tuple[float, ...] | None
    constraints: Mapping[str, float]
    crashed: bool
    is_partial: bool = False

    @property
    def is_feasible(self) -> bool:
        """Whether it was measured and met every constraint."""
        return self.values is not None and all(value <= 0 for value in self.constraints.values())


@dataclass(frozen=True)
class History:
    """The trials that count; `signs` are +1 for an objective that is maximised."""

    seen: tuple[Seen, ...]
    pending: tuple[Mapping[str, Any], ...]
    signs: tuple[float, ...]

    @property
    def measured(self) -> tuple[Seen, ...]:
        """The trials with values."""
        return tuple(each for each in self.seen if each.values is not None)

    @property
    def whole(self) -> tuple[Seen, ...]:
        """The trials whose values are those of whole measurements."""
        return tuple(each for each in self.measured if not each.is_partial)


def history_of(study: Study, trial: FrozenTrial, names: set[str], is_crash: IsCrash) -> History:
    """Return what the study's other trials say about these parameters."""
    signs = tuple(1.0 if each is StudyDirection.MAXIMIZE else -1.0 for each in study.directions)
    trials = [each for each in _others(study, trial) if names & each.params.keys()]
    return History(
        seen=tuple(
            seen_of(each, signs, crashed=each.state is not TrialState.COMPLETE)
            for each in trials
            if each.state is TrialState.COMPLETE or (each.state.is_finished() and is_crash(each))
        ),
        pending=tuple(each.params for each in trials if each.state is TrialState.RUNNING),
        signs=signs,
    )


def joint_space(study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
    """Return every parameter that a trial had, conditional ones included, as the latest trial had it."""
    return {
        name: distribution
        for other in _others(study, trial)
        for name, distribution in other.distributions.items()
    }


def _others(study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
    return [each for each in study.get_trials(deepcopy=False) if each.number != trial.number]


def seen_of(trial: FrozenTrial, signs: tuple[float, ...], *, crashed: bool = False) -> Seen:
    """Return what one finished trial says; `signs` as in a `History`."""
    told = () if crashed or trial.values is None else trial.values
    is_measured = bool(told) and all(map(math.isfinite, told))
    return Seen(
        params=trial.params,
        values=tuple(sign * value for sign, value in zip(signs, told, strict=True)) if is_measured else None,
        constraints={} if crashed else trial.constraints,
        crashed=crashed,
        is_partial=bool(trial.user_attrs.get(PARTIAL)),
    )
