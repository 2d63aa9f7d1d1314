from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.interval import SeenShare
from autotune.metrics import Metric, Samples, join, measure
from autotune.request import RequestFailure, RequestFailureKind, RequestPhase
from tests.support.records import record, steady_records


def test_latencies_follow_their_definitions() -> None:
    # sent at 1; chunks at 1.5 (1 token), 1.7 (2 tokens), 2.0 (1 token)
    one = record(0, sent_s=1.0, chunks=((0.5, 1), (0.7, 2), (1.0, 1)))
    measurement = measure([one], concurrency=1)

    assert measurement.samples(Metric.TTFT).values == pytest.approx([0.5])
    assert measurement.samples(Metric.E2E).values == pytest.approx([1.0])
    assert measurement.samples(Metric.TPOT).values == pytest.approx([0.5 / 3])
    assert measurement.samples(Metric.ITL).values == pytest.approx([0.1, 0.1, 0.3])


def test_an_open_loop_counts_from_the_scheduled_time() -> None:
    late = record(0, sent_s=3.0, scheduled_s=1.0, chunks=((0.5, 1), (0.7, 1)))

    measurement = measure([late], concurrency=None)

    assert measurement.samples(Metric.TTFT).values == pytest.approx([2.5])
    assert measurement.samples(Metric.E2E).values == pytest.approx([2.7])


def test_a_failed_request_has_no_latency_but_counts_as_an_error() -> None:
    measurement = measure([record(0), record(1, failed=True)], concurrency=None)

    assert measurement.error_ratio == 0.5
    assert len(measurement.samples(Metric.TTFT).values) == 1
    assert measurement.summary().failures == {"timeout/stream": 1}


def test_a_single_token_has_no_tpot() -> None:
    measurement = measure([record(0, chunks=((0.5, 1),))], concurrency=None)

    assert len(measurement.samples(Metric.TPOT).values) == 0
    assert measurement.summary().tpot is None


def test_the_opening_wave_of_a_closed_loop_is_left_out() -> None:
    records = steady_records([0.1] * 12, concurrency=4)

    measurement = measure(records, concurrency=4)

    assert measurement.is_steady
    assert measurement.samples(Metric.TTFT).values == pytest.approx([0.1] * 12)
    assert measurement.summary().sent == 16


def test_the_opening_wave_is_what_was_sent_first_whatever_its_numbers() -> None:
    # two slots, each with a conversation of three turns; slot 1 begins with request 3, one second late
    turns = [(0, 0.0), (1, 2.0), (2, 4.0), (3, 1.0), (4, 3.0), (5, 5.0)]
    chunks = {0: ((0.5, 1), (0.6, 1)), 3: ((0.9, 1), (1.0, 1))}
    records = [
        record(index, sent_s=at, chunks=chunks.get(index, ((0.1, 1), (0.2, 1)))) for index, at in turns
    ]

    measurement = measure(records, concurrency=2)

    assert measurement.samples(Metric.TTFT).values == pytest.approx([0.1] * 4)
    assert measurement.windows_s == ((1.0, 5.0),)


def test_a_closed_loop_of_a_single_wave_is_taken_whole() -> None:
    assert not measure(steady_records([], concurrency=4), concurrency=4).is_steady


def test_waves_in_step_leave_no_window_to_take_a_rate_from() -> None:
    # four slots whose requests end within 3 ms of each other: between them lies next to no time
    starts_s = [0.0, 0.0, 0.0, 0.0, 1.0, 1.001, 1.002, 1.003]
    ends = [1.0, 1.001, 1.002, 1.003] * 2
    records = [
        record(index, sent_s=at, chunks=((0.5, 9), (end, 1)))
        for index, (at, end) in enumerate(zip(starts_s, ends, strict=True))
    ]

    measurement = measure(records, concurrency=4)

    assert not measurement.is_steady
    assert measurement.rate(Metric.REQUEST_THROUGHPUT) == pytest.approx(4, rel=0.01)
    assert measurement.rate(Metric.OUTPUT_THROUGHPUT) == pytest.approx(40, rel=0.01)


def test_rates_are_taken_over_the_steady_window() -> None:
    # one slot, each request 0.2 s with 2 tokens: 10 tokens, 5 requests per second
    records = steady_records([0.1] * 50, concurrency=1)

    measurement = measure(records, concurrency=1)

    assert measurement.rate(Metric.OUTPUT_THROUGHPUT) == pytest.approx(10, rel=0.05)
    assert measurement.rate(Metric.REQUEST_THROUGHPUT) == pytest.approx(5, rel=0.05)
    assert measurement.rate(Metric.TOTAL_THROUGHPUT) == pytest.approx(60, rel=0.05)
    with pytest.raises(ValueError, match="not a rate"):
        measurement.rate(Metric.GOODPUT)


def test_nothing_sent_is_measured_as_nothing() -> None:
    summary = measure([], concurrency=2).summary()

    assert (summary.sent, summary.ttft, summary.output_throughput_tps) == (0, None, 0.0)


def test_a_stored_summary_answers_for_its_statistics() -> None:
    summary = measure([record(0, cached_tokens=5)], concurrency=None).summary()

    assert summary.value(Metric.TTFT, "p95") == pytest.approx(0.5)
    assert summary.value(Metric.TTFT, "max") == pytest.approx(0.5)
    assert summary.value(Metric.TTFT, "p97") is None
    assert summary.value(Metric.ERROR_RATIO, None) == 0
    assert summary.value(Metric.GOODPUT, None) is None
    assert measure([], concurrency=1).summary().value(Metric.TTFT, "p95") is None
    assert summary.cached_ratio == 0.5


