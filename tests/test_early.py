"""A load point stops early only for what its whole load would say, and wrongly no more often than stated."""

from collections.abc import Callable, Iterator, Sequence
from math import inf

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autotune.load.arrivals import LoadPoint
from autotune.load.workload import Workload, offer
from autotune.metrics import Metric, Samples, measure
from autotune.request import RequestRecord, due_order, first_ended
from autotune.slo import (
    ERROR_RATE,
    Course,
    Decision,
    EarlyJudge,
    Slo,
    Stop,
    StopKind,
    Verdict,
    judge,
    judge_stopped,
)
from autotune.slo.early import LEAST_REQUESTS, looks_of
from tests.support.records import record, steady_records
from tests.support.simulated import endpoint_of, profile_without_noise, scheduler_of
from tests.test_error_rate import QUANTILE, in_a_queue, in_batches, independent

REQUESTS = 250
STUDIES = 150
CONCURRENCY = 4
CLOSED = LoadPoint(concurrency=CONCURRENCY, requests=REQUESTS + CONCURRENCY)
OPEN = LoadPoint(rate=1, requests=200)
P95 = "ttft p95 < 1s at concurrency 4"


def slo_of(*ceilings: str, goal: str = "concurrency 4") -> Slo:
    return Slo.model_validate(
        {
            "workload": {"input_tokens": 8, "output_tokens": 2},
            "load": [CLOSED.model_dump(exclude_none=True), OPEN.model_dump(exclude_none=True)],
            "ceilings": list(ceilings),
            "objective": f"maximise output_throughput at {goal}",
        }
    )


def stop_of(
    slo: Slo,
    records: Sequence[RequestRecord],
    point: LoadPoint = CLOSED,
    *,
    lost: str | None = None,
    course: Course | None = None,
) -> Stop | None:
    """What ends a load whose whole course would be these records; None if nothing does."""
    judge_of = EarlyJudge(slo, point, planned=len(records), lost=lost, course=course)
    while (count := judge_of.next_look) is not None:
        first = first_ended(records, inf, count)
        assert first is not None
        assert judge_of.is_decided(first) == (judge_of.stop is not None)
    return judge_of.stop


def waiting(waits_s: Sequence[float] | NDArray[np.float64]) -> list[RequestRecord]:
    """An open loop of one request a second with these TTFTs."""
    return [
        record(index, sent_s=float(index), chunks=((wait_s, 1), (wait_s + 0.1, 1)))
        for index, wait_s in enumerate(waits_s)
    ]


def at_the_limit(
    draw: Callable[[np.random.Generator], NDArray[np.float64]], seed: int
) -> list[RequestRecord]:
    ttft_s = np.exp((draw(np.random.default_rng(seed)) - QUANTILE) / 4)
    return steady_records(list(ttft_s), concurrency=CONCURRENCY)


@pytest.mark.parametrize("draw", [independent, in_batches, in_a_queue])
def test_at_the_limit_a_load_is_stopped_for_either_claim_no_more_often_than_half_the_stated_rate(
    draw: Callable[[np.random.Generator], NDArray[np.float64]],
) -> None:
    stops = [stop_of(slo_of(P95, goal="rate 1"), at_the_limit(draw, seed)) for seed in range(STUDIES)]

    side = ERROR_RATE / 2
    most = STUDIES * side + 2 * np.sqrt(STUDIES * side)
    kinds = [stop.kind for stop in stops if stop is not None]
    assert kinds.count(StopKind.MISSED) <= most
    assert kinds.count(StopKind.MET) <= most


def queue(load: float, seed: int) -> NDArray[np.float64]:
    """Waits of Poisson arrivals at one server whose service takes `load` of their mean gap."""
    generator = np.random.default_rng(seed)
    waits_s = np.zeros(OPEN.requests or 0)
    for index, gap_s in enumerate(generator.exponential(size=len(waits_s) - 1)):
        waits_s[index + 1] = max(waits_s[index] + load - gap_s, 0.0)
    return waits_s + load


