"""What the plots show of a known study: which marks, where, with which interval."""

import itertools
from pathlib import Path

import pytest

from autotune.failure import FailureKind
from autotune.load.records_file import write_records
from autotune.record import Outcome, PointRecord, Role
from autotune.report.chart import Chart, Look, Plot, Series
from autotune.report.plots.distributions import distribution_plot
from autotune.report.plots.every import every_plot
from autotune.report.plots.flags import expectations, importance_plot, slices_plot
from autotune.report.plots.load_curves import load_plot
from autotune.report.plots.pair import pair_of
from autotune.report.plots.plane import plane_plot
from autotune.report.plots.progress import best_so_far, progress_plot, timeline_plot
from autotune.report.seen import Measurements
from autotune.report.standing import MARKS, Standing
from autotune.request import LoadResult
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from tests.support import histories as made
from tests.support.records import steady_records


def by_name(chart: Chart) -> dict[str, Series]:
    return {series.name: series for series in chart.series}


def first(plot: Plot | None) -> Chart:
    assert plot is not None
    return plot.charts[0]


def of(history: StudyHistory) -> Measurements:
    return Measurements(history)


def test_every_standing_has_a_shape_and_a_colour_of_its_own() -> None:
    assert len({each.symbol for each in MARKS.values()}) == len(Standing)
    assert len({each.colour for each in MARKS.values()}) == len(Standing)


def test_the_plane_begins_with_the_objective_against_the_first_latency_ceiling() -> None:
    chart = first(plane_plot(of(made.improved())))
    assert (chart.x.title, chart.y.title) == (
        "output_throughput at concurrency 50",
        "ttft p95 at concurrency 50",
    )
    assert [(limit.axis, limit.value) for limit in chart.limits] == [("y", 10.0), ("x", 500.0)]


def test_candidates_stand_in_the_plane_by_verdict_and_dominance() -> None:
    found = by_name(first(plane_plot(of(made.improved()))))
    assert found["meets the SLO, nothing better"].trials == [2]
    assert found["meets the SLO, dominated"].trials == [0]
    assert found["misses the SLO"].trials == [1]
    assert first(plane_plot(of(made.improved()))).unplaced == (3, 4, 5, 6)


def test_a_candidate_that_was_launched_again_is_shown_by_its_fresh_launches() -> None:
    best = by_name(first(plane_plot(of(made.improved()))))["meets the SLO, nothing better"]
    assert (best.x, best.y) == ([1120.0], [7.2])
    assert best.y_low == [7.2 * 0.95]
    assert best.y_high == [7.2], "the upper end of the interval is open"


def test_two_objectives_span_the_plane_and_its_front() -> None:
    chart = first(plane_plot(of(made.pareto())))
    assert chart.y.title == "ttft p95 at concurrency 50"
    found = by_name(chart)
    assert found["meets the SLO, nothing better"].trials == [1, 2]
    assert found["meets the SLO, dominated"].trials == [0, 3]


def test_an_slo_without_other_quantities_has_a_plane_of_one() -> None:
    study = made.make_study(slo={"ceilings": ["output_throughput > 500tok/s at concurrency 50"]})
    chart = first(plane_plot(of(made.history(study, made.trial(study, 0, {}, 900.0, 5.0)))))
    assert chart.x.title == chart.y.title


def test_a_failed_trial_that_was_measured_before_it_failed_has_its_place() -> None:
    study = made.make_study()
    trial = made.trial(study, 0, {}, 900.0, 5.0)
    crashed = NumberedTrial(0, trial.record.model_copy(update={"outcome": Outcome.FAILED}))
    assert by_name(first(plane_plot(of(made.history(study, crashed)))))["crashed"].trials == [0]


def test_the_load_curves_set_baseline_and_winner_side_by_side_under_the_ceilings() -> None:
    plot = load_plot(of(made.improved()))
    found = by_name(first(plot))
    assert found["baseline (trial 0)"].x == [50.0, 100.0]
    assert found["winner (trial 2)"].y == [7.2, 14.4]
    ceiling = found["ttft p95 < 10s at concurrency 50"]
    assert (ceiling.look, ceiling.x, ceiling.y) == (Look.LIMIT, [50.0], [10.0])
    assert plot is not None
    assert "tpot p95" in [chart.name for chart in plot.charts]


