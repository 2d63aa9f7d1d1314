"""What a trial stands for in a plot: met, missed, undecided, crashed, or not measured at all. Pure.

In: a `StudyHistory` and a trial. Out: its `Standing`, and the look that every plot gives it.
"""

from dataclasses import dataclass
from enum import StrEnum

from autotune.record import Outcome
from autotune.report.findings import decision_of
from autotune.report.language import mark
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from autotune.slo import Decision


class Standing(StrEnum):
    """What a mark stands for; BEST is met and not dominated in the plane that is drawn."""

    BEST = mark("meets the SLO, nothing better")
    MET = mark("meets the SLO, dominated")
    UNDECIDED = mark("undecided")
    MISSED = mark("misses the SLO")
    CRASHED = mark("crashed")
    UNMEASURED = mark("not measured")


@dataclass(frozen=True)
class Mark:
    """Colour (its place in the palette) and shape."""

    colour: int
    symbol: str


MARKS = {
    Standing.BEST: Mark(0, "star"),
    Standing.MET: Mark(5, "circle-open"),
    Standing.UNDECIDED: Mark(4, "triangle-up-open"),
    Standing.MISSED: Mark(1, "x-thin-open"),
    Standing.CRASHED: Mark(3, "square-x-open"),
    Standing.UNMEASURED: Mark(6, "diamond-open"),
}


def standing_of(history: StudyHistory, trial: NumberedTrial) -> Standing:
    """Return a trial's standing; MET for all that meet the SLO, as dominance is a matter of the plane."""
    match trial.record.outcome:
        case Outcome.MEASURED:
            return _judged(decision_of(history, trial))
        case Outcome.FAILED:
            return Standing.CRASHED
        case Outcome.INFEASIBLE | Outcome.INVALID | Outcome.INTERRUPTED:
            return Standing.UNMEASURED


def _judged(decision: Decision | None) -> Standing:
    match decision:
        case Decision.MET:
            return Standing.MET
        case Decision.UNDECIDED | None:
            return Standing.UNDECIDED
        case Decision.MISSED:
            return Standing.MISSED