def test_a_busy_queue_at_its_limit_is_stopped_no_more_often_than_stated() -> None:
    course = [queue(0.9, seed) for seed in range(STUDIES)]
    limit_s = float(np.percentile(np.concatenate(course), 95))
    slo = slo_of(f"ttft p95 < {limit_s:.3f}s at rate 1", goal="rate 1")
    stopped = sum(stop_of(slo, waiting(waits_s), OPEN) is not None for waits_s in course)

    assert stopped <= STUDIES * ERROR_RATE / 2 + 2 * np.sqrt(STUDIES * ERROR_RATE / 2)


def simulated_points(seeds: range) -> Iterator[tuple[RequestRecord, ...]]:
    """One load point of the simulated engine after the other, with prompts and answers of mixed lengths."""
    profile = profile_without_noise()
    for seed in seeds:
        lengths = {"uniform": [200, 4000]}, {"uniform": [10, 60]}
        workload = Workload(input_tokens=lengths[0], output_tokens=lengths[1], seed=seed)
        point = LoadPoint(concurrency=8, requests=104)
        flags = {"chunked-prefill-size": 2048}
        endpoint = endpoint_of(scheduler_of(profile, dict(flags), seed=seed), profile)
        yield endpoint.run(offer(workload, point, salt=seed)).records


def test_simulated_load_points_at_their_limit_are_stopped_no_more_often_than_stated() -> None:
    points = list(simulated_points(range(60)))
    slowest = [measure(each, concurrency=8) for each in points]
    ttft_s = np.concatenate(
        [[r.first_token_s - r.scheduled_s for r in m.steady if r.first_token_s] for m in slowest]
    )
    text = f"ttft p95 < {np.percentile(ttft_s, 95):.4f}s at concurrency 8"
    slo = Slo.model_validate(
        {
            "workload": {"input_tokens": 8, "output_tokens": 2},
            "load": [{"concurrency": 8, "requests": 104}],
            "ceilings": [text],
            "objective": "maximise output_throughput at concurrency 8",
        }
    )
    stopped = sum(stop_of(slo, each, slo.load[0]) is not None for each in points)

    assert stopped <= len(points) * ERROR_RATE / 2 + 2 * np.sqrt(len(points) * ERROR_RATE / 2)


SECONDS = st.sampled_from([0.2, 0.9, 1.1, 5.0, 40.0])
METRICS = st.sampled_from(["ttft p95", "ttft p50", "ttft mean", "ttft max", "e2e p90", "tpot p95", "itl p99"])


@given(st.lists(SECONDS, min_size=16, max_size=60), METRICS)
@example([5.0] * 16, "ttft p95")
def test_what_is_stopped_as_missed_is_missed_by_the_whole_load_whatever_comes(
    ttft_s: list[float], metric: str
) -> None:
    slo = slo_of(f"{metric} < 1s at concurrency 4")
    records = steady_records(ttft_s, concurrency=CONCURRENCY)
    stop = stop_of(slo, records)
    if stop is None:
        return
    best = [
        *sorted(records, key=due_order)[: stop.requests],
        *_perfect(records[-1], len(records) - stop.requests),
    ]
    for course in (records, best):
        (verdict,) = judge(slo, {"concurrency 4": measure(course, concurrency=CONCURRENCY)}).ceilings
        assert verdict.margin_ratio < 0
        assert verdict.ceiling == stop.ceiling
    assert stop.kind is StopKind.MISSED
    assert stop.requests < stop.planned == len(records)


def _perfect(last: RequestRecord, count: int) -> list[RequestRecord]:
    return [
        record(last.index + 1 + place, sent_s=last.ended_s + 1 + place, chunks=((0.0, 1), (0.0, 1)))
        for place in range(count)
    ]


@given(st.lists(SECONDS, min_size=1, max_size=30), st.data())
def test_a_look_sees_the_same_requests_whenever_it_is_taken(ttft_s: list[float], data: st.DataObject) -> None:
    records = sorted(steady_records(ttft_s, concurrency=3), key=due_order)
    count = data.draw(st.integers(1, len(records)))
    now_s = data.draw(st.floats(0, 200))
    ended = [each for each in records if each.ended_s <= now_s]
    open_since_s = min((each.scheduled_s for each in records if each.ended_s > now_s), default=inf)
    first = first_ended(data.draw(st.permutations(ended)), open_since_s, count)

    assert first in (None, tuple(records[:count]))
    if now_s >= max(each.ended_s for each in records):
        assert first is not None


