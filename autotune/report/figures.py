"""The plots of a study, as plotly figures without a theme (the page gives them its own).

In: a `StudyHistory`. Out: figures. Talks to nothing. Invariant: what a point stands for is told by its
shape as well as by its colour, and text from outside is escaped, because plotly reads it as HTML.
"""

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import accumulate

import plotly.graph_objects as go  # type: ignore[import-untyped]  # plotly has neither types nor stubs

from autotune.metrics import Metric
from autotune.record import Role
from autotune.report.findings import decision_of, front, measured, meeting
from autotune.report.pareto import pareto_front
from autotune.report.units import flag_list, latency, metric_value
from autotune.search.confirmation import NumberedTrial
from autotune.search.ledger import StudyHistory
from autotune.slo import Ceiling, Decision

# Okabe and Ito 2008: told apart with any colour vision, on light and dark ground.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LAYOUT = {
    "template": "none",
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "margin": {"l": 70, "r": 20, "t": 20, "b": 60},
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    "hovermode": "closest",
}
_GRID = {"gridcolor": "rgba(128,128,128,0.3)", "zerolinecolor": "rgba(128,128,128,0.5)"}


class Standing(StrEnum):
    """What a point of a plot stands for."""

    BEST = "meets the SLO, nothing better"
    DOMINATED = "meets the SLO, dominated"
    UNDECIDED = "undecided"
    MISSED = "misses the SLO"


_SYMBOLS = {
    Standing.BEST: "star",
    Standing.DOMINATED: "circle-open",
    Standing.UNDECIDED: "triangle-up-open",
    Standing.MISSED: "x-thin-open",
}


@dataclass(frozen=True)
class _Marks:
    """One trace of candidates; `load` is the load point it belongs to, if it does to one."""

    standing: Standing
    name: str
    colour: str
    load: str | None = None

    @property
    def style(self) -> dict[str, object]:
        size = 13 if self.standing is Standing.BEST else 9
        line = {"width": 2, "color": self.colour}
        return {"symbol": _SYMBOLS[self.standing], "color": self.colour, "size": size, "line": line}


def load_figure(history: StudyHistory) -> go.Figure:
    """Return throughput against TTFT p95 of every load point, with the ceilings on either as lines."""
    figure = go.Figure(layout=_LAYOUT)
    for index, load in enumerate(point.label for point in history.study.slo.load):
        colour = _COLOURS[index % len(_COLOURS)]
        for standing, trials in _by_standing(history, _undominated_at(history, load)).items():
            marks = _Marks(standing, f"{load}: {standing}", colour, load)
            _add_marks(figure, marks, trials, partial(_place, load))
        for ceiling in history.study.slo.ceilings:
            if ceiling.quantity.load == load:
                _add_ceiling(figure, history, ceiling, colour)
    figure.update_xaxes(title="output throughput (tok/s)", **_GRID)
    figure.update_yaxes(title="TTFT p95 (s)", type="log", **_GRID)
    return figure


def objectives_figure(history: StudyHistory) -> go.Figure | None:
    """Return the Pareto plot of the first two objectives, None if the study has only one."""
    goals = history.study.slo.goals
    if len(goals) < 2:  # noqa: PLR2004 - a plane has two axes
        return None
    figure = _candidates_figure(history, lambda values, _: (values[0], values[1]))
    figure.update_xaxes(title=html.escape(goals[0].text), **_GRID)
    figure.update_yaxes(title=html.escape(goals[1].text), **_GRID)
    return figure


def progress_figure(history: StudyHistory) -> go.Figure:
    """Return the first objective of every measured candidate, and the best that met the SLO so far."""
    figure = _candidates_figure(history, lambda values, number: (number, values[0]))
    numbers, values = best_so_far(history)
    line = {"shape": "hv", "color": _COLOURS[0]}
    figure.add_scatter(x=numbers, y=values, name="best so far", mode="lines", line=line, hoverinfo="skip")
    figure.update_xaxes(title="trial", **_GRID)
    figure.update_yaxes(title=html.escape(history.study.slo.goals[0].text), **_GRID)
    return figure


def best_so_far(history: StudyHistory) -> tuple[list[int], list[float]]:
    """Return trial numbers and, at each, the best first objective of what had met the SLO by then."""
    better = max if history.study.slo.goals[0].direction == "maximise" else min
    steps = sorted((trial.number, trial.record.objectives or ()) for trial in meeting(history))
    numbers = [number for number, _ in steps]
    values = list(accumulate((values[0] for _, values in steps), better))
    if numbers and numbers[-1] < history.trials[-1].number:
        numbers.append(history.trials[-1].number)
        values.append(values[-1])
    return numbers, values


