"""Whether a load point may stop while it runs: its ceilings are decided, or it is beyond hope. Pure.

In: an `Slo`, one of its load points, and the first requests of a load as they end. Out: a `Stop` with its
reason. Looks at fixed shares of the planned requests, each time at all that were due by then.
Invariants: a load point that an objective needs stops only for a candidate that misses its SLO, or that
cannot beat the best so far and is then never said to meet it; a ceiling is called missed early only if the
whole load's value would miss it however well the other requests went.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

import numpy as np

from autotune.document import Frozen
from autotune.interval import Interval, SeenShare, share_interval
from autotune.load.arrivals import LoadPoint
from autotune.metrics import LATENCIES, Measurement, Metric, measure
from autotune.request import RequestRecord
from autotune.slo.ceiling import Ceiling
from autotune.slo.chance import Course
from autotune.slo.promise import Slo
from autotune.slo.verdict import (
    ERROR_RATE,
    CeilingVerdict,
    Decision,
    Verdict,
    decide_share,
    judge,
    judged_samples,
)
from autotune.stalls import StallLimit, stalls

PARTS = 8
"""A load is looked at after each eighth of its requests but the last, which is the verdict's own look."""
LOOK_ERROR_RATE = ERROR_RATE / (PARTS - 1)
"""Of the two-sided interval at each look: half of it for a claim on one side, `ERROR_RATE` / 2 for all looks.

Alpha is spent evenly (Lan and DeMets 1983, with a linear spending function), and by Bonferroni's inequality,
so that it holds however the looks depend on each other. The verdict's own looks, `ERROR_RATE` in all, err
with half of it on either side; together a claim is wrong with at most `ERROR_RATE`.
"""
LEAST_REQUESTS = 40
"""An open loop is not looked at before so many requests, a closed one not before two waves."""
_LONG_S = 1e9
_QUARTERS = 4
_QUEUED = (Metric.TTFT, Metric.E2E)
_DECODED = (Metric.TPOT, Metric.ITL, Metric.E2E)


class StopKind(StrEnum):
    """What ended a load point.

    A ceiling's interval or value, hopelessness, a miss at another point, or that too little can be gained.
    """

    MISSED = "missed"
    QUEUE = "queue"
    STALL = "stall"
    LOST = "lost"
    MET = "met"
    NO_CHANCE = "no_chance"


class Stop(Frozen):
    """Why a load point was stopped, after how many of its `planned` requests; the values are those of these.

    `ceiling`: the one that is missed, None for LOST (it is at another load point), MET and NO_CHANCE.
    """

    kind: StopKind
    reason: str
    ceiling: str | None
    requests: int
    planned: int

    def __str__(self) -> str:
        return f"stopped after {self.requests} of {self.planned} requests: {self.reason}"


