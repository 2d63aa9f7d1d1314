import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from autotune.bench.curves import charts
from autotune.bench.page import write_page
from autotune.bench.picture import write_picture
from autotune.bench.points import Amount, Sweep, concurrency_ladder, length_sweep, rate_ladder
from autotune.bench.rows import BenchCeiling, BenchReport, BenchRow
from autotune.bench.run import Asked, Bench
from autotune.bench.search import Range
from autotune.bench.table import about, highlights, outcome, show, summary_line, write_csv, write_json
from autotune.bench.target import Target
from autotune.load.workload import Workload
from autotune.report.chart import Chart, Limit, Look
from autotune.request import (
    ClientHealth,
    Endpoint,
    LoadResult,
    OfferedLoad,
    Onlooker,
    RequestFailure,
    RequestFailureKind,
    RequestPhase,
)
from autotune.slo import Decision
from tests.support.simulated import endpoint_of, profile_without_noise, scheduler_of

WORKLOAD = Workload(input_tokens=256, output_tokens=16, seed=5)
TARGET = Target("http://h:1", "mo<d>el", None, 32_000, is_sglang=False)
CEILINGS = ("ttft p50 < 1s", "e2e mean < 1us")


def simulated() -> Endpoint:
    profile = profile_without_noise()
    return endpoint_of(scheduler_of(profile), profile)


def bench_on(endpoint: Endpoint, *ceilings: str) -> tuple[Bench, list[str]]:
    told: list[str] = []
    bench = Bench(
        TARGET,
        Asked(ceilings),
        lambda _: endpoint,
        lambda point: told.append(point.label),
        lambda row: told.append(summary_line(row)),
    )
    return bench, told


@pytest.fixture(scope="module")
def report() -> BenchReport:
    bench, _ = bench_on(simulated(), *CEILINGS)
    bench.run(
        [
            *length_sweep(WORKLOAD, [16, 512], Amount(4)),
            *concurrency_ladder(WORKLOAD, [1, 4], Amount(40)),
            *rate_ladder(WORKLOAD, [2.0, 4.0], Amount(30), {}),
        ]
    )
    return bench.report(notes=["a note"])


class Spoilt:
    """Its client is late for the first `bad` loads that are no warm-up; one request of each fails."""

    def __init__(self, bad: int) -> None:
        self.bad = bad
        self.salts: list[int] = []

    def run(self, offered: OfferedLoad, onlooker: Onlooker | None = None) -> LoadResult:
        self.salts.append(offered.salt)
        result = simulated().run(offered, onlooker)
        is_late = offered.salt % 2 == 0 and self.bad > 0
        self.bad -= is_late
        refused = RequestFailure(RequestFailureKind.HTTP_STATUS, RequestPhase.HEADERS, "503")
        first, *others = result.records
        records = (replace(first, failure=refused), *others)
        health = ClientHealth(9.0 if is_late else 0.0, 0.1, len(result.records))
        return LoadResult(records, health)


def test_points_are_told_as_they_begin_and_end() -> None:
    bench, told = bench_on(simulated(), "ttft max < 60s")
    bench.run(concurrency_ladder(WORKLOAD, [2], Amount(6)))
    assert told[0] == "concurrency 2"
    assert told[1].startswith("concurrency 2: TTFT p50 ")
    assert told[1].endswith("tok/s  met")


@pytest.mark.parametrize(("bad", "is_invalid", "loads"), [(0, False, 2), (1, False, 3), (2, True, 3)])
def test_a_point_that_the_client_spoilt_is_measured_once_more(bad: int, is_invalid: bool, loads: int) -> None:
    endpoint = Spoilt(bad)
    bench, _ = bench_on(endpoint)
    row = bench.measure(concurrency_ladder(WORKLOAD, [2], Amount(6))[0])
    assert (row.invalid is not None) == is_invalid
    assert len(endpoint.salts) == len(set(endpoint.salts)) == loads
    assert row.client is not None
    lines = outcome(bench.report())
    assert any("1 http_status" in line for line in lines)
    assert any("INVALID: the load generator ran" in line for line in lines) == is_invalid
    assert len(charts(bench.report())) == 0


