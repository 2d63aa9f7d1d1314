"""All trials column by column, as the page embeds them: for the planes, the table and the trial's own panel.

In: a `StudyHistory`. Out: plain lists and mappings, ready for JSON. Pure. Invariant: numbers are in base
units, rounded to five significant digits; None is what was not measured.
"""

from collections.abc import Callable, Sequence
from typing import Any

from autotune.record import TrialRecord
from autotune.report.chart import load_text, quantity_text, statistic_text, unit_of
from autotune.report.findings import failure_kind, failure_line, stop_lines, verdict_of
from autotune.report.language import say, word
from autotune.report.plots.flags import flag_of
from autotune.report.seen import (
    LARGER_IS_BETTER,
    Measurements,
    Seen,
    is_candidate,
    promised,
    shown_quantities,
)
from autotune.report.spent import phases_of
from autotune.report.standing import MARKS, Standing, standing_of
from autotune.report.units import flag_value, printable
from autotune.search.confirmation import NumberedTrial
from autotune.slo import Quantity

_DIGITS = 5


def trial_data(measurements: Measurements) -> dict[str, Any]:
    """Return the columns, and what they are called."""
    history = measurements.history
    trials, standings = history.trials, list(Standing)
    return {
        "standings": [
            {
                "name": say(each),
                "short": say("meets the SLO") if each is Standing.MET else say(each),
                "colour": MARKS[each].colour,
                "symbol": MARKS[each].symbol,
            }
            for each in standings
        ],
        "quantities": _quantities(measurements),
        "promised": len(promised(history.study.slo)),
        "flags": {name: [_flag(trial, name) for trial in trials] for name in history.study.space.tune},
        "ceilings": [_ceiling(measurements, index) for index in range(len(history.study.slo.ceilings))],
        "number": [trial.number for trial in trials],
        "role": [word(trial.record.role) for trial in trials],
        "outcome": [word(trial.record.outcome) for trial in trials],
        "standing": [standings.index(standing_of(history, trial)) for trial in trials],
        "candidate": [is_candidate(trial) for trial in trials],
        "failure": [_failure(trial.record) for trial in trials],
        "relation": [_relation(trial) for trial in trials],
        "folder": [_folder(trial) for trial in trials],
        "phases": [
            [[word(phase), rounded(spent_s)] for phase, spent_s in phases_of(trial.record).items()]
            for trial in trials
        ],
        "kv_tokens": [_engine(trial.record, "kv_tokens") for trial in trials],
        "running_limit": [_engine(trial.record, "running_limit") for trial in trials],
    }


def rounded(value: float | None) -> float | None:
    """Return a number as the page keeps it."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def _quantities(measurements: Measurements) -> list[dict[str, Any]]:
    found = []
    for quantity in shown_quantities(measurements.history.study.slo):
        seen = [measurements.of(trial, quantity) for trial in measurements.history.trials]
        if any(seen):
            found.append(_quantity(quantity, seen))
    return found


def _quantity(quantity: Quantity, seen: Sequence[Seen | None]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "key": str(quantity),
        "name": quantity_text(quantity),
        "short": statistic_text(quantity),
        "load": load_text(quantity.load),
        "unit": unit_of(quantity.metric),
        "isLargerBetter": quantity.metric in LARGER_IS_BETTER,
        "value": _column(seen, lambda each: each.value),
    }
    if any(each and each.low < each.high for each in seen):
        entry["low"] = _column(seen, lambda each: each.low)
        entry["high"] = _column(seen, lambda each: each.high)
    return entry


def _column(seen: Sequence[Seen | None], take: Callable[[Seen], float]) -> list[float | None]:
    return [None if each is None else rounded(take(each)) for each in seen]


def _ceiling(measurements: Measurements, index: int) -> dict[str, Any]:
    history = measurements.history
    ceiling = history.study.slo.ceilings[index]
    verdicts = [verdict_of(history, trial) for trial in history.trials]
    judged = [
        next((each for each in verdict.ceilings if each.ceiling == ceiling.text), None) if verdict else None
        for verdict in verdicts
    ]
    return {
        "key": str(ceiling.quantity),
        "text": ceiling.text,
        "limit": ceiling.limit,
        "unit": unit_of(ceiling.quantity.metric),
        "decision": [None if each is None else word(each.decision) for each in judged],
        "margin": [None if each is None else rounded(each.margin_ratio) for each in judged],
    }


def _flag(trial: NumberedTrial, name: str) -> str:
    """Return a flag as text, that of the engine's own choice in brackets."""
    if name in trial.record.candidate:
        return flag_value(trial.record.candidate[name])
    value = flag_of(trial, name)
    return "" if value is None else f"({flag_value(value)})"


def _failure(record: TrialRecord) -> str | None:
    kind = failure_kind(record)
    return None if kind is None else printable(f"{word(kind)}: {failure_line(record)}")


def _relation(trial: NumberedTrial) -> str | None:
    told = (_kinship(trial), *map(printable, stop_lines(trial.record)))
    return "; ".join(filter(None, told)) or None


def _kinship(trial: NumberedTrial) -> str | None:
    if trial.record.confirms is not None:
        return say("launches trial {number} again", number=trial.record.confirms)
    if trial.record.measured_live_on is not None:
        return say("measured live on the engine of trial {number}", number=trial.record.measured_live_on)
    if trial.record.same_as is not None:
        return say("runs with the flags of trial {number}, whose numbers it has", number=trial.record.same_as)
    return None


def _folder(trial: NumberedTrial) -> str:
    """Return where the engine's logs and the raw records lie."""
    host = trial.record.measured_live_on
    return f"trials/{trial.number if host is None else host:04}/"


def _engine(record: TrialRecord, name: str) -> int | None:
    return None if record.effective is None else getattr(record.effective, name)