@pytest.mark.parametrize(
    ("load", "title", "places"),
    [
        ([{"rate": 2, "requests": 9}, {"concurrency": 50, "requests": 9}], "load point", [0.0, 1.0]),
        ([{"rate": 2, "requests": 9}, {"rate": 4, "requests": 9}], "offered rate", [2.0, 4.0]),
    ],
)
def test_load_points_of_two_kinds_are_named_and_of_one_kind_are_numbers(
    load: list[dict[str, float]], title: str, places: list[float]
) -> None:
    labels = [f"{'rate' if 'rate' in each else 'concurrency'} {next(iter(each.values()))}" for each in load]
    slo = {
        "load": load,
        "ceilings": [f"ttft p95 < 10s at {labels[0]}"],
        "objective": f"maximise output_throughput at {labels[1]}",
    }
    study = made.make_study(slo=slo)
    what = made.summary(900.0, 5.0)
    trial = made.trial(made.make_study(), 0, {}, 900.0, 5.0, role=Role.BASELINE)
    points = tuple(made.point(0, label, what) for label in labels)
    record = trial.record.model_copy(update={"points": points, "verdict": None})
    chart = first(load_plot(of(made.history(study, NumberedTrial(0, record)))))
    assert chart.x.title == title
    assert chart.series[0].x == places


def test_the_rival_of_a_baseline_that_stays_is_the_best_other_candidate() -> None:
    assert [named.name for named in pair_of(made.kept())] == ["baseline (trial 0)", "best rival (trial 1)"]
    assert pair_of(made.empty()) == ()


def test_distributions_come_from_the_raw_records_of_every_launch(tmp_path: Path) -> None:
    study = made.make_study()
    trial = made.trial(study, 0, {}, 900.0, 5.0, role=Role.BASELINE)
    again = made.trial(study, 1, {}, 900.0, 5.0, role=Role.CONFIRMATION, confirms=0)
    for each, ttft_s in ((trial, 1.0), (again, 3.0)):
        path = tmp_path / each.record.points[0].file
        path.parent.mkdir(parents=True)
        write_records(path, LoadResult(tuple(steady_records([ttft_s] * 40, concurrency=4)), client=None))
    history = StudyHistory(study, tmp_path, (trial, again), running=0, answer=None)

    plot = distribution_plot(of(history))
    curve = first(plot).series[0]

    assert curve.y[0] == 0
    assert curve.y[-1] == 1
    assert [curve.x[0], curve.x[-1]] == pytest.approx([0.5, 3.0])
    assert plot is not None
    assert [chart.name for chart in plot.charts] == ["ttft at concurrency 50", "itl at concurrency 50"]
    assert "2 files of raw records cannot be read: trials/0000/concurrency-100.npz, trials/0001" in plot.note
    assert first(plot).limits[0].value == 10.0


def test_raw_records_that_are_damaged_are_named(tmp_path: Path) -> None:
    study = made.make_study()
    trial = made.trial(study, 0, {}, 900.0, 5.0, role=Role.BASELINE)
    path = tmp_path / trial.record.points[0].file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no zip")
    plot = distribution_plot(of(StudyHistory(study, tmp_path, (trial,), running=0, answer=None)))
    assert plot is not None
    assert plot.charts == ()
    assert "concurrency-50.npz" in plot.note


def many() -> StudyHistory:
    """Forty candidates whose throughput depends on the chunk size alone; the last one crashed."""
    study = made.make_study()
    sizes = [1024 + 31 * (index * 37 % 40) * 8 for index in range(40)]
    trials = [
        made.trial(
            study,
            number,
            {"chunked-prefill-size": size, "schedule-policy": ("fcfs", "lpm")[number % 2]},
            500 + size / 20,
            5.0,
        )
        for number, size in enumerate(sizes)
    ]
    crash = made.failed(40, FailureKind.CRASHED, "Segmentation fault")
    return made.history(study, *trials, crash)


def test_the_flag_that_decides_is_the_most_important_and_its_slice_comes_first() -> None:
    measurements = of(many())
    importance = importance_plot(measurements)
    chart = first(importance)
    assert chart.y.labels == ("chunked-prefill-size", "schedule-policy")
    assert sum(value or 0 for value in chart.series[0].x) == pytest.approx(1)
    slices = slices_plot(measurements, ("schedule-policy",))
    assert [each.name for each in slices.charts] == ["schedule-policy", "chunked-prefill-size"]


def test_a_slice_shows_every_candidate_at_its_value_and_the_crashed_beside() -> None:
    numbers, choices = slices_plot(of(many()), ()).charts
    assert by_name(numbers)["meets the SLO"].x[0] == 1024.0
    assert set(by_name(choices)["meets the SLO"].x) == {0.0, 1.0}
    assert choices.x.labels == ("fcfs", "lpm")
    assert numbers.unplaced == (40,)
    assert numbers.unplaced_x == (8192.0,)


