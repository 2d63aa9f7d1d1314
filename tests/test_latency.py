from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.latency import (
    chunk_gaps_s,
    dispatch_delay_s,
    e2e_s,
    has_latency,
    token_gaps_s,
    tpot_s,
    ttft_s,
)
from tests.support.records import record

chunks = st.lists(st.tuples(st.floats(0.001, 2), st.integers(1, 5)), min_size=1, max_size=8)


def at_their_times(gaps: list[tuple[float, int]]) -> list[tuple[float, int]]:
    return list(
        zip(np.cumsum([gap for gap, _ in gaps]).tolist(), [tokens for _, tokens in gaps], strict=True)
    )


def test_latencies_follow_their_formulas() -> None:
    one = record(sent_s=2.0, scheduled_s=1.5, chunks=[(0.5, 1), (0.8, 3), (0.9, 1)])
    assert ttft_s(one) == pytest.approx(0.5)
    assert ttft_s(one, from_scheduled=True) == pytest.approx(1.0)
    assert e2e_s(one) == pytest.approx(0.9)
    assert e2e_s(one, from_scheduled=True) == pytest.approx(1.4)
    assert tpot_s(one) == pytest.approx(0.4 / 4)
    assert dispatch_delay_s(one) == pytest.approx(0.5)
    gaps_s, owner = token_gaps_s([one])
    assert gaps_s == pytest.approx([0.1, 0.1, 0.1, 0.1])
    assert owner.tolist() == [0] * 4
    assert chunk_gaps_s([one]) == pytest.approx([0.3, 0.1])


def test_what_never_left_counts_from_when_it_was_due_and_one_token_has_no_tpot() -> None:
    one = replace(record(scheduled_s=1.0, chunks=[(3.0, 1)]), sent_s=None)
    assert (ttft_s(one), dispatch_delay_s(one), tpot_s(one)) == (2.0, 0.0, None)


def test_neither_a_failed_request_nor_one_without_tokens_has_latencies() -> None:
    assert has_latency(record())
    assert not has_latency(record(failed=True))
    assert not has_latency(record(chunks=[]))


@given(st.lists(chunks, max_size=5))
def test_both_views_of_the_gaps_cover_the_same_time(answers: list[list[tuple[float, int]]]) -> None:
    records = [
        record(
            number,
            chunks=list(zip(np.cumsum([gap for gap, _ in answer]), [n for _, n in answer], strict=True)),
        )
        for number, answer in enumerate(answers)
    ]
    gaps_s, owner = token_gaps_s(records)
    spans_s = [float(each.chunk_times_s[-1] - each.chunk_times_s[0]) for each in records]
    assert gaps_s.sum() == pytest.approx(chunk_gaps_s(records).sum()) == pytest.approx(sum(spans_s))
    for each, span_s in zip(records, spans_s, strict=True):
        assert gaps_s[owner == each.index].sum() == pytest.approx(span_s)


def test_a_request_without_chunks_takes_nothing_from_the_next() -> None:
    both = [record(0, chunks=[]), record(1)]
    assert token_gaps_s(both)[0] == pytest.approx([0.1])
