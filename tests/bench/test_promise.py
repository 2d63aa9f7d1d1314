from pathlib import Path
from typing import Any

import pytest

from autotune.bench.ask import Options, plan_of
from autotune.bench.points import BenchPoint, Sweep
from autotune.bench.rows import BenchReport, row_of
from autotune.bench.target import Target
from autotune.errors import ConfigError
from autotune.load.arrivals import LoadPoint
from autotune.load.workload import Wire, Workload, offer
from autotune.request import LoadResult
from autotune.slo import Decision
from autotune.stalls import StallLimit
from tests.support.records import record

TARGET = Target("http://h", "m", None, 32_000, is_sglang=True)
SLO = """
workload: {input_tokens: 64, output_tokens: 16, seed: 7}
load:
  - {concurrency: 4, requests: 9}
  - {rate: 2, duration_s: 30}
ceilings:
  - ttft p95 < 10s at concurrency 4
  - error_ratio < 1% at rate 2.0
  - tpot p99 < 80ms at concurrency 4
objective: maximise output_throughput at concurrency 4
"""


def slo_file(folder: Path, text: str = SLO) -> Path:
    path = folder / "slo.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_slo_says_the_workload_the_load_points_and_the_ceilings_of_each(tmp_path: Path) -> None:
    plan = plan_of(Options(slo=slo_file(tmp_path)), TARGET)
    assert plan.workload == Workload(input_tokens=64, output_tokens=16, seed=7)
    closed, opened = plan.points
    assert (closed.sweep, closed.x, closed.load.requests) == (Sweep.CONCURRENCY, 4, 9)
    assert closed.ceilings == ("ttft p95 < 10s", "tpot p99 < 80ms")
    assert (opened.sweep, opened.x, opened.load.duration_s) == (Sweep.RATE, 2, 30.0)
    assert opened.ceilings == ("error_ratio < 1%",)


def test_the_endpoint_may_differ_from_the_one_that_was_tuned(tmp_path: Path) -> None:
    plan = plan_of(Options(slo=slo_file(tmp_path), endpoint="completions"), TARGET)
    assert {point.workload.endpoint for point in plan.points} == {Wire.COMPLETIONS}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"concurrency": "4"}, "--concurrency"),
        ({"duration_s": 3.0}, "--duration"),
        ({"ceilings": ("ttft p95 < 1s",), "requests": 3}, "--requests, --ceiling"),
    ],
)
def test_nothing_else_may_say_what_the_slo_says(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"leave out {named}$"):
        plan_of(Options(slo=slo_file(tmp_path), **options), TARGET)


def test_the_files_of_an_slo_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Good morning"}\n', encoding="utf-8")
    (tmp_path / "day.csv").write_text("timestamp\n0\n1\n3\n", encoding="utf-8")
    text = """
workload: {dataset: prompts.jsonl, output_tokens: 4}
load: [{rate: 2, trace: day.csv, requests: 2}]
objective: maximise output_throughput at rate 2
"""
    (point,) = plan_of(Options(slo=slo_file(tmp_path, text)), TARGET).points
    assert point.workload.dataset == tmp_path / "prompts.jsonl"
    assert point.load.trace == tmp_path / "day.csv"


def test_a_model_whose_context_is_too_short_for_the_slo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the SLO cannot be kept by this model"):
        plan_of(Options(slo=slo_file(tmp_path)), Target("http://h", "m", 70, 32_000, is_sglang=True))


@pytest.mark.parametrize(
    ("late", "decision", "misses"),
    [(0, Decision.UNDECIDED, False), (3, Decision.UNDECIDED, True), (20, Decision.MISSED, True)],
)
def test_what_one_measurement_leaves_undecided_counts_by_its_value(
    late: int, decision: Decision, misses: bool
) -> None:
    workload = Workload(input_tokens=8, output_tokens=2)
    load = LoadPoint(concurrency=1, requests=20)
    point = BenchPoint(Sweep.CONCURRENCY, 1, workload, load, ("ttft p95 < 1s",))
    waits_s = [2.0 if index < late else 0.5 for index in range(20)]
    records = [
        record(index, sent_s=10.0 * index, chunks=((wait_s, 1), (wait_s + 0.1, 1)))
        for index, wait_s in enumerate(waits_s)
    ]
    result = LoadResult(records=tuple(records), client=None)
    row = row_of(point, offer(workload, load, salt=0), result, point.ceilings, StallLimit())
    assert [ceiling.decision for ceiling in row.ceilings] == [decision]
    report = BenchReport(url="u", model="m", version="1", began="now", rows=(row,))
    assert report.has_missed is misses
