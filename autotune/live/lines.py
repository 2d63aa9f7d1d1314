"""Finished trials as lines of text: what the log of a study says, on a terminal or not. Pure.

In: a trial and its record. Out: rich `Text`. Invariant: text from outside carries no control characters.
"""

from rich.text import Text

from autotune.record import Outcome
from autotune.report.findings import failure_kind, failure_line, objective_of
from autotune.report.units import metric_value, printable
from autotune.search.confirmation import NumberedTrial
from autotune.slo import Decision, Slo

COLOURS = {Decision.MET: "green", Decision.MISSED: "yellow", Decision.UNDECIDED: "cyan"}


def trial_text(trial: NumberedTrial, slo: Slo) -> Text:
    """Return a finished trial with its verdict, its value and, on a line of their own, its flags."""
    text = trial_line(trial, slo)
    if trial.record.outcome is Outcome.FAILED:
        text.append(f"\n           {_short(failure_line(trial.record))}")
    return text.append(f"\n           {trial.record.to_candidate()}", style="dim")


def trial_line(trial: NumberedTrial, slo: Slo) -> Text:
    """Return a finished trial in one line."""
    record = trial.record
    text = Text(f"trial {trial.number:>3}  ")
    match record.outcome:
        case Outcome.MEASURED:
            decision = record.verdict.decision if record.verdict else Decision.UNDECIDED
            text.append(f"{decision:9}", style=COLOURS[decision])
            value = metric_value(slo.goals[0].quantity.metric, objective_of(record, slo.goals, 0))
            text.append(f" {value:>12}  {record.role}")
        case Outcome.FAILED:
            text.append("failed   ", style="red")
            text.append(f" {failure_kind(record)}")
        case _:
            text.append(f"{record.outcome:9} {_short(record.reason or '')}", style="dim")
    for point in record.stops:
        text.append(f" (stopped early at {point.load})", style="dim")
    if record.same_as is not None:
        text.append(f" (as trial {record.same_as})", style="dim")
    if record.measured_live_on is not None:
        text.append(f" (live on trial {record.measured_live_on})", style="dim")
    return text


def _short(line: str) -> str:
    return printable(line.strip())[:100]
