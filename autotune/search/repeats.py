"""What is launched once more, and what says nothing about a candidate: bad luck told apart from bad flags.

In: the trials of a study. Out: which of them are due again, whether the baseline is, and which failures are
the world's. Pure. Invariant: a failure that is certain to repeat is never launched again, and a machine on
which nothing starts never counts against a candidate.
"""

from collections.abc import Sequence
from enum import StrEnum
from itertools import groupby, takewhile

from autotune.failure import EngineFailure, FailureKind
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.confirmation import NumberedTrial, Place

ATTEMPTS = 2
"""How often a candidate is launched whose measurement was invalid, or a baseline that was unlucky."""
ALIKE = 3
"""How many launches in a row may fail alike before any engine was ready, or be lost to nodes at any time."""
CERTAIN = frozenset(
    {
        FailureKind.BAD_ARGUMENT,
        FailureKind.MODEL_MISSING,
        FailureKind.IMAGE_MISSING,
        FailureKind.BIND_SOURCE_MISSING,
        FailureKind.NO_KV_MEMORY,
        FailureKind.OUT_OF_MEMORY_LOADING,
        FailureKind.OUT_OF_MEMORY_CAPTURE,
        FailureKind.OUT_OF_MEMORY_SERVING,
    }
)
"""Failures that another launch of the same flags on the same nodes meets again."""


class SearchEnd(StrEnum):
    """Why a search ended."""

    LAUNCHES = "launches"
    TIME = "time"
    EXHAUSTED = "exhausted"
    GAIN = "gain"
    STALLED = "stalled"
    STOPPED = "stopped"


def due_again(trials: Sequence[NumberedTrial]) -> tuple[int, ...]:
    """Return the search trials to be launched again: cut off, lost to a node, or invalid until now.

    What was measured badly on another trial's engine had no launch to repeat; it may be proposed again.
    """
    by_number = {trial.number: trial for trial in trials}
    repeated = {trial.again for trial in trials}
    return tuple(
        trial.number
        for trial in trials
        if trial.record.role is Role.SEARCH
        and trial.record.measured_live_on is None
        and trial.number not in repeated
        and (
            trial.record.outcome is Outcome.INTERRUPTED
            or trial.record.is_lost_to_node
            or 0 < _invalid_attempts(trial, by_number) < ATTEMPTS
        )
    )


def baseline_is_due(trials: Sequence[NumberedTrial]) -> bool:
    """Whether the baseline is still to be measured, or once more because it had bad luck."""
    lost = world_failures(trials)
    own = [
        trial.record
        for trial in trials
        if trial.record.role is Role.BASELINE
        and trial.record.outcome is not Outcome.INTERRUPTED
        and not trial.record.is_lost_to_node
        and trial.number not in lost
    ]
    if any(record.outcome is Outcome.MEASURED for record in own):
        return False
    if any(record.failure is not None and record.failure.kind in CERTAIN for record in own):
        return False
    return len(own) < ATTEMPTS


def world_failures(trials: Sequence[NumberedTrial]) -> frozenset[int]:
    """Return the trials that failed alike, `ALIKE` or more in a row, before a slot's first engine was up."""
    runs = [
        run for nodes in {each.record.nodes for each in trials} for run in _runs_of_failures(trials, nodes)
    ]
    return frozenset(trial.number for run in runs if len(run) >= ALIKE for trial in run)


def settled(trials: Sequence[NumberedTrial]) -> tuple[NumberedTrial, ...]:
    """Return the finished trials that say something about their candidate."""
    unsettled = (Outcome.INTERRUPTED, Outcome.INVALID)
    lost = world_failures(trials)
    return tuple(
        trial for trial in trials if trial.record.outcome not in unsettled and trial.number not in lost
    )


def stuck(trials: Sequence[NumberedTrial], nodes: Place = ()) -> EngineFailure | None:
    """Return the failure that all launches on a slot end with, None if one was ever ready there or may be."""
    if any(trial.record.effective is not None for trial in _on(trials, nodes)):
        return None
    runs = _runs_of_failures(trials, nodes)
    return runs[-1][-1].record.failure if runs and len(runs[-1]) >= ALIKE else None


def lost_nodes(trials: Sequence[NumberedTrial], nodes: Place = ()) -> EngineFailure | None:
    """Return the failure of a node that every launch on a slot meets, None if the next may fare better.

    It is one that is certain to repeat, or the last of `ALIKE` in a row: they say nothing about the
    candidates, so it does not matter whether an engine was ever ready, nor whether they read alike.
    """
    row = list(takewhile(lambda each: each.record.is_lost_to_node, reversed(_launched(_on(trials, nodes)))))
    last = row[0].record.failure if row else None
    return last if last is not None and (last.kind in CERTAIN or len(row) >= ALIKE) else None


def reason_against(trials: Sequence[NumberedTrial], last: TrialRecord, nodes: Place = ()) -> str | None:
    """Return why nothing more is to be launched on a slot after its last record, None if something is."""
    lost, failed = lost_nodes(trials, nodes), stuck(trials, nodes)
    if lost is not None and last.is_lost_to_node:
        return (
            f"the nodes do not serve this study: {lost.kind}: {lost.line}\n"
            "    Put it right and run the same command again; these launches count against no candidate "
            "and no number of launches, only against the time."
        )
    if failed is not None and last.outcome is Outcome.FAILED:
        return (
            f"no engine was ever ready, and the last {ALIKE} launches or more failed alike: "
            f"{failed.kind}: {failed.line}\n"
            "    Put it right and run the same command again; these launches will not count against their "
            "candidates."
        )
    return None


def _on(trials: Sequence[NumberedTrial], nodes: Place) -> list[NumberedTrial]:
    """Return the trials of a slot."""
    return [trial for trial in trials if trial.record.nodes == nodes]


def _runs_of_failures(trials: Sequence[NumberedTrial], nodes: Place) -> list[list[NumberedTrial]]:
    """Return a slot's launches before its first engine was ready, grouped where neighbours failed alike."""
    own = _on(trials, nodes)
    launched = _launched(list(takewhile(lambda trial: trial.record.effective is None, own)))
    return [list(run) for failure, run in groupby(launched, lambda each: _failure(each.record)) if failure]


def _launched(trials: Sequence[NumberedTrial]) -> list[NumberedTrial]:
    """Return the trials that cost a launch, and came to its end."""
    return [
        trial
        for trial in trials
        if trial.record.is_launch and trial.record.outcome is not Outcome.INTERRUPTED
    ]


def _failure(record: TrialRecord) -> tuple[FailureKind, str] | None:
    return None if record.failure is None else (record.failure.kind, record.failure.line)


def _invalid_attempts(trial: NumberedTrial, by_number: dict[int, NumberedTrial]) -> int:
    """Return how often the candidate of this trial was measured badly, 0 if this time was not."""
    if trial.record.outcome is not Outcome.INVALID:
        return 0
    count, link = 1, trial.again
    while link in by_number:
        earlier = by_number[link].record
        count += earlier.outcome is Outcome.INVALID and not earlier.is_lost_to_node
        link = by_number[link].again
    return count
