"""What a candidate changes against the baseline, in words, with what was measured of it. Pure.

In: a `Selection`. Out: flags with their values before and after; lines with effects. Invariant: an effect is
told of a single flag only where two trials differ in that flag and in nothing else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autotune.export.selection import Selection
from autotune.metrics import Metric
from autotune.record import Outcome, Role, TrialRecord
from autotune.report.findings import baseline_of, differences
from autotune.report.units import flag_value, metric_value, printable, signed_percent
from autotune.search.confirmation import NumberedTrial

_TOLD = (
    (Metric.TTFT, "p95", "TTFT p95"),
    (Metric.ITL, "p99", "ITL p99"),
    (Metric.OUTPUT_THROUGHPUT, None, "output throughput"),
)


@dataclass(frozen=True)
class Change:
    """One flag."""

    flag: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{printable(self.flag)} {self.before} -> {self.after}"


def changes(selection: Selection) -> tuple[Change, ...]:
    """Return every flag that differs; none if there was no baseline, or if this is it."""
    baseline = baseline_of(selection.history)
    if baseline is None:
        return ()
    return tuple(
        Change(flag, _told(baseline.record, flag), _told(selection.trial.record, flag))
        for flag in differences(selection.history, selection.trial.record.to_candidate())
    )


def whole_effect(selection: Selection) -> tuple[str, tuple[str, ...]]:
    """Return what the effect of all changes was taken from, and a line for each load point."""
    baseline = baseline_of(selection.history)
    if baseline is None:
        return "", ()
    for role in (Role.CONFIRMATION, None):
        before = _launches(selection, baseline.number, role)
        after = _launches(selection, _candidate_number(selection.trial), role)
        if before and after:
            kind = "fresh" if role else "search"
            source = f"means over {_count(before, kind)} of the baseline and {_count(after, kind)} of this"
            return source, tuple(_effects(selection, before, after))
    return "", ()


def single_effects(selection: Selection) -> Iterator[str]:
    """Yield the effect of each change alone, where two trials of the search show it."""
    baseline = baseline_of(selection.history)
    changed = changes(selection)
    if baseline is None or len(changed) < 2:  # noqa: PLR2004 - of one change, the whole effect is its own
        return
    for change in changed:
        pair = _pair(selection, change.flag, baseline.record, selection.trial.record)
        for line in _effects(selection, pair[:1], pair[1:]) if pair else ():
            yield f"{change} alone (trials {pair[0].number} and {pair[1].number}): {line}"


def _told(record: TrialRecord, flag: str) -> str:
    """Return a flag's value; what nobody set is the engine's choice, with its value if the engine told it."""
    if flag in record.candidate:
        return flag_value(record.candidate[flag])
    effective = record.effective.flags.get(flag) if record.effective else None
    return flag_value(None) if effective is None else f"{flag_value(effective)} {flag_value(None)}"


def _candidate_number(trial: NumberedTrial) -> int:
    return trial.number if trial.record.confirms is None else trial.record.confirms


def _launches(selection: Selection, number: int, role: Role | None) -> list[NumberedTrial]:
    """Return the measured confirmations of a candidate, or its first launch."""
    return [
        trial
        for trial in selection.history.trials
        if trial.record.outcome is Outcome.MEASURED
        and (trial.record.confirms if role else trial.number) == number
    ]


def _pair(
    selection: Selection, flag: str, before: TrialRecord, after: TrialRecord
) -> tuple[NumberedTrial, ...]:
    """Return the first two trials that differ in the flag alone, as baseline and candidate do; or none."""
    own = [
        trial
        for trial in selection.history.trials
        if trial.record.outcome is Outcome.MEASURED
        and trial.record.role is not Role.CONFIRMATION
        and trial.record.same_as is None
    ]
    old, new = before.candidate.get(flag), after.candidate.get(flag)
    for first in own:
        for second in own:
            if (
                first.record.candidate.get(flag) == old
                and second.record.candidate.get(flag) == new
                and _others(first.record, flag) == _others(second.record, flag)
            ):
                return first, second
    return ()


def _others(record: TrialRecord, flag: str) -> dict[str, object]:
    return {name: value for name, value in record.candidate.items() if name != flag}


def _effects(
    selection: Selection, before: Sequence[NumberedTrial], after: Sequence[NumberedTrial]
) -> Iterator[str]:
    for point in selection.history.study.slo.load:
        parts = []
        for metric, statistic, name in _TOLD:
            old, new = (_mean(launches, point.label, metric, statistic) for launches in (before, after))
            if old and new is not None:
                values = f"{metric_value(metric, old)} -> {metric_value(metric, new)}"
                parts.append(f"{name} {signed_percent(new / old - 1)} ({values})")
        if parts:
            yield f"{point.label}: {', '.join(parts)}"


def _mean(
    launches: Sequence[NumberedTrial], load: str, metric: Metric, statistic: str | None
) -> float | None:
    points = [trial.record.point(load) for trial in launches]
    values = [None if point is None else point.summary.value(metric, statistic) for point in points]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _count(launches: Sequence[NumberedTrial], kind: str) -> str:
    return f"{len(launches)} {kind} {'launch' if len(launches) == 1 else 'launches'}"