def test_a_load_that_misses_by_far_is_stopped_at_its_first_look_with_the_interval() -> None:
    stop = stop_of(slo_of(P95), steady_records([3.0] * REQUESTS, concurrency=CONCURRENCY))

    assert stop is not None
    assert stop.requests == looks_of(REQUESTS + CONCURRENCY, CONCURRENCY)[0]
    assert str(stop) == (
        "stopped after 32 of 254 requests: ttft p95 < 1s at concurrency 4 is missed: "
        "100 % [81.8 % .. 100 %] lie over the limit, 5 % may"
    )


def test_a_slow_beginning_that_the_rest_may_make_up_for_is_no_reason() -> None:
    assert stop_of(slo_of(P95), steady_records([3.0] * 12 + [0.2] * 238, concurrency=CONCURRENCY)) is None


def test_a_candidate_that_misses_elsewhere_is_only_given_the_first_look() -> None:
    records = steady_records([0.2] * REQUESTS, concurrency=CONCURRENCY)
    stop = stop_of(slo_of(P95), records, lost="tpot p95 < 1ms at rate 1")

    assert stop is not None
    assert (stop.kind, stop.ceiling, stop.requests) == (StopKind.LOST, None, 32)
    assert stop.reason == "the candidate misses tpot p95 < 1ms at rate 1"


def test_a_point_without_an_objective_ends_when_every_ceiling_is_surely_met() -> None:
    fast = steady_records(list(np.random.default_rng(1).uniform(0.1, 0.2, REQUESTS)), concurrency=CONCURRENCY)
    bare = slo_of(P95, goal="rate 1")
    stop = stop_of(bare, fast)

    assert stop is not None
    assert (stop.kind, stop.ceiling) == (StopKind.MET, None)
    assert stop_of(slo_of(P95), fast) is None  # its objective needs all of it
    assert stop_of(slo_of(P95, "error_ratio < 1% at concurrency 4", goal="rate 1"), fast) is None
    assert (
        stop_of(slo_of("ttft p95 < 1s at rate 1"), waiting([0.1] * 200), OPEN) is None
    )  # a queue may grow yet


def test_a_queue_that_grows_without_bound_is_hopeless_although_its_waits_are_too_alike_for_an_interval() -> (
    None
):
    slo = slo_of("ttft p95 < 20s at rate 1", "error_ratio < 1% at rate 1")
    stop = stop_of(slo, waiting(queue(2.0, seed=3)), OPEN)

    assert stop is not None
    assert stop.kind is StopKind.QUEUE
    assert "the queue grows without bound (ttft p50 of each quarter: " in stop.reason
    assert stop_of(slo_of("tpot p95 < 200ms at rate 1"), waiting(queue(2.0, seed=3)), OPEN) is None


def test_a_collapse_of_decoding_ends_a_load_although_its_requests_are_too_alike_for_an_interval() -> None:
    stalled = [
        record(index, sent_s=float(index), chunks=((0.1, 1), (10 + index / 10, 2)))
        for index in range(OPEN.requests or 0)
    ]
    stop = stop_of(slo_of("tpot p50 < 4s at rate 1"), stalled, OPEN)

    assert stop is not None
    assert (stop.kind, stop.ceiling) == (StopKind.STALL, "tpot p50 < 4s at rate 1")
    assert "decoding all but stopped in" in stop.reason


def test_errors_end_a_load_once_the_rest_cannot_make_up_for_them() -> None:
    slo = slo_of("error_ratio < 2% at rate 1", "error_ratio > 1% at rate 1", "goodput > 1 req/s at rate 1")
    records = [record(index, sent_s=float(index), failed=10 <= index < 15) for index in range(200)]
    stop = stop_of(slo, records, OPEN)

    assert stop is not None
    assert stop.reason == "error_ratio < 2% at rate 1 is missed whatever the other requests do"
    assert (
        stop_of(slo, [record(index, sent_s=float(index), failed=index == 3) for index in range(200)], OPEN)
        is None
    )