@pytest.mark.parametrize(
    ("ceiling", "line"),
    [
        ("output_throughput > 1 tok/s", "search: concurrency 8 keeps the ceilings; no higher load was tried"),
        ("tpot max < 1us", "search: no load keeps the ceilings"),
    ],
)
def test_a_search_tells_what_it_found(ceiling: str, line: str) -> None:
    bench, _ = bench_on(simulated(), ceiling)
    found = bench.search(WORKLOAD, Range(1, 8, is_whole=True), Amount(20), {})
    report = bench.report(found)
    assert line in outcome(report)
    assert report.has_missed == (found.kept is None)


def test_a_search_does_not_claim_what_too_few_requests_left_undecided() -> None:
    bench, _ = bench_on(simulated(), "ttft p95 < 60s")
    found = bench.search(WORKLOAD, Range(1, 4, is_whole=True), Amount(20), {})
    assert found.kept == 4
    assert (
        "search: concurrency 4 seems to keep the ceilings (undecided there: needs more --requests); "
        "no higher load was tried"
    ) in outcome(bench.report(found))


def test_the_speed_of_a_single_stream_is_told() -> None:
    bench, _ = bench_on(simulated())
    row = bench.measure(concurrency_ladder(WORKLOAD, [1], Amount(5), Sweep.SINGLE)[0])
    assert row.figures.tpot is not None
    speed = 1 / row.figures.tpot.p50.value
    assert highlights(bench.report()) == [f"one user reads {speed:.3g} tokens/s"]
    many = bench.measure(concurrency_ladder(WORKLOAD, [8], Amount(16), Sweep.SATURATION)[0])
    spoilt = bench.report().model_copy(update={"rows": (many.model_copy(update={"invalid": "late"}),)})
    assert highlights(spoilt)[0].startswith("8 users read ")
    assert highlights(spoilt)[0].endswith(" tokens/s together (INVALID)")
    bench.rows.pop()
    assert outcome(bench.report()) == [
        f"single stream: concurrency 1: one user reads {speed:.1f} tokens/s (1 / median TPOT)"
    ]


def test_a_spoilt_point_is_neither_kept_nor_called_slow() -> None:
    bench, _ = bench_on(Spoilt(99), "ttft max < 60s")
    found = bench.search(WORKLOAD, Range(1, 8, is_whole=True), Amount(20), {})
    assert (found.kept, found.missed, found.was_spoilt) == (None, 1, True)
    assert "search: nothing is known: concurrency 1 was spoilt by this client" in outcome(bench.report(found))
    swept, _ = bench_on(Spoilt(99), "ttft max < 60s")
    swept.run(concurrency_ladder(WORKLOAD, [1], Amount(4)))
    assert swept.report().has_missed
    kept = found.model_copy(update={"kept": 1.0, "missed": 2.0})
    assert "concurrency 1 keeps the ceilings, 2 spoilt by this client" in "".join(outcome(bench.report(kept)))


def test_a_search_for_a_rate_ends_between_two_rates() -> None:
    bench, _ = bench_on(simulated(), "e2e p50 < 400ms")
    found = bench.search(WORKLOAD, Range(1, 4096, is_whole=False), Amount(200), {"arrivals": "constant"})
    assert found.kept is not None
    assert found.missed is not None
    assert found.kept < found.missed
    assert {row.sweep for row in bench.rows} == {Sweep.SEARCH}
    assert f"search: rate {found.kept:g} keeps the ceilings, {found.missed:g} does not" in outcome(
        bench.report(found)
    )


