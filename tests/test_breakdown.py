from dataclasses import replace

import numpy as np
import pytest

from autotune.breakdown import Breakdown, break_down
from autotune.interval import percentile_interval
from autotune.metrics import Metric, measure
from autotune.request import RequestFailure, RequestFailureKind, RequestPhase, RequestRecord
from autotune.stalls import StallLimit
from tests.support.records import record, steady_records

LIMIT = StallLimit(1.0, 5.0)


def broken_down(*records: RequestRecord, concurrency: int | None = None) -> Breakdown:
    return break_down(measure(records, concurrency=concurrency), LIMIT)


def test_an_open_loop_has_both_waits() -> None:
    found = broken_down(record(sent_s=2.5, scheduled_s=2.0, chunks=[(0.5, 1), (1.5, 1)]))
    assert found.ttft is not None
    assert found.ttft_scheduled is not None
    assert found.e2e is not None
    assert found.e2e_scheduled is not None
    assert found.dispatch_delay is not None
    assert [each.mean for each in (found.ttft, found.ttft_scheduled)] == pytest.approx([0.5, 1.0])
    assert [each.mean for each in (found.e2e, found.e2e_scheduled)] == pytest.approx([1.5, 2.0])
    assert found.dispatch_delay.mean == pytest.approx(0.5)


def test_a_chunk_of_several_tokens_is_spread_in_one_view_and_whole_in_the_other() -> None:
    found = broken_down(record(chunks=[(1.0, 1), (1.4, 4), (1.5, 1)]))
    assert found.itl is not None
    assert found.chunk_gap is not None
    assert found.tpot is not None
    assert (found.itl.samples, found.chunk_gap.samples) == (5, 2)
    assert (found.itl.mean, found.itl.maximum) == pytest.approx((0.1, 0.1))
    assert (found.chunk_gap.mean, found.chunk_gap.maximum) == pytest.approx((0.25, 0.4))
    assert found.tpot.mean == pytest.approx(0.1)
    assert found.single_stream_tps == pytest.approx(10)


def test_cold_and_cached_waits_are_told_apart() -> None:
    found = broken_down(
        record(0, chunks=[(1.9, 1)], input_tokens=100, cached_tokens=1),
        record(1, chunks=[(0.4, 1)], input_tokens=100, cached_tokens=99),
    )
    assert found.cold_ttft is not None
    assert found.hit_ttft is not None
    assert (found.cold_ttft.mean, found.hit_ttft.mean) == pytest.approx((1.9, 0.4))
    assert (found.tpot, found.itl, found.single_stream_tps) == (None, None, None)


def test_where_no_answer_tells_cached_tokens_nothing_is_called_cold() -> None:
    silent = [record(number, input_tokens=100, cached_tokens=None) for number in range(3)]
    found = broken_down(*silent)
    assert (found.cold_ttft, found.hit_ttft, found.cached_tokens) == (None, None, None)
    found = broken_down(*silent, record(3, input_tokens=100, cached_tokens=60))
    assert found.cold_ttft is not None
    assert found.hit_ttft is not None
    assert (found.cold_ttft.samples, found.hit_ttft.samples, found.cached_tokens) == (3, 1, 60)


def test_the_ramp_stands_apart_from_the_steady_window() -> None:
    found = broken_down(*steady_records([0.2] * 30, concurrency=5), concurrency=5)
    assert found.is_steady
    assert found.ttft is not None
    assert found.ramp_ttft is not None
    assert (found.ttft.samples, found.ttft.mean) == pytest.approx((30, 0.2))
    assert (found.ramp_ttft.samples, found.ramp_ttft.mean) == pytest.approx((5, 0.5))


def test_percentiles_come_with_their_exact_intervals_and_open_ends() -> None:
    waits = np.arange(1, 61) / 10
    found = broken_down(*(record(index, chunks=[(wait, 1)]) for index, wait in enumerate(waits)))
    assert found.ttft is not None
    exact = percentile_interval(waits, 50)
    assert (found.ttft.p50.low, found.ttft.p50.high) == pytest.approx((exact.low, exact.high))
    assert found.ttft.p50.value == pytest.approx(3.05)
    assert found.ttft.p99.low is not None
    assert found.ttft.p99.high is None


def test_gaps_of_one_request_do_not_pass_for_independent() -> None:
    chunks = [(0.1 * step, 1) for step in range(1, 200)]
    found = broken_down(*(record(index, chunks=chunks) for index in range(3)))
    assert found.itl is not None
    assert (found.itl.samples, found.itl.requests) == (594, 3)
    assert found.itl.p50.high is None
    assert found.itl.p95.high is None


def test_errors_are_counted_by_kind_and_have_no_latency() -> None:
    refused = RequestFailure(RequestFailureKind.HTTP_STATUS, RequestPhase.HEADERS, "503")
    found = broken_down(
        record(0),
        replace(record(1, chunks=[]), failure=refused),
        record(2, failed=True, chunks=[(9.0, 1)]),
        replace(record(3, chunks=[]), failure=refused),
    )
    assert {kind: share.hits for kind, share in found.errors.items()} == {"http_status": 2, "timeout": 1}
    share = found.errors["http_status"]
    assert share.count == 4
    assert 0 < share.low < 0.5 < share.high < 1
    assert found.ttft is not None
    assert (found.sent, found.succeeded, found.ttft.samples) == (4, 1, 1)


def test_stalls_are_counted_among_all_that_was_sent() -> None:
    found = broken_down(record(0), record(1, chunks=[(1.0, 1), (9.0, 1)]), record(2))
    assert (found.stalls.hits, found.stalls.count) == (1, 3)
    assert [row.index for row in found.stalled] == [1]
    assert found.stalled[0].lasted_s == pytest.approx(8.0)


def test_goodput_is_given_when_limits_are() -> None:
    records = (record(0, chunks=[(0.1, 1), (0.2, 1)]), record(1, chunks=[(0.9, 1), (1.0, 1)]))
    measurement = measure(records, concurrency=None)
    assert break_down(measurement, LIMIT).goodput_rps is None
    assert break_down(measurement, LIMIT, {Metric.TTFT: 0.5}).goodput_rps == pytest.approx(1.0)


def test_a_record_that_never_left_counts_from_when_it_was_due() -> None:
    found = broken_down(replace(record(scheduled_s=0.0), sent_s=None))
    assert found.dispatch_delay is not None
    assert found.dispatch_delay.mean == 0


def test_nothing_measured_is_nothing_told() -> None:
    found = broken_down(record(failed=True, chunks=[]))
    assert (found.ttft, found.e2e, found.chunk_gap) == (None, None, None)
    assert Breakdown.model_validate_json(found.model_dump_json()) == found
