"""How the study went: the best so far over what it had cost, and what the time was spent on. Pure.

In: a `StudyHistory`. Out: two plots over hours.
"""

from itertools import accumulate

from autotune.failure import StartPhase
from autotune.report.chart import Axis, Chart, Look, Plot, Series, quantity_axis
from autotune.report.findings import meeting, objective_of
from autotune.report.language import say, word
from autotune.report.seen import is_candidate
from autotune.report.spent import Shift, gpu_hours, gpus_of, shifts
from autotune.report.standing import MARKS, Standing, standing_of
from autotune.search.study_history import StudyHistory

_HOUR_S = 3600.0
_PHASE_COLOURS = {
    "launch": 8,
    **{phase.value: index for index, phase in enumerate(StartPhase)},
    "load": 0,
    "process": 6,
}


def progress_plot(history: StudyHistory) -> Plot | None:
    """Return the best first objective among what met the SLO so far, None before the first trial."""
    if not shifts(history):
        return None
    gpus = gpus_of(history)
    goal = history.study.slo.goals[0]
    note = say(
        "The first objective as the search measured it, by what the study had cost then. The line is the "
        "best that met the SLO; fresh launches decide in the end, as the best of many noisy values looks too "
        "good."
    )
    chart = Chart(
        key="",
        name=say("best so far"),
        x=Axis(say("GPU-hours spent") if gpus else say("hours spent")),
        y=quantity_axis(goal.quantity),
        series=(*_marks(history), _best(history)),
    )
    return Plot("progress", say("Best so far"), note, (chart,))


def spent_by(history: StudyHistory) -> dict[int, float]:
    """Return what the study had cost at the end of each trial, in GPU-hours (hours without GPUs)."""
    seconds = accumulate(trial.record.duration_s for trial in history.trials)
    ends = zip(history.trials, seconds, strict=True)
    return {trial.number: _cost(history, spent_s) for trial, spent_s in ends}


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


def timeline_plot(history: StudyHistory) -> Plot | None:
    """Return when each trial ran and in which phase it was, None before the first trial."""
    found = shifts(history)
    if not found:
        return None
    note = say(
        "A line a trial, coloured by its phases; a cross ends what was not measured. Time between two calls "
        "of the study is left out."
    )
    phases = dict.fromkeys(phase for shift in found for phase in shift.phases_s)
    chart = Chart(
        key="",
        name=say("timeline"),
        x=Axis(say("hours since the study began")),
        y=Axis(say("trial"), is_reversed=True),
        series=(*(_phase(found, phase) for phase in phases), *_failures(found)),
    )
    return Plot("timeline", say("Where the hours went"), note, (chart,))


def _cost(history: StudyHistory, seconds: float) -> float:
    return gpu_hours(history, seconds) if gpus_of(history) else seconds / _HOUR_S


def _marks(history: StudyHistory) -> list[Series]:
    spent = spent_by(history)
    found = []
    for standing in Standing:
        trials = [
            (trial, value)
            for trial in filter(is_candidate, history.trials)
            if (value := objective_of(trial.record, history.study.slo.goals, 0)) is not None
            and standing_of(history, trial) is standing
        ]
        if trials:
            found.append(
                Series(
                    name=say("meets the SLO") if standing is Standing.MET else say(standing),
                    look=Look.POINTS,
                    x=[spent[trial.number] for trial, _ in trials],
                    y=[value for _, value in trials],
                    colour=MARKS[standing].colour,
                    symbol=MARKS[standing].symbol,
                    trials=[trial.number for trial, _ in trials],
                )
            )
    return found


def _best(history: StudyHistory) -> Series:
    spent = spent_by(history)
    numbers, values = best_so_far(history)
    return Series(
        say("best so far"), Look.STEPS, [spent[number] for number in numbers], values, symbol="none"
    )


def _phase(found: tuple[Shift, ...], phase: str) -> Series:
    x: list[float | None] = []
    y: list[float | None] = []
    trials: list[int | None] = []
    for shift in found:
        began_s = shift.began_s
        for name, each_s in shift.phases_s.items():
            if name == phase:
                x += [began_s / _HOUR_S, (began_s + each_s) / _HOUR_S, None]
                y += [shift.trial.number, shift.trial.number, None]
                trials += [shift.trial.number, shift.trial.number, None]
            began_s += each_s
    return Series(word(phase), Look.SPAN, x, y, colour=_PHASE_COLOURS.get(phase, 9), trials=trials)


def _failures(found: tuple[Shift, ...]) -> list[Series]:
    lost = [shift for shift in found if shift.trial.record.outcome != "measured"]
    if not lost:
        return []
    return [
        Series(
            name=say("not measured"),
            look=Look.POINTS,
            x=[shift.ended_s / _HOUR_S for shift in lost],
            y=[shift.trial.number for shift in lost],
            colour=7,
            symbol="x",
            trials=[shift.trial.number for shift in lost],
        )
    ]
