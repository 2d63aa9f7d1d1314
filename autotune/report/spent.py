"""What a study cost: GPU-hours, by phase and by outcome, and when each trial ran. Pure.

In: a `StudyHistory`. Out: hours. Invariant: trials are placed one after the other, also when a study was gone
on with later, whose clock knows nothing of the time in between.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from autotune.record import Outcome, TrialRecord
from autotune.report.findings import failure_kind
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory

_HOUR_S = 3600.0
_ROUNDING_S = 1e-3


@dataclass(frozen=True)
class Share:
    """The time that one thing took in all trials."""

    name: str
    trials: int
    spent_s: float


@dataclass(frozen=True)
class Shift:
    """When a trial ran, in seconds since the study began, and its phases in order."""

    trial: NumberedTrial
    began_s: float
    phases_s: Mapping[str, float]

    @property
    def ended_s(self) -> float:
        """When it ended."""
        return self.began_s + self.trial.record.duration_s


def gpus_of(history: StudyHistory) -> int:
    """Return how many GPUs a trial holds, 0 if the search space does not say."""
    return sum(node.gpus for node in history.study.space.nodes)


def spent_s(history: StudyHistory) -> float:
    """Return how long all trials took together."""
    return sum(trial.record.duration_s for trial in history.trials)


def gpu_hours(history: StudyHistory, seconds: float) -> float:
    """Return what a time costs."""
    return gpus_of(history) * seconds / _HOUR_S


def shifts(history: StudyHistory) -> tuple[Shift, ...]:
    """Return when every trial that took time ran."""
    found: list[Shift] = []
    shift_s = 0.0
    for trial in history.trials:
        record, last_s = trial.record, found[-1].ended_s if found else 0.0
        if not record.duration_s:
            continue
        began_s = record.began_s + shift_s
        if record.outcome is Outcome.INTERRUPTED and not record.began_s:
            began_s = last_s
        elif not found or began_s < last_s:
            shift_s += last_s - began_s
            began_s = last_s
        found.append(Shift(trial, began_s, phases_of(record)))
    return tuple(found)


def phases_of(record: TrialRecord) -> dict[str, float]:
    """Return how long each phase took, the launch divided into its own phases where they are known."""
    phases_s = dict(record.durations_s)
    if record.start_phases_s and "launch" in phases_s:
        rest_s = phases_s.pop("launch") - sum(record.start_phases_s.values())
        start_s = {"launch": rest_s} if rest_s > _ROUNDING_S else {}
        return {**start_s, **record.start_phases_s, **phases_s}
    return phases_s


def by_phase(history: StudyHistory) -> tuple[Share, ...]:
    """Return the time of every phase, in the order in which phases come."""
    found: dict[str, Share] = {}
    for trial in history.trials:
        for phase, each_s in phases_of(trial.record).items():
            share = found.get(phase, Share(phase, 0, 0.0))
            found[phase] = Share(phase, share.trials + 1, share.spent_s + each_s)
    return tuple(found.values())


def by_outcome(history: StudyHistory) -> tuple[Share, ...]:
    """Return the time of every role that was measured, and of every kind of failure."""
    found: dict[str, Share] = {}
    for trial in history.trials:
        name = failure_kind(trial.record) or str(trial.record.role)
        share = found.get(name, Share(name, 0, 0.0))
        found[name] = Share(name, share.trials + 1, share.spent_s + trial.record.duration_s)
    return tuple(found.values())
