"""Which flags matter, and what each value did: importances, and slices along every tuned flag.

In: a `StudyHistory`, and the twin's expectations if there is a twin. Out: two plots. Pure but for the twin's
simulations. Invariant: the twin's numbers are drawn as a model's, never mixed with measurements.
"""

from collections.abc import Iterator, Mapping, Sequence

from autotune.report.chart import Axis, Chart, Look, Plot, Series, key_of, quantity_axis, quantity_text
from autotune.report.findings import measured
from autotune.report.language import say
from autotune.report.seen import LARGER_IS_BETTER, Measurements, is_candidate
from autotune.report.standing import MARKS, Standing, standing_of
from autotune.report.units import flag_value
from autotune.search.confirmation import NumberedTrial
from autotune.search.importance import LEAST_CANDIDATES, importances
from autotune.search.study_history import StudyHistory
from autotune.search.twin import twin_of
from autotune.slo import Quantity
from autotune.space import Choices, FlagValue, Tunable

TWIN_LIMIT = 60
"""The twin simulates every candidate that it is asked about, about a tenth of a second each."""


def importance_plot(measurements: Measurements) -> Plot:
    """Return how much each flag matters for every objective and ceiling."""
    history = measurements.history
    quantities = _quantities(history)
    found = ((quantity, _importances(measurements, quantity)) for quantity in quantities)
    charts = tuple(_importance_chart(quantity, shares) for quantity, shares in found if shares)
    if charts:
        note = say(
            "How differently a flag is set in the best quarter than in all candidates (PED-ANOVA), as a "
            "share of all flags. It tells where to look, not which value is right."
        )
    else:
        note = say(
            "Fewer than {count} candidates with different results: no importance.", count=LEAST_CANDIDATES
        )
    return Plot("importance", say("Which flags matter"), note, charts)


def slices_plot(measurements: Measurements, order: Sequence[str]) -> Plot:
    """Return the first objective along every tuned flag; `order`: the flags, the most important first."""
    history = measurements.history
    expected = expectations(history)
    names = dict.fromkeys([*order, *history.study.space.tune])
    note = say(
        "The first objective of every candidate along one flag; the others differ from mark to mark. Below "
        "stand those without a result, at their value of the flag."
    )
    if expected:
        note += " " + say(
            "Small dots are what the twin, a model of the engine, expected of {count} candidates before any "
            "measurement corrected it; the study's storage does not keep the corrected expectations.",
            count=len(expected),
        )
    charts = tuple(_slice(measurements, name, expected) for name in names)
    return Plot("slices", say("What each flag did"), note, charts)


def expectations(history: StudyHistory) -> Mapping[int, float]:
    """Return the first objective that the twin expects, by trial; empty without a twin."""
    twin = twin_of(history.study)
    if twin is None:
        return {}
    trials = measured(history)
    step = max(-(-len(trials) // TWIN_LIMIT), 1)
    found = {
        trial.number: twin.predict(trial.record.to_candidate().to_dict()).values for trial in trials[::step]
    }
    return {number: values[0] for number, values in found.items() if values}


def flag_of(trial: NumberedTrial, name: str) -> FlagValue | None:
    """Return a flag's value as asked for, or as the engine chose it, None if neither is known."""
    record = trial.record
    if name in record.candidate:
        return record.candidate[name]
    return record.effective.flags.get(name) if record.effective else None


def _quantities(history: StudyHistory) -> tuple[Quantity, ...]:
    slo = history.study.slo
    everything = (*(goal.quantity for goal in slo.goals), *(ceiling.quantity for ceiling in slo.ceilings))
    return tuple(dict.fromkeys(everything))


def _importances(measurements: Measurements, quantity: Quantity) -> dict[str, float]:
    space = measurements.history.study.space
    flags, losses = [], []
    for trial in measured(measurements.history):
        seen = measurements.of(trial, quantity)
        if seen is not None:
            known = {name: flag_of(trial, name) for name in space.tune}
            flags.append({name: value for name, value in known.items() if value is not None})
            losses.append(-seen.value if quantity.metric in LARGER_IS_BETTER else seen.value)
    return importances(space, flags, losses)


def _importance_chart(quantity: Quantity, shares: Mapping[str, float]) -> Chart:
    series = Series(say("share"), Look.BARS, x=list(shares.values()), y=list(range(len(shares))), colour=0)
    return Chart(
        key=key_of(quantity.metric, quantity.statistic, quantity.load),
        name=quantity_text(quantity),
        x=Axis(say("share of the importance for {what}", what=quantity_text(quantity)), "ratio"),
        y=Axis(say("flag"), is_reversed=True, labels=tuple(shares)),
        series=(series,),
    )


def _slice(measurements: Measurements, name: str, expected: Mapping[int, float]) -> Chart:
    history = measurements.history
    tunable, goal = history.study.space.tune[name], history.study.slo.goals[0]
    labels = _labels(history, name, tunable)
    seen = measurements.column(goal.quantity)
    lost = [trial for trial in history.trials if is_candidate(trial) and trial.number not in seen]
    return Chart(
        key=name,
        name=name,
        x=Axis(
            f"--{name}", is_log=not isinstance(tunable, Choices) and tunable.scale == "log", labels=labels
        ),
        y=quantity_axis(goal.quantity),
        series=tuple(_slice_series(measurements, name, labels, expected)),
        unplaced=tuple(trial.number for trial in lost),
        unplaced_x=tuple(_x(trial, name, labels) for trial in lost),
    )


def _slice_series(
    measurements: Measurements, name: str, labels: Sequence[str], expected: Mapping[int, float]
) -> Iterator[Series]:
    history = measurements.history
    trials = [trial for trial in filter(is_candidate, history.trials) if _x(trial, name, labels) is not None]
    dots = [trial for trial in trials if trial.number in expected]
    if dots:
        yield Series(
            name=say("the twin's expectation (a model)"),
            look=Look.POINTS,
            x=[_x(trial, name, labels) for trial in dots],
            y=[expected[trial.number] for trial in dots],
            colour=6,
            symbol="dot",
            trials=[trial.number for trial in dots],
        )
    goal = history.study.slo.goals[0].quantity
    for standing in Standing:
        seen = [
            (trial, value)
            for trial in trials
            if standing_of(history, trial) is standing and (value := measurements.of(trial, goal))
        ]
        if seen:
            yield Series(
                name=_standing_text(standing),
                look=Look.POINTS,
                x=[_x(trial, name, labels) for trial, _ in seen],
                y=[value.value for _, value in seen],
                colour=MARKS[standing].colour,
                symbol=MARKS[standing].symbol,
                trials=[trial.number for trial, _ in seen],
                y_low=[value.low for _, value in seen],
                y_high=[value.high for _, value in seen],
            )


def _standing_text(standing: Standing) -> str:
    """Return the standing without dominance, which a slice does not know."""
    return say("meets the SLO") if standing is Standing.MET else say(standing)


def _labels(history: StudyHistory, name: str, tunable: Tunable) -> tuple[str, ...]:
    """Return the names of a choice's values, those outside the space (the engine's own) too."""
    if not isinstance(tunable, Choices):
        return ()
    seen = [value for trial in history.trials if (value := flag_of(trial, name)) is not None]
    return tuple(dict.fromkeys(flag_value(value) for value in (*tunable.choices, *seen)))


def _x(trial: NumberedTrial, name: str, labels: Sequence[str]) -> float | None:
    value = flag_of(trial, name)
    if value is None:
        return None
    if labels:
        return float(labels.index(flag_value(value)))
    return float(value) if isinstance(value, int | float) else None