def test_a_load_is_looked_at_after_parts_of_it_but_not_in_its_opening_waves() -> None:
    assert looks_of(80, 10) == (20, 30, 40, 50, 60, 70)
    assert looks_of(19, 10) == ()
    assert looks_of(64, None) == (LEAST_REQUESTS, 48, 56)
    assert looks_of(3, None) == ()


def test_clumping_is_that_of_the_latencies_where_all_are_over_the_limit() -> None:
    waves = np.repeat(np.random.default_rng(2).normal(size=2000), 5)
    owner = np.arange(len(waves))

    assert Samples(waves, owner).clumping == pytest.approx(5, rel=0.15)
    assert Samples(np.ones(50), np.arange(50)).clumping == 1
    assert Samples(np.empty(0), np.empty(0, dtype=np.int64)).clumping == 1


def test_a_floor_is_missed_early_too() -> None:
    slo = slo_of("ttft p50 > 1s at concurrency 4")
    stop = stop_of(slo, steady_records([0.2] * REQUESTS, concurrency=CONCURRENCY))

    assert stop is not None
    assert "must" in stop.reason
    assert stop_of(slo, steady_records([2.0] * REQUESTS, concurrency=CONCURRENCY)) is None


def test_a_verdict_keeps_what_was_decided_before_its_load_was_over() -> None:
    slo = slo_of(P95)
    seen = measure(steady_records([0.2] * REQUESTS, concurrency=CONCURRENCY), concurrency=CONCURRENCY)
    stop = Stop(kind=StopKind.QUEUE, reason="", ceiling=P95, requests=40, planned=254)
    lost = stop.model_copy(update={"kind": StopKind.LOST, "ceiling": None})

    def judged(stops: dict[str, Stop]) -> Verdict:
        return judge_stopped(slo, {"concurrency 4": seen}, stops, error_rate=ERROR_RATE)

    assert judged({}) == judge(slo, {"concurrency 4": seen})
    assert judged({}).missed is None
    assert judged({"concurrency 4": stop}).missed == P95
    assert judged({"concurrency 4": lost}).ceilings == ()


def _course(ttft_s: float, to_beat: float) -> Course:
    """A model that expects every first token after so long."""
    records = steady_records([ttft_s] * REQUESTS, concurrency=CONCURRENCY)
    worth = measure(records, concurrency=CONCURRENCY).rate(Metric.OUTPUT_THROUGHPUT)
    return Course(np.sort([each.scheduled_s for each in records]), worth, to_beat, noise_ratio=0.02)


def test_a_load_that_cannot_beat_the_best_so_far_is_given_up_after_a_third() -> None:
    slow = steady_records([0.5] * REQUESTS, concurrency=CONCURRENCY)
    worth = measure(slow, concurrency=CONCURRENCY).rate(Metric.OUTPUT_THROUGHPUT)

    stop = stop_of(slo_of(P95), slow, course=_course(0.3, to_beat=2 * worth))

    assert stop is not None
    assert (stop.kind, stop.ceiling, stop.requests) == (StopKind.NO_CHANCE, None, 96)
    assert f"at most, and the best so far is worth {2 * worth:.4g}" in str(stop)
    assert stop_of(slo_of(P95), slow, course=_course(0.3, to_beat=worth)) is None
    assert stop_of(slo_of(P95, goal="rate 1"), waiting([0.5] * 200), OPEN, course=_course(0.3, 1e9)) is None


def test_a_missed_ceiling_says_more_than_that_there_is_nothing_to_gain() -> None:
    stop = stop_of(
        slo_of(P95), steady_records([3.0] * REQUESTS, concurrency=CONCURRENCY), course=_course(0.3, 1e9)
    )

    assert stop is not None
    assert stop.kind is StopKind.MISSED


def test_what_was_given_up_is_never_said_to_meet_its_ceilings() -> None:
    slo = slo_of(P95, "e2e p95 < 2ms at concurrency 4")
    measurements = {"concurrency 4": measure(steady_records([0.5] * 200, concurrency=4), concurrency=4)}
    stop = Stop(kind=StopKind.NO_CHANCE, reason="x", ceiling=None, requests=204, planned=254)

    verdict = judge_stopped(slo, measurements, {"concurrency 4": stop}, error_rate=ERROR_RATE)

    assert [each.decision for each in verdict.ceilings] == [Decision.UNDECIDED, Decision.MISSED]