@given(st.permutations(range(12)), st.integers(1, 3))
def test_metrics_do_not_depend_on_the_order_of_the_records(order: list[int], concurrency: int) -> None:
    records = steady_records([0.1, 0.4] * 6, concurrency=concurrency)[:12]
    shuffled = [records[index] for index in order]

    assert measure(shuffled, concurrency=concurrency).summary() == (
        measure(records, concurrency=concurrency).summary()
    )


@given(st.lists(st.floats(0.01, 5), min_size=8, max_size=40), st.floats(0.01, 5))
def test_goodput_is_never_above_throughput(ttft_s: list[float], limit_s: float) -> None:
    measurement = measure(steady_records(ttft_s, concurrency=2), concurrency=2)

    assert measurement.goodput_rps({Metric.TTFT: limit_s}) <= (measurement.rate(Metric.REQUEST_THROUGHPUT))


def test_two_measurements_joined_keep_their_samples_and_rates() -> None:
    once = measure(steady_records([0.1] * 20, concurrency=2), concurrency=2)

    twice = join(once, once)

    assert len(twice.records) == 2 * len(once.records)
    assert len({each.index for each in twice.records}) == len(twice.records)
    assert twice.rate(Metric.OUTPUT_THROUGHPUT) == pytest.approx(once.rate(Metric.OUTPUT_THROUGHPUT))
    assert np.percentile(twice.samples(Metric.TTFT).values, 95) == pytest.approx(0.1)
    assert len(join(measure([], concurrency=2), once).records) == len(once.records)


def test_gaps_of_one_request_do_not_count_as_independent() -> None:
    owner = np.repeat(np.arange(20), 50)
    clustered = Samples(np.where(owner < 10, 2.0, 0.1), owner).share_over(1.0)
    scattered = Samples(np.tile([2.0, 0.1], 500), owner).share_over(1.0)
    rare = Samples(np.where(np.arange(1000) % 100 == 0, 2.0, 0.1), owner).share_over(1.0)

    assert (clustered.share, clustered.independent) == (0.5, 20)
    assert (scattered.share, scattered.independent) == (0.5, 40)
    assert (rare.share, rare.independent, rare.clusters) == (0.01, 1000, 20)


def test_no_gap_over_the_limit_is_worth_as_many_samples_as_requests() -> None:
    owner = np.repeat(np.arange(20), 50)

    assert Samples(np.zeros(1000), owner).share_over(1.0) == SeenShare(0.0, 20.0, 20)


def test_one_gap_over_the_limit_is_no_better_than_none() -> None:
    owner = np.repeat(np.arange(300), 50)
    values = np.zeros(15_000)
    none = Samples(values.copy(), owner).share_over(1.0).interval(error_rate=0.05)
    values[7] = 2.0
    one = Samples(values, owner).share_over(1.0).interval(error_rate=0.05)

    assert one.high >= none.high
    assert one.low > none.low == 0


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), min_size=1, max_size=30),
    st.data(),
    st.sampled_from([0.05, 0.05 / 3]),
)
def test_one_more_gap_over_the_limit_never_lowers_the_upper_bound(
    requests: list[tuple[int, int]], data: st.DataObject, error_rate: float
) -> None:
    owner = np.repeat(np.arange(len(requests)), [gaps for gaps, _ in requests])
    values = np.concatenate([np.where(np.arange(gaps) < over, 2.0, 0.1) for gaps, over in requests])
    position = data.draw(st.integers(0, len(values) - 1))
    turned = values.copy()
    turned[position] = 2.0

    before = Samples(values, owner).share_over(1.0)
    changed = Samples(turned, owner).share_over(1.0)
    added = Samples(np.append(values, 2.0), np.append(owner, owner[position])).share_over(1.0)

    assert before.clusters <= before.independent <= len(values)
    for after in (changed, added):
        bound = after.interval(error_rate=error_rate).high
        assert bound >= before.interval(error_rate=error_rate).high - 1e-12


def test_a_failed_request_counts_as_a_request_that_is_worse_than_any_limit() -> None:
    records = [
        *(record(index) for index in range(8)),
        record(8, failed=True),
        record(9, chunks=(), failed=True),
    ]
    measurement = measure(records, concurrency=None)

    first = measurement.samples(Metric.TTFT)
    gaps = measure([record(0, chunks=((0.5, 1), (0.9, 4))), records[8]], concurrency=None).samples(Metric.ITL)

    assert first.values == pytest.approx([0.5] * 8)
    assert list(first.failed) == [8, 9]
    assert first.with_failed(9.0).share_over(5.0) == SeenShare(0.2, 10.0, 10)
    assert gaps.with_failed(9.0).values == pytest.approx([0.1] * 4 + [9.0] * 4)
    assert gaps.with_failed(9.0).share_over(5.0) == SeenShare(0.5, 2.0, 2)


def test_a_request_that_we_stopped_does_not_count_against_the_engine() -> None:
    stopped = RequestFailure(RequestFailureKind.STOPPED, RequestPhase.STREAM, "stopped")
    measurement = measure([record(0), replace(record(1), failure=stopped)], concurrency=None)

    assert not len(measurement.samples(Metric.TTFT).failed)


def test_where_nothing_went_well_each_failed_request_is_one_sample() -> None:
    measurement = measure([record(index, failed=True) for index in range(3)], concurrency=None)

    assert list(measurement.samples(Metric.ITL).with_failed(9.0).values) == [9.0] * 3
    assert measurement.summary().ttft is None
    assert measurement.served == 0
