from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autotune.request import RequestRecord
from autotune.stalls import StallLimit, stalls
from tests.support.records import record

LIMIT = StallLimit(below_tps=1.0, longer_than_s=5.0)


def found(one: RequestRecord) -> tuple[float, ...]:
    (stall,) = stalls([one], LIMIT)
    return (stall.index, stall.began_s, stall.lasted_s, stall.rate_tps)


def test_a_request_that_crawls_until_its_end_has_stalled() -> None:
    chunks = [(0.1 * step, 1) for step in range(1, 11)] + [(1.0 + 2.0 * step, 1) for step in range(1, 11)]
    assert found(record(3, chunks=chunks)) == pytest.approx((3, 0.8, 20.2, 11 / 20.2))


def test_a_silence_lasts_until_the_next_tokens() -> None:
    chunks = [(0.5, 1), (9.0, 9), (9.1, 9)]
    assert found(record(chunks=chunks)) == pytest.approx((0, 0.5, 8.5, 0.0))


def test_a_slow_but_steady_request_has_not_stalled() -> None:
    assert stalls([record(chunks=[(step * 0.99, 1) for step in range(1, 60)])], LIMIT) == ()


def test_a_wait_for_the_first_token_is_no_stall() -> None:
    assert stalls([record(chunks=[(60.0, 1), (60.1, 1)]), record(1, chunks=[])], LIMIT) == ()


def test_a_short_silence_is_no_stall_however_complete() -> None:
    assert stalls([record(chunks=[(1.0, 1), (5.9, 1)])], LIMIT) == ()


def test_a_request_that_fell_silent_and_failed_has_stalled_until_then() -> None:
    cut = replace(record(chunks=[(1.0, 1), (1.1, 1)], failed=True), ended_s=31.1)
    assert found(cut) == pytest.approx((0, 1.0, 30.1, 1 / 30.1))


def test_chunks_of_many_tokens_count_with_all_of_them() -> None:
    chunks = [(1.0, 8), (5.0, 8), (9.0, 8)]
    assert stalls([record(chunks=chunks)], LIMIT) == ()


def _exact(low: int, high: int) -> st.SearchStrategy[float]:
    """Seconds that add up without rounding, so that two ways to reach an end of a stretch agree."""
    return st.integers(low, high).map(lambda each: each / 64)


@given(
    st.lists(st.tuples(_exact(1, 512), st.integers(1, 6)), min_size=1, max_size=30),
    _exact(6, 320),
    _exact(32, 640),
)
def test_a_request_stalls_just_when_some_stretch_has_too_few_tokens(
    steps: list[tuple[float, int]], below_tps: float, longer_than_s: float
) -> None:
    times_s = np.cumsum([gap for gap, _ in steps])
    tokens = [count for _, count in steps]
    one = record(chunks=list(zip(times_s.tolist(), tokens, strict=True)))
    # A stretch of just that length at the very end is no longer one: either answer is right.
    assume(one.chunk_times_s[-1] - longer_than_s not in one.chunk_times_s)
    stalled = stalls([one], StallLimit(below_tps, longer_than_s))
    is_slow = [
        sum(
            count
            for at, count in zip(one.chunk_times_s, tokens, strict=True)
            if start < at <= start + longer_than_s
        )
        < below_tps * longer_than_s
        for start in one.chunk_times_s
        if start + longer_than_s < one.chunk_times_s[-1]
    ]
    assert bool(stalled) == any(is_slow)
    for stall in stalled:
        assert stall.lasted_s >= longer_than_s - 1e-9
