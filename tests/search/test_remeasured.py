"""A load point of several looks is the same measurement again, whatever ends its looks."""

import hashlib
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune.load.arrivals import LoadPoint
from autotune.load.records_file import write_records
from autotune.metrics import Measurement, join, measure
from autotune.record import AnswersRecord, PointRecord
from autotune.request import LoadResult, RequestRecord
from autotune.search.remeasured import found_answers, remeasure
from tests.support.records import record, steady_records
from tests.support.trials import STUDY


def _kept(folder: Path, point: LoadPoint, looks: Sequence[Sequence[RequestRecord]]) -> PointRecord:
    """What a trial leaves of a load point that was looked at so often."""
    measured: Measurement = reduce(join, (measure(look, concurrency=point.concurrency) for look in looks))
    path = folder / "point.npz"
    sha256 = write_records(path, LoadResult(records=measured.records, client=None))
    return PointRecord(
        load=point.label,
        summary=measured.summary(),
        goodput_rps=0.0,
        client=None,
        file=path.name,
        sha256=sha256,
    )


def _numbers(kept: PointRecord) -> list[float]:
    summary = kept.summary
    latencies = [each for each in (summary.ttft, summary.e2e, summary.tpot) if each is not None]
    rates = [summary.window_s, summary.output_throughput_tps, summary.request_throughput_rps]
    return [*rates, *(each.p95 for each in latencies), *(each.mean for each in latencies)]


def _open_loop(rate: float, count: int, ttft_s: float) -> list[RequestRecord]:
    return [
        record(index, sent_s=index / rate, chunks=((ttft_s, 1), (ttft_s + 0.1, 1))) for index in range(count)
    ]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    latencies_s=st.lists(st.floats(0.05, 5.0), min_size=3, max_size=3),
    looks=st.integers(1, 3),
    concurrency=st.sampled_from([1, 3]),
)
def test_a_closed_loop_of_counted_requests_is_told_apart_by_the_count(
    tmp_path: Path, latencies_s: list[float], looks: int, concurrency: int
) -> None:
    point = LoadPoint(concurrency=concurrency, requests=12 + concurrency)
    loads = [steady_records([latency_s] * 12, concurrency=concurrency) for latency_s in latencies_s[:looks]]
    kept = _kept(tmp_path, point, loads)

    again = remeasure(STUDY.slo, point, kept, tmp_path)

    assert again.doubt is None
    assert again.record.summary.sent == kept.summary.sent
    assert _numbers(again.record) == pytest.approx(_numbers(kept), abs=1e-8)


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("looks", [1, 2, 3])
def test_a_closed_loop_of_some_seconds_is_told_apart_by_the_time(
    tmp_path: Path, concurrency: int, looks: int
) -> None:
    every = [each for each in steady_records([0.35] * 40, concurrency=concurrency) if each.scheduled_s < 4.0]
    point = LoadPoint(concurrency=concurrency, duration_s=4.0)
    kept = _kept(tmp_path, point, [every] * looks)

    again = remeasure(STUDY.slo, point, kept, tmp_path)

    assert again.record.summary.sent == looks * len(every)
    assert again.record.summary.window_s == pytest.approx(kept.summary.window_s)


@pytest.mark.parametrize("ends", [{"requests": 12}, {"duration_s": 6.0}])
@pytest.mark.parametrize("ttft_s", [0.01, 3.0])
def test_an_open_loop_is_told_apart_also_where_it_ends_before_its_time(
    tmp_path: Path, ends: dict[str, Any], ttft_s: float
) -> None:
    point = LoadPoint(rate=2.0, arrivals="constant", **ends)
    kept = _kept(tmp_path, point, [_open_loop(2.0, 12, ttft_s), _open_loop(2.0, 12, ttft_s / 2)])

    again = remeasure(STUDY.slo, point, kept, tmp_path)

    assert again.record.summary.sent == 24
    assert again.record.summary.window_s == pytest.approx(kept.summary.window_s)


def test_a_load_of_no_requests_is_nothing_again(tmp_path: Path) -> None:
    point = LoadPoint(rate=2.0, duration_s=6.0)

    assert remeasure(STUDY.slo, point, _kept(tmp_path, point, [[]]), tmp_path).measurement.records == ()


def test_answers_whose_file_cannot_be_used_are_unknown_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text("{}")
    kept = AnswersRecord(file=path.name, sha256=hashlib.sha256(b"{}").hexdigest())

    assert found_answers(None, tmp_path) is None
    assert found_answers(AnswersRecord(reason="no"), tmp_path) == AnswersRecord(reason="no")
    assert found_answers(kept, tmp_path) == kept
    path.write_text("{ }")
    changed = found_answers(kept, tmp_path)
    assert changed is not None
    assert changed.reason == "the answers are not the recorded ones: their SHA-256 differs"
    path.unlink()
    assert found_answers(kept, tmp_path) == AnswersRecord(reason="the answers are not there")
