"""Any two quantities against each other: which candidates nothing beats in both.

In: a `StudyHistory` and two quantities. Out: the chart of that plane, and the plane to begin with. Pure.
The page draws any other plane from the trials' data by the same rules (`page/plane.js`).
"""

from collections.abc import Iterator, Sequence

from autotune.metrics import LATENCIES
from autotune.report.chart import Chart, Limit, Look, Plot, Series, quantity_axis
from autotune.report.language import say
from autotune.report.pareto import pareto_front
from autotune.report.seen import LARGER_IS_BETTER, Measurements, Seen, is_candidate
from autotune.report.standing import MARKS, Standing, standing_of
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from autotune.slo import Quantity, Slo

_Placed = tuple[NumberedTrial, Seen, Seen]


def plane_plot(measurements: Measurements) -> Plot:
    """Return the plot of the study's first plane."""
    across, up = first_plane(measurements.history.study.slo)
    note = say(
        "Every mark is a candidate; choose what stands on either axis. A star meets the SLO and nothing that "
        "meets it is better in both. Bars are intervals: for p95 that of the percentile (95 %), for "
        "candidates that were launched again the range over their fresh launches."
    )
    return Plot("plane", say("Pareto front"), note, (plane_chart(measurements, across, up),))


def first_plane(slo: Slo) -> tuple[Quantity, Quantity]:
    """Return the quantities to begin with: two objectives, or the objective against the first ceiling."""
    goal = slo.goals[0].quantity
    if len(slo.goals) > 1:
        return goal, slo.goals[1].quantity
    ceilings = [ceiling.quantity for ceiling in slo.ceilings if ceiling.quantity != goal]
    latencies = [quantity for quantity in ceilings if quantity.metric in LATENCIES]
    return goal, next(iter([*latencies, *ceilings]), goal)


def plane_chart(measurements: Measurements, across: Quantity, up: Quantity) -> Chart:
    """Return the candidates in the plane of two quantities, by their standing."""
    history = measurements.history
    placed: dict[Standing, list[_Placed]] = {standing: [] for standing in Standing}
    unplaced = []
    for trial in filter(is_candidate, history.trials):
        x, y = measurements.of(trial, across), measurements.of(trial, up)
        if x is None or y is None:
            unplaced.append(trial.number)
        else:
            placed[standing_of(history, trial)].append((trial, x, y))
    _split_best(placed, across, up)
    return Chart(
        key="",
        name=say("{y} against {x}", x=quantity_axis(across).title, y=quantity_axis(up).title),
        x=quantity_axis(across),
        y=quantity_axis(up),
        series=tuple(_series(standing, each) for standing, each in placed.items() if each),
        limits=tuple(_limits(history, across, up)),
        unplaced=tuple(unplaced),
    )


def _split_best(placed: dict[Standing, list[_Placed]], across: Quantity, up: Quantity) -> None:
    able = placed[Standing.MET]
    signs = [-1.0 if quantity.metric in LARGER_IS_BETTER else 1.0 for quantity in (across, up)]
    best = set(pareto_front([(signs[0] * x.value, signs[1] * y.value) for _, x, y in able]))
    placed[Standing.BEST] = [each for index, each in enumerate(able) if index in best]
    placed[Standing.MET] = [each for index, each in enumerate(able) if index not in best]


def _series(standing: Standing, placed: Sequence[_Placed]) -> Series:
    return Series(
        name=say(standing),
        look=Look.POINTS,
        x=[x.value for _, x, _ in placed],
        y=[y.value for _, _, y in placed],
        colour=MARKS[standing].colour,
        symbol=MARKS[standing].symbol,
        trials=[trial.number for trial, _, _ in placed],
        x_low=[x.low for _, x, _ in placed],
        x_high=[x.high for _, x, _ in placed],
        y_low=[y.low for _, _, y in placed],
        y_high=[y.high for _, _, y in placed],
    )


def _limits(history: StudyHistory, across: Quantity, up: Quantity) -> Iterator[Limit]:
    for ceiling in history.study.slo.ceilings:
        for axis, quantity in (("x", across), ("y", up)):
            if ceiling.quantity == quantity:
                yield Limit(ceiling.text, axis, ceiling.limit)
