import itertools
import json
from typing import Any

import pytest

from autotune.report.figures import best_so_far, load_figure, objectives_figure, progress_figure
from autotune.search.confirmation import NumberedTrial
from tests.support import histories as made


def traces(figure: Any) -> dict[str, dict[str, Any]]:
    return {trace["name"]: trace for trace in json.loads(figure.to_json())["data"]}


def test_every_load_point_and_standing_has_a_trace_of_its_own() -> None:
    found = traces(load_figure(made.improved()))
    assert found["concurrency 50: meets the SLO, nothing better"]["x"] == [1130.0]
    assert found["concurrency 50: meets the SLO, dominated"]["y"] == [8.0]
    assert found["concurrency 50: misses the SLO"]["y"] == [12.5]
    assert found["concurrency 100: misses the SLO"]["y"] == [25.0]


def test_standings_are_told_by_shape_and_load_points_by_colour() -> None:
    markers = [
        (trace["legendgroup"], trace["marker"]["symbol"], trace["marker"]["color"])
        for trace in traces(load_figure(made.improved())).values()
        if trace["mode"] == "markers"
    ]
    assert len({(load, symbol) for load, symbol, _ in markers}) == len(markers) == 6
    assert len({colour for _, _, colour in markers}) == len({load for load, _, _ in markers}) == 2


def test_ceilings_on_either_axis_are_lines_and_others_are_not_drawn() -> None:
    lines = {
        name: trace
        for name, trace in traces(load_figure(made.improved())).items()
        if trace["mode"] == "lines"
    }
    assert lines["ttft p95 &lt; 10s at concurrency 50"]["y"] == [10.0, 10.0]
    assert lines["output_throughput &gt; 500tok/s at concurrency 50"]["x"] == [500.0, 500.0]
    assert len(lines) == 2


def test_hovering_shows_the_candidate() -> None:
    trace = traces(load_figure(made.improved()))["concurrency 50: meets the SLO, nothing better"]
    (text,) = trace["hovertext"]
    assert text.split("<br>") == [
        "trial 2 (candidate)",
        "chunked-prefill-size 8192",
        "schedule-policy lpm",
        "concurrency 50: 1,130 tok/s",
        "TTFT p95 7.00 s",
    ]


def test_hostile_flags_are_escaped_for_plotly() -> None:
    study = made.make_study()
    trial = made.trial(study, 0, {"schedule-policy": "<a href='javascript:x'>&"}, 1000.0, 8.0)
    (text,) = traces(progress_figure(made.history(study, trial)))["meets the SLO, nothing better"][
        "hovertext"
    ]
    assert "&lt;a href='javascript:x'&gt;&amp;" in text


def test_undecided_candidates_have_a_shape_of_their_own() -> None:
    found = traces(progress_figure(made.unfinished()))
    assert found["undecided"]["x"] == [2]
    assert found["undecided"]["marker"]["symbol"] == "triangle-up-open"


def test_a_study_with_one_objective_has_no_front_to_plot() -> None:
    assert objectives_figure(made.improved()) is None


def test_the_front_of_two_objectives_stands_out() -> None:
    found = traces(objectives_figure(made.pareto()))
    assert found["meets the SLO, nothing better"]["x"] == [900.0, 1100.0]
    assert found["meets the SLO, nothing better"]["y"] == [4.0, 9.0]
    assert found["meets the SLO, dominated"]["x"] == [700.0, 850.0]


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


@pytest.mark.parametrize("name", ["empty", "nothing_meets", "unfinished"])
def test_a_study_without_points_or_winner_still_has_plots(name: str) -> None:
    history = getattr(made, name)()
    assert load_figure(history).layout.yaxis.type == "log"
    assert "best so far" in traces(progress_figure(history))


def test_a_point_without_any_answered_request_is_left_out() -> None:
    study = made.make_study()
    trial = made.trial(study, 0, {}, 1000.0, 8.0)
    silent = trial.record.points[0].summary.model_copy(update={"ttft": None})
    points = (trial.record.points[0].model_copy(update={"summary": silent}),)
    trial = NumberedTrial(0, trial.record.model_copy(update={"points": points}))
    found = traces(load_figure(made.history(study, trial)))
    assert all(trace["mode"] == "lines" for trace in found.values())
