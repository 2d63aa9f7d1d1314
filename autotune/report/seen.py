"""What was measured of a candidate in any quantity, with its interval. Pure.

In: a `StudyHistory`. Out: `Seen` values. Invariant: a candidate that was launched again is shown by its fresh
launches (their mean, and the whole range of what they and their intervals cover), never by the value that
made it a finalist.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from autotune.metrics import LATENCIES, LatencySummary, Metric
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.confirmation import NumberedTrial
from autotune.search.ledger import StudyHistory
from autotune.slo import Quantity, Slo

_SHOWN = (
    *((Metric.TTFT, statistic) for statistic in ("p50", "p95", "p99")),
    *((Metric.ITL, statistic) for statistic in ("p50", "p95", "p99", "max")),
    *((Metric.TPOT, statistic) for statistic in ("p50", "p95")),
    *((Metric.E2E, statistic) for statistic in ("p50", "p95")),
    *((rate, None) for rate in Metric if rate not in LATENCIES),
)
LARGER_IS_BETTER = frozenset(set(Metric) - set(LATENCIES) - {Metric.ERROR_RATIO})


@dataclass(frozen=True)
class Seen:
    """A value in base units and its interval; without one, `low` and `high` are the value."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Measurements:
    """What a study measured, candidate by candidate."""

    history: StudyHistory

    @cached_property
    def _fresh(self) -> Mapping[int, Sequence[TrialRecord]]:
        found: dict[int, list[TrialRecord]] = {}
        for trial in self.history.trials:
            record = trial.record
            if record.confirms is not None and record.outcome is Outcome.MEASURED:
                found.setdefault(record.confirms, []).append(record)
        return found

    def launches(self, trial: NumberedTrial) -> Sequence[TrialRecord]:
        """Return the launches that speak for a trial's candidate: the fresh ones, or its own."""
        return self._fresh.get(trial.number, [trial.record])

    def all_launches(self, trial: NumberedTrial) -> Sequence[TrialRecord]:
        """Return every launch of a trial's candidate, its own first."""
        return [trial.record, *self._fresh.get(trial.number, [])]

    def of(self, trial: NumberedTrial, quantity: Quantity) -> Seen | None:
        """Return what was measured of a trial's candidate, None if nothing was."""
        slo = self.history.study.slo
        found = [each for record in self.launches(trial) if (each := seen_in(record, quantity, slo))]
        if not found:
            return None
        return Seen(
            value=sum(each.value for each in found) / len(found),
            low=min(each.low for each in found),
            high=max(each.high for each in found),
        )


def shown_quantities(slo: Slo) -> tuple[Quantity, ...]:
    """Return every quantity that a report can show: the SLO's, and the usual ones at each load point."""
    usual = (
        Quantity(metric=metric, statistic=statistic, load=point.label)
        for point in slo.load
        for metric, statistic in _SHOWN
    )
    return tuple(dict.fromkeys((*promised(slo), *usual)))


def promised(slo: Slo) -> tuple[Quantity, ...]:
    """Return the quantities of the objectives and the ceilings."""
    goals = (goal.quantity for goal in slo.goals)
    return tuple(dict.fromkeys((*goals, *(ceiling.quantity for ceiling in slo.ceilings))))


def seen_in(record: TrialRecord, quantity: Quantity, slo: Slo) -> Seen | None:
    """Return what one launch measured, None if it did not."""
    point = record.point(quantity.load)
    if point is None:
        return None
    value = _told(record, quantity, slo)
    if value is None and quantity.metric is Metric.GOODPUT:
        value = point.goodput_rps
    if value is None:
        value = point.summary.value(quantity.metric, quantity.statistic)
    if value is None:
        return None
    summary = getattr(point.summary, quantity.metric.value, None)
    if isinstance(summary, LatencySummary) and quantity.statistic == "p95":
        low, high = summary.p95_low, summary.p95_high
        return Seen(
            value, min(value, value if low is None else low), max(value, value if high is None else high)
        )
    return Seen(value, value, value)


def is_candidate(trial: NumberedTrial) -> bool:
    """Whether a trial stands for a candidate of its own: confirmations and repetitions do not."""
    return trial.record.role is not Role.CONFIRMATION


def _told(record: TrialRecord, quantity: Quantity, slo: Slo) -> float | None:
    """Return the value that the search was told or the judge saw, in which failed requests count."""
    for goal, value in zip(slo.goals, record.objectives or (), strict=False):
        if goal.quantity == quantity:
            return value
    judged = record.verdict.ceilings if record.verdict else ()
    for ceiling, verdict in zip(slo.ceilings, judged, strict=False):
        if ceiling.quantity == quantity and verdict.ceiling == ceiling.text:
            return verdict.value
    return None