def _candidates_figure(
    history: StudyHistory, place: Callable[[tuple[float, ...], int], tuple[float, float]]
) -> go.Figure:
    """Return a figure with one mark a candidate, at a place made of its objectives and its number."""

    def place_of(trial: NumberedTrial) -> tuple[float, float] | None:
        return place(trial.record.objectives, trial.number) if trial.record.objectives else None

    figure = go.Figure(layout=_LAYOUT)
    for standing, trials in _by_standing(history, front(history)).items():
        colour = _COLOURS[list(Standing).index(standing)]
        _add_marks(figure, _Marks(standing, standing.value, colour), trials, place_of)
    return figure


def _by_standing(history: StudyHistory, best: frozenset[int]) -> dict[Standing, list[NumberedTrial]]:
    groups: dict[Standing, list[NumberedTrial]] = {standing: [] for standing in Standing}
    for trial in measured(history):
        groups[_standing(decision_of(history, trial), is_best=trial.number in best)].append(trial)
    return {standing: trials for standing, trials in groups.items() if trials}


def _standing(decision: Decision | None, *, is_best: bool) -> Standing:
    match decision:
        case Decision.MET:
            return Standing.BEST if is_best else Standing.DOMINATED
        case Decision.UNDECIDED | None:
            return Standing.UNDECIDED
        case Decision.MISSED:
            return Standing.MISSED


def _undominated_at(history: StudyHistory, load: str) -> frozenset[int]:
    """Return the trials that meet the SLO and that none beats in both throughput and TTFT at this load."""
    places = [(trial.number, place) for trial in meeting(history) if (place := _place(load, trial))]
    best = pareto_front([(-throughput_tps, ttft_s) for _, (throughput_tps, ttft_s) in places])
    return frozenset(places[index][0] for index in best)


def _place(load: str, trial: NumberedTrial) -> tuple[float, float] | None:
    """Return output throughput and TTFT p95 at a load point, None if no request was answered."""
    point = trial.record.point(load)
    if point is None or point.summary.ttft is None:
        return None
    return point.summary.output_throughput_tps, point.summary.ttft.p95


def _add_marks(
    figure: go.Figure,
    marks: _Marks,
    trials: Iterable[NumberedTrial],
    place: Callable[[NumberedTrial], tuple[float, float] | None],
) -> None:
    placed = [(trial, found) for trial in trials if (found := place(trial)) is not None]
    if not placed:
        return
    figure.add_scatter(
        x=[found[0] for _, found in placed],
        y=[found[1] for _, found in placed],
        name=marks.name,
        legendgroup=marks.load,
        mode="markers",
        marker=marks.style,
        hovertext=[_hover(trial, marks.load) for trial, _ in placed],
        hoverinfo="text",
    )


def _add_ceiling(figure: go.Figure, history: StudyHistory, ceiling: Ceiling, colour: str) -> None:
    """Draw a ceiling on either axis as a trace: unlike a shape it has a name in the legend."""
    throughputs_tps, ttfts_s = _extent(history)
    match ceiling.quantity.metric, ceiling.quantity.statistic:
        case Metric.TTFT, "p95":
            ends = {"x": throughputs_tps, "y": [ceiling.limit] * 2}
        case Metric.OUTPUT_THROUGHPUT, _:
            ends = {"x": [ceiling.limit] * 2, "y": ttfts_s}
        case _:
            return
    figure.add_scatter(
        **ends,
        name=html.escape(ceiling.text),
        legendgroup=ceiling.quantity.load,
        mode="lines",
        line={"color": colour, "dash": "dash"},
        hoverinfo="name",
    )


def _extent(history: StudyHistory) -> tuple[list[float], list[float]]:
    """Return the range of the measured throughputs and of the TTFTs (above 0: its axis is logarithmic)."""
    places = [
        place
        for trial in measured(history)
        for point in trial.record.points
        if (place := _place(point.load, trial)) is not None
    ]
    throughputs_tps, ttfts_s = ([place[axis] for place in places] for axis in (0, 1))
    return [0.0, max(throughputs_tps, default=1.0)], [
        max(min(ttfts_s, default=0.1), 1e-4),
        max(ttfts_s, default=10.0),
    ]


def _hover(trial: NumberedTrial, load: str | None) -> str:
    record = trial.record
    name = "baseline" if record.role is Role.BASELINE else "candidate"
    place = None if load is None else _place(load, trial)
    lines: Sequence[str] = (
        f"trial {trial.number} ({name})",
        *(flag_list({flag: value}) for flag, value in sorted(record.candidate.items())),
        *([f"{load}: {metric_value(Metric.OUTPUT_THROUGHPUT, place[0])}"] if place else []),
        *([f"TTFT p95 {latency(place[1])}"] if place else []),
    )
    return "<br>".join(html.escape(line, quote=False) for line in lines)