def test_a_value_that_the_engine_chose_is_shown_and_one_that_nobody_knows_is_not() -> None:
    numbers, choices = slices_plot(of(made.unfinished()), ()).charts
    assert by_name(numbers)["meets the SLO"].x == [4096.0, 8192.0]
    assert by_name(choices)["meets the SLO"].trials == [1]


def test_too_few_candidates_have_no_importance_and_the_note_says_so() -> None:
    plot = importance_plot(of(made.improved()))
    assert plot.charts == ()
    assert "Fewer than 20 candidates" in plot.note


def test_the_twins_expectations_lie_under_the_measurements_of_a_real_study() -> None:
    space = {
        "launcher": "process",
        "profile": "llama-8b-1xh100",
        "image": None,
        "mounts": [],
        "nodes": [{"name": "local", "gpus": 1}],
        "flags": {},
        "tune": {"chunked-prefill-size": {"int": [1024, 8192]}},
    }
    slo = {
        "workload": {"input_tokens": 64, "output_tokens": 8},
        "load": [{"concurrency": 2, "requests": 8}],
        "ceilings": ["ttft p95 < 10s at concurrency 2"],
        "objective": "maximise output_throughput at concurrency 2",
    }
    study = made.make_study(space, slo)
    trial = made.trial(made.make_study(), 0, {"chunked-prefill-size": 2048}, 900.0, 5.0)
    record = trial.record.model_copy(
        update={"points": (made.point(0, "concurrency 2", made.summary(900.0, 5.0)),), "verdict": None}
    )
    history = made.history(study, NumberedTrial(0, record))

    expected = expectations(history)
    plot = slices_plot(of(history), ())

    assert expected[0] > 0
    dots = first(plot).series[0]
    assert (dots.name, dots.y) == ("the twin's expectation (a model)", [expected[0]])
    assert "before any measurement corrected it" in plot.note


def test_the_best_so_far_is_drawn_over_gpu_hours() -> None:
    chart = first(progress_plot(made.improved()))
    best = by_name(chart)["best so far"]
    trial_s = 412.0 + 95.5 + 4.0
    assert chart.x.title == "GPU-hours spent"
    assert best.x[0] == pytest.approx(8 * trial_s / 3600)
    assert best.y == [1000.0, 1130.0, 1130.0]


def test_a_study_without_gpus_is_drawn_over_hours() -> None:
    study = made.make_study(
        {"nodes": [{"name": "local"}], "image": None, "launcher": "process", "mounts": []}
    )
    chart = first(progress_plot(made.history(study, made.trial(study, 0, {}, 900.0, 5.0))))
    assert chart.x.title == "hours spent"


def test_the_best_so_far_only_gets_better_and_reaches_to_the_last_trial() -> None:
    assert best_so_far(made.improved()) == ([0, 2, 8], [1000.0, 1130.0, 1130.0])
    assert best_so_far(made.nothing_meets()) == ([], [])


@pytest.mark.parametrize("direction", ["maximise", "minimise"])
def test_the_best_so_far_follows_the_direction_of_the_objective(direction: str) -> None:
    study = made.make_study(slo={"objective": f"{direction} output_throughput at concurrency 50"})
    throughputs = [800.0, 700.0, 950.0, 620.0]
    trials = [made.trial(study, number, {}, value, 5.0) for number, value in enumerate(throughputs)]
    _, values = best_so_far(made.history(study, *trials))
    assert values == list(itertools.accumulate(throughputs, max if direction == "maximise" else min))


def test_the_timeline_has_a_line_a_phase_and_a_cross_for_what_was_not_measured() -> None:
    found = by_name(first(timeline_plot(made.improved())))
    assert found["launch"].y[:2] == [0, 0]
    assert found["load"].x[0] == pytest.approx(412 / 3600)
    assert found["not measured"].trials == [3, 4]


@pytest.mark.parametrize("name", ["improved", "pareto", "unfinished"])
def test_no_plot_is_without_a_title_or_a_note(name: str) -> None:
    plots = every_plot(of(getattr(made, name)()))
    assert all(plot.title and plot.note for plot in plots)
    assert len({plot.key for plot in plots}) == len(plots)


def test_a_point_without_any_answered_request_has_no_place() -> None:
    study = made.make_study()
    trial = made.trial(study, 0, {}, 1000.0, 8.0)
    silent = trial.record.points[0].summary.model_copy(update={"ttft": None})
    points: tuple[PointRecord, ...] = (trial.record.points[0].model_copy(update={"summary": silent}),)
    record = trial.record.model_copy(update={"points": points, "verdict": None})
    assert first(plane_plot(of(made.history(study, NumberedTrial(0, record))))).unplaced == (0,)
