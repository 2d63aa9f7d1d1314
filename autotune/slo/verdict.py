"""The verdict on measurements: met, missed or undecided, per ceiling and for all of them. Pure.

In: an `Slo` and `Measurement`s, or the verdicts of several launches. Out: `Verdict`.
Invariant: an undecided ceiling is never called met.
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum

from autotune.document import Frozen
from autotune.interval import SeenShare, pool_shares
from autotune.metrics import LATENCIES, Measurement, Samples
from autotune.slo.ceiling import WORST_MARGIN_RATIO, Ceiling
from autotune.slo.promise import Slo

ERROR_RATE = 0.05
LOOKS = 3
"""How often an undecided load point is measured at most; the looks share the error rate evenly."""
FRESH_LAUNCHES = 2
"""A study answers with at least so many fresh launches of a candidate; their samples are pooled."""


class Decision(StrEnum):
    """What a ceiling's data say."""

    MET = "met"
    MISSED = "missed"
    UNDECIDED = "undecided"


class CeilingVerdict(Frozen):
    """A ceiling against a measurement.

    `value` and `limit` as in the ceiling (s, per s, ratio); the value of a latency is that of the requests
    that ended well, None if there are none. `samples` counts requests or gaps, `failed` the failed requests
    that a latency was judged with. `share_over`, `independent_samples` and `requests` are kept for
    percentiles, so that the verdicts of several launches can be pooled.
    """

    ceiling: str
    decision: Decision
    value: float | None
    limit: float
    margin_ratio: float
    samples: int
    share_over: float | None = None
    independent_samples: float | None = None
    requests: float | None = None
    failed: int = 0

    @property
    def seen(self) -> SeenShare | None:
        """The share over the limit with its weight, None unless a percentile was decided by it."""
        if self.share_over is None or self.independent_samples is None:
            return None
        return SeenShare(self.share_over, self.independent_samples, self.requests or self.independent_samples)


class Verdict(Frozen):
    """The ceilings of the load points that were measured."""

    ceilings: tuple[CeilingVerdict, ...]

    @property
    def decision(self) -> Decision:
        """Missed if any ceiling is, met if all are."""
        decisions = {ceiling.decision for ceiling in self.ceilings}
        for decision in (Decision.MISSED, Decision.UNDECIDED):
            if decision in decisions:
                return decision
        return Decision.MET

    @property
    def missed(self) -> str | None:
        """The first ceiling that is missed, None if none is."""
        return next((each.ceiling for each in self.ceilings if each.decision is Decision.MISSED), None)

    @property
    def binding(self) -> CeilingVerdict | None:
        """The ceiling with the least room, None if there are no ceilings."""
        return min(self.ceilings, key=lambda ceiling: ceiling.margin_ratio, default=None)


def judge(slo: Slo, measurements: Mapping[str, Measurement], *, error_rate: float = ERROR_RATE) -> Verdict:
    """Return the verdict on the load points that were measured, by label.

    A percentile ceiling is a statement about the share of samples over its limit: it is decided when the
    exact binomial interval of that share, wrong with at most `error_rate`, lies on one side. Everything
    else is decided by its value.

    A failed request of the steady window is on the wrong side of every latency limit: its samples
    (`Samples.with_failed`) are eleven times a ceiling, the worst margin, and zero for a floor. They count in
    the decision and in the margin of every statistic; the value shown is that of the good requests.
    """
    return Verdict(
        ceilings=tuple(
            _judge_ceiling(ceiling, measurements[ceiling.quantity.load], slo, error_rate)
            for ceiling in slo.ceilings
            if ceiling.quantity.load in measurements
        )
    )


def pool(verdicts: Sequence[Verdict], slo: Slo, *, error_rate: float = ERROR_RATE) -> Verdict:
    """Return one verdict over several launches of one candidate.

    The value of a ceiling is the worst one. A launch that missed decides; otherwise a percentile is decided
    on the pooled share, and everything else is met only if every launch met it.
    """
    pooled = []
    for ceiling in slo.ceilings:
        each = [
            judged for verdict in verdicts for judged in verdict.ceilings if judged.ceiling == ceiling.text
        ]
        if each:
            pooled.append(_pool_ceiling(ceiling, each, error_rate))
    return Verdict(ceilings=tuple(pooled))


def _judge_ceiling(ceiling: Ceiling, measurement: Measurement, slo: Slo, error_rate: float) -> CeilingVerdict:
    quantity = ceiling.quantity
    if quantity.metric in LATENCIES:
        return _judge_latency(ceiling, measurement.samples(quantity.metric), error_rate)
    value = quantity.of(measurement, slo.request_limits_s(quantity.load))
    margin = ceiling.margin_ratio(value)
    return CeilingVerdict(
        ceiling=ceiling.text,
        decision=_decide_margin(margin),
        value=value,
        limit=ceiling.limit,
        margin_ratio=margin,
        samples=len(measurement.records),
    )