def test_rows_hold_figures_ceilings_and_what_was_asked(report: BenchReport) -> None:
    assert report.has_missed
    assert [row.x for row in report.rows] == [16, 512, 1, 4, 2, 4]
    for row in report.rows:
        assert [(each.text, str(each.decision)) for each in row.ceilings][1] == (CEILINGS[1], "missed")
        assert row.template_tokens == 0
        assert row.figures.goodput_rps is not None
    assert report.rows[0].figures.ttft is not None
    assert report.rows[1].figures.ttft is not None
    assert report.rows[0].figures.ttft.mean < report.rows[1].figures.ttft.mean


def test_a_report_survives_being_written(report: BenchReport, tmp_path: Path) -> None:
    write_json(report, tmp_path / "b.json")
    assert BenchReport.model_validate_json((tmp_path / "b.json").read_text()) == report
    assert json.loads((tmp_path / "b.json").read_text())["rows"][0]["figures"]["ttft"]["p95"]["value"] > 0


def test_the_csv_has_a_line_for_every_point(report: BenchReport, tmp_path: Path) -> None:
    write_csv(report, tmp_path / "b.csv")
    lines = list(csv.DictReader((tmp_path / "b.csv").read_text().splitlines()))
    assert [line["load"] for line in lines[2:]] == ["concurrency 1", "concurrency 4", "rate 2", "rate 4"]
    assert float(lines[0]["ttft_p95_s"]) > 0
    assert {line["missed"] for line in lines} == {CEILINGS[1]}
    write_csv(report.model_copy(update={"rows": ()}), tmp_path / "empty.csv")
    assert (tmp_path / "empty.csv").read_text() == "sweep\n"


def test_the_table_can_be_read_on_a_narrow_terminal(
    report: BenchReport, capsys: pytest.CaptureFixture[str]
) -> None:
    show(report, Console(width=40))
    told = capsys.readouterr().out
    assert "TTFT p50" in told
    assert "95 % interval" in told
    assert "…" not in told
    assert "mo<d>el at http://h:1" in told
    assert "a note" in told
    assert told.count("e2e mean < 1us: missed") == 6


def test_every_sweep_is_drawn(report: BenchReport, tmp_path: Path) -> None:
    drawn = charts(report)
    assert [chart.name for chart in drawn] == [
        "Time to first token by prompt length",
        *(f"{what} by concurrency" for what in _LOAD_CHARTS),
        *(f"{what} by rate" for what in _LOAD_CHARTS),
    ]
    for chart in drawn:
        for series in chart.series:
            intervals = np.array([series.y_low, series.y, series.y_high], dtype=float)
            assert (np.diff(intervals, axis=0) >= 0).all()
    write_page(report, tmp_path / "b.html")
    page = (tmp_path / "b.html").read_text()
    assert page.count('class="plot"') == 7
    assert "mo&lt;d&gt;el" in page
    assert "<d>" not in page
    assert '<script src="http' not in page


_LOAD_CHARTS = ("Time to first token", "Time per token", "Output throughput")


def chart_of(report: BenchReport, title: str) -> Chart:
    return next(chart for chart in charts(report) if chart.name == title)


def test_what_the_client_spoilt_is_on_no_line_and_still_drawn(report: BenchReport, tmp_path: Path) -> None:
    first, *others = (row for row in report.rows if row.sweep is Sweep.CONCURRENCY)
    spoilt = report.model_copy(update={"rows": (first.model_copy(update={"invalid": "late"}), *others)})
    good, hollow = chart_of(spoilt, "Time to first token by concurrency").series[:2]
    assert (good.name, good.look, list(good.x)) == ("p50", Look.LINE, [4])
    assert (hollow.name, hollow.look, list(hollow.x)) == ("p50, spoilt by this client", Look.POINTS, [1])
    pytest.importorskip("matplotlib")
    assert write_picture(spoilt, tmp_path / "b.png") is None