class EarlyJudge:
    """An onlooker of one load (`request.Onlooker`); `stop` is set once it has seen enough.

    `planned`: the most requests that the load sends. `lost`: a ceiling that the candidate misses at another
    load point, for which this one is only worth its first look. `course`: what a model expects of the
    objective here, None if there is no model or nothing to beat.
    """

    def __init__(
        self,
        slo: Slo,
        point: LoadPoint,
        *,
        planned: int,
        lost: str | None = None,
        course: Course | None = None,
    ) -> None:
        self.stop: Stop | None = None
        self._point = point
        self._planned = planned
        self._lost = lost
        self._course = course
        self._ceilings = [each for each in slo.ceilings if each.quantity.load == point.label]
        self._has_goal = any(goal.quantity.load == point.label for goal in slo.goals)
        self._looks = looks_of(planned, point.concurrency)

    @property
    def next_look(self) -> int | None:
        """With how many requests it looks next, None: never again."""
        return self._looks[0] if self._looks and self.stop is None else None

    def is_decided(self, records: Sequence[RequestRecord]) -> bool:
        """Look at the first requests; True ends the load."""
        self._looks = self._looks[1:]
        seen = measure(records, concurrency=self._point.concurrency)
        if seen.is_steady or seen.is_open_loop:
            self.stop = next(self._reasons(seen), None)
        return self.stop is not None

    def _reasons(self, seen: Measurement) -> Iterator[Stop]:
        if self._lost is not None:
            yield self._stop(seen, StopKind.LOST, f"the candidate misses {self._lost}")
        for ceiling in self._ceilings:
            if _misses_whatever_comes(ceiling, seen, self._planned - len(seen.records)):
                yield from self._evidence(ceiling, seen)
        if not self._has_goal and self._is_surely_met(seen):
            yield self._stop(seen, StopKind.MET, "every ceiling here is met")
        yield from self._no_chance(seen)

    def _evidence(self, ceiling: Ceiling, seen: Measurement) -> Iterator[Stop]:
        """Yield what makes the miss of a ceiling more than chance; a value that decides is enough."""
        metric = ceiling.quantity.metric
        if ceiling.quantity.percent is None:
            reason = f"{ceiling.text} is missed whatever the other requests do"
            yield self._stop(seen, StopKind.MISSED, reason, ceiling)
            return
        share = seen_share(ceiling, seen)
        if decide_share(ceiling, share, LOOK_ERROR_RATE) is Decision.MISSED:
            yield self._stop(seen, StopKind.MISSED, _share_text(ceiling, share), ceiling)
        if metric in _QUEUED and (waits := growing_waits_s(seen)):
            text = ", ".join(f"{wait_s:.3g}" for wait_s in waits)
            reason = f"the queue grows without bound (ttft p50 of each quarter: {text} s)"
            yield self._stop(seen, StopKind.QUEUE, f"{ceiling.text} is missed: {reason}", ceiling)
        if metric in _DECODED and (stalled := _most_stalled(seen)):
            reason = f"decoding all but stopped in {stalled} of {len(seen.records)} requests"
            yield self._stop(seen, StopKind.STALL, f"{ceiling.text} is missed: {reason}", ceiling)

    def _no_chance(self, seen: Measurement) -> Iterator[Stop]:
        course, concurrency = self._course, self._point.concurrency
        most = course.most(seen.records, concurrency=concurrency) if course and concurrency else None
        if course is not None and most is not None and course.is_too_little(most):
            reason = f"it can be worth {most:.4g} at most, and the best so far is worth {course.to_beat:.4g}"
            yield self._stop(seen, StopKind.NO_CHANCE, reason)

    def _is_surely_met(self, seen: Measurement) -> bool:
        """Whether no ceiling can be missed any more at the stated error rate.

        Never for an open loop, whose queue may still begin to grow, and never while a ceiling is one that its
        last request may break.
        """
        return (
            not seen.is_open_loop
            and bool(self._ceilings)
            and all(
                ceiling.quantity.percent is not None
                and decide_share(ceiling, seen_share(ceiling, seen), LOOK_ERROR_RATE) is Decision.MET
                for ceiling in self._ceilings
            )
        )

    def _stop(self, seen: Measurement, kind: StopKind, reason: str, ceiling: Ceiling | None = None) -> Stop:
        return Stop(
            kind=kind,
            reason=reason,
            ceiling=None if ceiling is None else ceiling.text,
            requests=len(seen.records),
            planned=self._planned,
        )


def judge_stopped(
    slo: Slo, measurements: Mapping[str, Measurement], stops: Mapping[str, Stop], *, error_rate: float
) -> Verdict:
    """Return the verdict where some load points, by their labels, were stopped.

    What a stop decided stays decided. A point that was only begun (LOST) says nothing about its ceilings, and
    one that was given up (NO_CHANCE) meets none of them: nobody saw the whole load.
    """
    begun = {label for label, stop in stops.items() if stop.kind is StopKind.LOST}
    seen = {label: each for label, each in measurements.items() if label not in begun}
    missed = {stop.ceiling for stop in stops.values()}
    given_up = {label for label, stop in stops.items() if stop.kind is StopKind.NO_CHANCE}
    open_ = {each.text for each in slo.ceilings if each.quantity.load in given_up}

    def decision(judged: CeilingVerdict) -> Decision:
        if judged.ceiling in missed:
            return Decision.MISSED
        is_met = judged.decision is Decision.MET
        return Decision.UNDECIDED if is_met and judged.ceiling in open_ else judged.decision

    ceilings = judge(slo, seen, error_rate=error_rate).ceilings
    return Verdict(ceilings=tuple(each.model_copy(update={"decision": decision(each)}) for each in ceilings))


