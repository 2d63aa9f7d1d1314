"""The two candidates that a report sets side by side: the baseline, and the winner or the best rival."""

from dataclasses import dataclass

from autotune.report.findings import baseline_of, leaders, winner_of
from autotune.report.language import say
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory


@dataclass(frozen=True)
class Named:
    """A candidate and what it is called; `colour` is its place in the palette."""

    name: str
    trial: NumberedTrial
    colour: int


def pair_of(history: StudyHistory) -> tuple[Named, ...]:
    """Return the baseline and its rival, as far as there are any."""
    baseline, rival = baseline_of(history), rival_of(history)
    found = []
    if baseline is not None:
        found.append(Named(say("baseline (trial {number})", number=baseline.number), baseline, 1))
    if rival is not None:
        is_winner = history.answer is not None and rival.number == history.answer.winner
        name = say(
            "winner (trial {number})" if is_winner else "best rival (trial {number})", number=rival.number
        )
        found.append(Named(name, rival, 0))
    return tuple(found)


def rival_of(history: StudyHistory) -> NumberedTrial | None:
    """Return the winner; if the baseline or nobody won, the best of the others, None if there is none."""
    baseline, winner = baseline_of(history), winner_of(history)
    if winner is not None and winner != baseline:
        return winner
    return next((trial for trial in leaders(history, 2) if trial != baseline), None)