def test_charts_are_ticked_where_was_measured(report: BenchReport) -> None:
    chart = chart_of(report, "Time to first token by prompt length")
    figures = report.rows[1].figures
    assert figures.ttft is not None
    assert (chart.y.unit, chart.series[0].y[-1]) == ("s", figures.ttft.p50.value)
    assert (chart.x.ticks, chart.x.is_log) == ((16, 512), True)
    assert not chart_of(report, "Time to first token by rate").x.is_log


def test_a_ceiling_is_a_line_where_it_can_be_seen(report: BenchReport, tmp_path: Path) -> None:
    assert chart_of(report, "Time to first token by concurrency").limits == ()
    close = BenchCeiling(
        text="ttft p50 < 20ms", decision=Decision.MET, value=0.01, limit=0.02, margin_ratio=0.5
    )
    rows = tuple(row.model_copy(update={"ceilings": (*row.ceilings, close)}) for row in report.rows)
    bounded = report.model_copy(update={"rows": rows})
    assert chart_of(bounded, "Time to first token by concurrency").limits == (
        Limit("ttft p50 < 20ms", "y", 0.02),
    )
    assert chart_of(bounded, "Output throughput by concurrency").limits == ()
    pytest.importorskip("matplotlib")
    assert write_picture(bounded, tmp_path / "b.png") is None


def test_simulated_numbers_say_so_everywhere(
    report: BenchReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulated = report.model_copy(update={"is_simulated": True})
    show(simulated, Console())
    assert capsys.readouterr().out.count("SIMULATED") == 2
    write_page(simulated, tmp_path / "b.html")
    assert (tmp_path / "b.html").read_text().count("SIMULATED") == 3
    write_csv(simulated, tmp_path / "b.csv")
    with (tmp_path / "b.csv").open() as file:
        assert {line["is_simulated"] for line in csv.DictReader(file)} == {"True"}
    write_csv(report, tmp_path / "b.csv")
    with (tmp_path / "b.csv").open() as file:
        assert {line["is_simulated"] for line in csv.DictReader(file)} == {"False"}


def test_values_of_ceilings_have_units(report: BenchReport) -> None:
    told = "\n".join(outcome(report))
    assert "e2e mean < 1us: missed, " in told
    values = {line.rpartition(", ")[2].split()[1] for line in outcome(report) if "e2e mean" in line}
    assert values <= {"ms", "s"}


def test_what_was_asked_is_told_whatever_its_form(report: BenchReport) -> None:
    assert "prompts of 256 tokens, answers of 16 tokens, seed 5" in about(report)
    drawn = Workload.model_validate({"input_tokens": {"uniform": [3, 9]}, "output_tokens": 2})
    row = report.rows[-1].model_copy(update={"workload": drawn})
    assert "prompts of uniform 3, 9 tokens" in about(report.model_copy(update={"rows": (row,)}))
    read = Workload.model_validate({"dataset": "some/talks.jsonl", "output_tokens": 2})
    row = report.rows[-1].model_copy(update={"workload": read})
    assert "prompts of talks.jsonl" in about(report.model_copy(update={"rows": (row,)}))


def test_a_picture_is_drawn_or_told_why_not(
    report: BenchReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plots" / "b.png"
    assert write_picture(report, path) is None
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(path.parent.iterdir()) == [path]
    single = report.model_copy(update={"rows": report.rows[:1]})
    assert "two points" in (write_picture(single, path) or "")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "autotune[bench-png]" in (write_picture(report, path) or "")


def test_what_a_server_did_not_measure_is_a_dash(
    report: BenchReport, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = dict.fromkeys(("ttft", "tpot", "itl"))
    figures = report.rows[0].figures.model_copy(update=nothing)
    row: BenchRow = report.rows[0].model_copy(update={"figures": figures, "ceilings": ()})
    second = row.model_copy(update={"x": 99.0})
    bare = report.model_copy(update={"rows": (row, second)})
    show(bare, Console())
    assert " - " in capsys.readouterr().out
    assert charts(bare) == []
