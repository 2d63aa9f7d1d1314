import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest

from autotune.load.health import SelfCheck, invalid_reason
from autotune.load.transport.clock import ReceiveClock
from autotune.request import (
    ClientHealth,
    LoadResult,
    OfferedLoad,
    Request,
    RequestFailure,
    RequestFailureKind,
    RequestPhase,
    RequestRecord,
)

LOAD = OfferedLoad(tuple(Request(number, 1, 3) for number in range(4)), 4)
HEALTHY = ClientHealth(loop_lag_p99_s=0.001, cpu_ratio=0.2, peak_in_flight=4)
REFUSED = RequestFailure(RequestFailureKind.CONNECTION, RequestPhase.CONNECT, "refused")


def record(index: int = 0, gap_s: float = 0.02, ended_s: float = 1.0) -> RequestRecord:
    return RequestRecord(
        index=index,
        scheduled_s=0.0,
        sent_s=0.0,
        ended_s=ended_s,
        input_tokens=1,
        output_tokens=3,
        cached_tokens=0,
        chunk_times_s=np.array([0.1, 0.1 + 2 * gap_s]),
        chunk_tokens=np.array([1, 2]),
    )


def result(client: ClientHealth | None = HEALTHY, *records: RequestRecord) -> LoadResult:
    return LoadResult(records or tuple(record(number) for number in range(4)), client)


def test_a_healthy_run_is_valid() -> None:
    assert invalid_reason(result(), LOAD) is None


def test_a_late_event_loop_is_a_reason() -> None:
    reason = invalid_reason(result(replace(HEALTHY, loop_lag_p99_s=0.06)), LOAD)
    assert reason == "the load generator ran 60 ms late (p99; at most 50 ms)"


def test_a_slow_engine_forgives_a_late_event_loop() -> None:
    slow = result(replace(HEALTHY, loop_lag_p99_s=0.06), record(gap_s=2.0))
    assert invalid_reason(slow, LOAD) is None


SHARED = replace(HEALTHY, tokens_per_read=1.3, loop_lag_p99_s=0.0015)


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (SHARED, "1.30 tokens share a read (at most 1.05) while the load generator ran 1.50 ms late"),
        (replace(SHARED, loop_lag_p99_s=0.0009), None),
        (replace(SHARED, tokens_per_read=1.04), None),
        (replace(SHARED, tokens_per_read=1.0, has_kernel_stamps=False), "stamped up to 1.50 ms late"),
        (replace(HEALTHY, clock_drift_s=0.002), "clock was moved by 2.00 ms (at most 1.00 ms)"),
        (replace(HEALTHY, dispatch_delay_mean_s=0.06), "sent 60 ms late (mean; at most 50 ms)"),
        (replace(HEALTHY, dispatch_delay_mean_s=0.04, dispatch_delay_p99_s=0.9), None),
    ],
)
def test_an_error_above_a_twentieth_of_what_is_measured_is_a_reason(
    client: ClientHealth, reason: str | None
) -> None:
    found = invalid_reason(result(client), LOAD)
    assert found is None if reason is None else reason in (found or "")


def test_gaps_too_short_to_be_promised_are_not_judged_by_their_stamps() -> None:
    assert invalid_reason(result(SHARED, record(gap_s=0.004)), LOAD) is None


def test_an_open_loop_that_sends_late_is_not_the_load_that_was_asked() -> None:
    late = result(replace(HEALTHY, dispatch_delay_p99_s=0.07))
    load = replace(LOAD, concurrency=None)
    assert invalid_reason(late, load) == "requests were sent 70 ms late (p99; at most 50 ms)"
    long = result(replace(HEALTHY, dispatch_delay_p99_s=0.07), *(record(n, ended_s=2.0) for n in range(4)))
    assert invalid_reason(long, load) is None


def test_a_concurrency_that_was_not_reached_is_a_reason() -> None:
    reason = invalid_reason(result(replace(HEALTHY, peak_in_flight=3)), LOAD)
    assert reason == "4 requests in flight were asked and 3 reached"


def test_failing_requests_explain_a_low_concurrency() -> None:
    failing = result(replace(HEALTHY, peak_in_flight=3), record(), replace(record(), failure=REFUSED))
    assert invalid_reason(failing, LOAD) is None


def test_fewer_requests_than_slots_or_an_open_loop_need_no_concurrency() -> None:
    client = replace(HEALTHY, peak_in_flight=1)
    assert invalid_reason(result(client, record()), OfferedLoad(LOAD.requests[:1], 50)) is None
    assert invalid_reason(result(client, record()), OfferedLoad(LOAD.requests, None)) is None


def test_requests_that_ran_out_before_the_time_are_a_reason() -> None:
    load = replace(LOAD, stop_after_s=30.0)
    assert invalid_reason(result(), load) == "all 4 requests were answered after 1.0 s of 30 s"
    assert invalid_reason(result(None), load) == "all 4 requests were answered after 1.0 s of 30 s"


@pytest.mark.parametrize(
    "load",
    [
        replace(LOAD, stop_after_s=0.9),
        replace(LOAD, requests=[*LOAD.requests, *LOAD.requests], stop_after_s=30.0),
    ],
)
def test_a_run_that_lasted_is_valid(load: OfferedLoad) -> None:
    assert invalid_reason(result(), load) is None


def test_no_record_is_a_reason_unless_nothing_was_asked() -> None:
    nothing = LoadResult((), HEALTHY)
    assert invalid_reason(nothing, LOAD) == "no request was sent"
    assert invalid_reason(nothing, OfferedLoad((), 4)) is None


def test_virtual_time_has_no_late_loop_and_no_unreached_concurrency() -> None:
    assert invalid_reason(result(None), LOAD) is None


def test_records_without_gaps_have_no_median_gap() -> None:
    single = replace(record(), chunk_times_s=np.array([]), chunk_tokens=np.array([], dtype=np.int64))
    assert invalid_reason(result(HEALTHY, single), OfferedLoad(LOAD.requests[:1], 1)) is None


def test_a_blocked_event_loop_is_seen() -> None:
    async def main() -> ClientHealth:
        check = SelfCheck()
        ticking = asyncio.create_task(check.tick())
        await asyncio.sleep(0.02)
        time.sleep(0.1)  # noqa: ASYNC251 - blocks the loop on purpose
        await asyncio.sleep(0.02)
        ticking.cancel()
        return check.health(ReceiveClock())

    health = asyncio.run(main())
    assert health.loop_lag_p99_s > 0.05
    assert health.cpu_ratio >= 0


def test_the_peak_is_the_most_at_once() -> None:
    check = SelfCheck()
    check.begin_request()
    check.begin_request()
    check.end_request()
    check.begin_request()
    assert check.health(ReceiveClock()).peak_in_flight == 2
    assert check.health(ReceiveClock()).loop_lag_p99_s == 0
