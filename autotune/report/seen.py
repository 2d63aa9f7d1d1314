"""What was measured of a candidate in any quantity, with its interval. Pure.

In: a `StudyHistory`. Out: `Seen` values. Invariant: a candidate that was launched again is shown by its fresh
launches (their mean, and the whole range of what they and their intervals cover), never by the value that
made it a finalist; a load point that was stopped shows no value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from autotune.metrics import LATENCIES, Metric
from autotune.record import Outcome, PointRecord, Role, TrialRecord
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
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

    @cached_property
    def _columns(self) -> dict[str, Mapping[int, Seen]]:
        return {}

    def of(self, trial: NumberedTrial, quantity: Quantity) -> Seen | None:
        """Return what was measured of a trial's candidate, None if nothing was."""
        return self.column(quantity).get(trial.number)

    def column(self, quantity: Quantity) -> Mapping[int, Seen]:
        """Return what was measured of every candidate, by its trial; at once, as every plot asks again."""
        key = str(quantity)
        if key not in self._columns:
            take = _Reader(quantity, self.history.study.slo)
            found = {
                trial.number: [each for record in self.launches(trial) if (each := take.seen(record))]
                for trial in self.history.trials
            }
            self._columns[key] = {number: _pooled(seen) for number, seen in found.items() if seen}
        return self._columns[key]


def _pooled(found: Sequence[Seen]) -> Seen:
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


def is_candidate(trial: NumberedTrial) -> bool:
    """Whether a trial stands for a candidate of its own: confirmations and repetitions do not."""
    return trial.record.role is not Role.CONFIRMATION


class _Reader:
    """Reads one quantity from records, as the search was told it or the judge saw it where they did.

    In those values failed requests count.
    """

    def __init__(self, quantity: Quantity, slo: Slo) -> None:
        self._quantity = quantity
        self._goal = next((i for i, goal in enumerate(slo.goals) if goal.quantity == quantity), None)
        self._ceiling = next((each.text for each in slo.ceilings if each.quantity == quantity), None)
        self._has_interval = quantity.metric in LATENCIES and quantity.statistic == "p95"

    def seen(self, record: TrialRecord) -> Seen | None:
        """Return what one launch measured, None if it did not."""
        point = record.whole_point(self._quantity.load)
        value = None if point is None else self._value(record, point)
        if point is None or value is None:
            return None
        summary = getattr(point.summary, self._quantity.metric.value) if self._has_interval else None
        low = value if summary is None or summary.p95_low is None else min(summary.p95_low, value)
        high = value if summary is None or summary.p95_high is None else max(summary.p95_high, value)
        return Seen(value, low, high)

    def _value(self, record: TrialRecord, point: PointRecord) -> float | None:
        if self._goal is not None and record.objectives:
            return record.objectives[self._goal]
        judged = record.verdict.ceilings if record.verdict and self._ceiling else ()
        told = next((each.value for each in judged if each.ceiling == self._ceiling), None)
        if told is not None:
            return told
        if self._quantity.metric is Metric.GOODPUT:
            return point.goodput_rps
        return point.summary.value(self._quantity.metric, self._quantity.statistic)