def _judge_latency(ceiling: Ceiling, good: Samples, error_rate: float) -> CeilingVerdict:
    samples = judged_samples(ceiling, good)
    margin = _margin_of(ceiling, samples)
    decided = CeilingVerdict(
        ceiling=ceiling.text,
        decision=_decide_margin(margin),
        value=ceiling.quantity.statistic_of(good),
        limit=ceiling.limit,
        margin_ratio=margin,
        samples=len(samples.values),
        failed=len(good.failed),
    )
    if ceiling.quantity.percent is None or not len(samples.values):
        return decided
    return _decided_by(
        decided, ceiling, samples.share_over(ceiling.limit, ceiling.quantity.percent), error_rate
    )


def _margin_of(ceiling: Ceiling, samples: Samples) -> float:
    return ceiling.margin_ratio(ceiling.quantity.statistic_of(samples))


def judged_samples(ceiling: Ceiling, good: Samples) -> Samples:
    """Return a latency's samples with those of failed requests, which are on the wrong side of the limit."""
    return good.with_failed(0.0 if ceiling.is_floor else ceiling.limit * (1 - WORST_MARGIN_RATIO))


def _pool_ceiling(ceiling: Ceiling, each: Sequence[CeilingVerdict], error_rate: float) -> CeilingVerdict:
    worst = min(each, key=lambda judged: judged.margin_ratio)
    pooled = worst.model_copy(
        update={
            "samples": sum(judged.samples for judged in each),
            "failed": sum(judged.failed for judged in each),
        }
    )
    seen = pool_shares([judged.seen for judged in each if judged.seen is not None])
    if seen.independent:
        pooled = _decided_by(pooled, ceiling, seen, error_rate)
    if any(judged.decision is Decision.MISSED for judged in each):
        return pooled.model_copy(update={"decision": Decision.MISSED})
    return pooled


def _decided_by(
    judged: CeilingVerdict, ceiling: Ceiling, seen: SeenShare, error_rate: float
) -> CeilingVerdict:
    return judged.model_copy(
        update={
            "decision": decide_share(ceiling, seen, error_rate),
            "share_over": seen.share,
            "independent_samples": seen.independent,
            "requests": seen.clusters,
        }
    )


def _decide_margin(margin_ratio: float) -> Decision:
    return Decision.MET if margin_ratio >= 0 else Decision.MISSED


def decide_share(ceiling: Ceiling, seen: SeenShare, error_rate: float) -> Decision:
    """Decide `pNN < limit`: at most 1 - NN/100 of the samples lie over the limit (a floor: at least)."""
    interval = seen.interval(error_rate=error_rate)
    allowed = 1 - (ceiling.quantity.percent or 0.0) / 100
    below, above = interval.high <= allowed, interval.low > allowed
    if ceiling.is_floor:
        below, above = above, below
    if below:
        return Decision.MET
    return Decision.MISSED if above else Decision.UNDECIDED


def is_within_reach(judged: CeilingVerdict, ceiling: Ceiling, *, times: float, error_rate: float) -> bool:
    """Whether so many times the samples would decide an undecided percentile, if the share over it stayed."""
    seen = judged.seen
    if judged.decision is not Decision.UNDECIDED or seen is None:
        return False
    more = SeenShare(seen.share, seen.independent * times, seen.clusters * times)
    return decide_share(ceiling, more, error_rate) is not Decision.UNDECIDED


def violation(verdict: CeilingVerdict) -> float:
    """Return the signed violation that Optuna takes as a constraint: at most 0 if and only if met.

    An undecided ceiling counts by its measured value.
    """
    return _violation(verdict.margin_ratio)


def violations(slo: Slo, measurements: Mapping[str, Measurement]) -> dict[str, float]:
    """Return the violation of each ceiling, as after `judge`, without deciding what the samples prove."""
    return {
        ceiling.text: _violation(_margin(ceiling, measurements[ceiling.quantity.load], slo))
        for ceiling in slo.ceilings
        if ceiling.quantity.load in measurements
    }


def _margin(ceiling: Ceiling, measurement: Measurement, slo: Slo) -> float:
    quantity = ceiling.quantity
    if quantity.metric in LATENCIES:
        return _margin_of(ceiling, judged_samples(ceiling, measurement.samples(quantity.metric)))
    return ceiling.margin_ratio(quantity.of(measurement, slo.request_limits_s(quantity.load)))


def _violation(margin_ratio: float) -> float:
    return -margin_ratio if math.isfinite(margin_ratio) else 10.0