def looks_of(planned: int, concurrency: int | None) -> tuple[int, ...]:
    """Return after how many requests a load is looked at; a closed loop's opening wave tells nothing."""
    least = LEAST_REQUESTS if concurrency is None else 2 * concurrency
    shares = (-(-planned * part // PARTS) for part in range(1, PARTS))
    return tuple(sorted({count for count in shares if least <= count < planned}))


def seen_share(ceiling: Ceiling, seen: Measurement) -> SeenShare:
    """Return the share over a percentile's limit with the weight that few, clumped requests have.

    The verdict's own weight looks at who lies over the limit; when everybody does, it sees no clumps. So the
    requests also count as no more than the autocorrelation of their latencies themselves allows.
    """
    samples = judged_samples(ceiling, seen.samples(ceiling.quantity.metric))
    share = samples.share_over(ceiling.limit, ceiling.quantity.percent)
    worth = samples.requests / samples.clumping
    return SeenShare(share.share, min(share.independent, worth), min(share.clusters, worth))


def growing_waits_s(seen: Measurement) -> tuple[float, ...]:
    """Return the median TTFT of each quarter of an open loop whose queue only grows, () for any other.

    It grows if from quarter to quarter the fastest tenth is slower than the slowest tenth before. A queue
    that empties now and then, however busy, shows short waits in every quarter.
    """
    waits_s = seen.samples(Metric.TTFT).values
    if not seen.is_open_loop or len(waits_s) < LEAST_REQUESTS:
        return ()
    quarters = np.array_split(waits_s, _QUARTERS)
    low, middle, high = (
        np.array([np.percentile(each, percent) for each in quarters]) for percent in (10, 50, 90)
    )
    return tuple(float(each) for each in middle) if (low[1:] > high[:-1]).all() else ()


def _misses_whatever_comes(ceiling: Ceiling, seen: Measurement, to_come: int) -> bool:
    """Whether the whole load's value misses even if every request to come is perfect (curtailed sampling)."""
    quantity = ceiling.quantity
    if quantity.metric in LATENCIES:
        samples = judged_samples(ceiling, seen.samples(quantity.metric))
        whole = samples.followed_by(to_come, _LONG_S if ceiling.is_floor else 0.0)
        return bool(len(samples.values)) and ceiling.margin_ratio(quantity.statistic_of(whole)) < 0
    if quantity.metric is Metric.ERROR_RATIO and not ceiling.is_floor:
        failed = len(seen.records) - seen.served
        return ceiling.margin_ratio(failed / (len(seen.records) + to_come)) < 0
    return False


def _most_stalled(seen: Measurement) -> int:
    """Return how many requests stalled if those are surely most of them, else 0."""
    count = len(stalls(seen.records, StallLimit()))
    interval = share_interval(count, len(seen.records), error_rate=LOOK_ERROR_RATE)
    return count if interval.low > 1 / 2 else 0


def _share_text(ceiling: Ceiling, share: SeenShare) -> str:
    interval: Interval = share.interval(error_rate=LOOK_ERROR_RATE)
    allowed = 100 - (ceiling.quantity.percent or 0.0)
    bound = "must" if ceiling.is_floor else "may"
    low, high = 100 * interval.low, 100 * interval.high
    return (
        f"{ceiling.text} is missed: {100 * share.share:.3g} % [{low:.3g} % .. {high:.3g} %] "
        f"lie over the limit, {allowed:.3g} % {bound}"
    )
