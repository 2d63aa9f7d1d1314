"""What stands over a report: that its numbers are a model's, or that it is told under another SLO.

In: a `StudyHistory`. Out: sentences, and the study's name with the words that mark it. Pure.
"""

from collections.abc import Iterator

from autotune.report.findings import is_simulated
from autotune.report.language import mark, say
from autotune.search.study_history import JudgedAgain, StudyHistory

SIMULATED = mark("SIMULATED: these numbers come from a model of the engine, not from a measurement.")


def simulated_text() -> str:
    """Return what stands over every page with numbers of a model."""
    return say(SIMULATED)


def marks(history: StudyHistory) -> tuple[str, ...]:
    """Return the sentences that stand over everything else, none for a plain measured study."""
    simulated = [simulated_text()] if is_simulated(history) else []
    again = history.judged_again
    return (*simulated, *([] if again is None else [_again_text(again)]))


def marked_name(history: StudyHistory) -> str:
    """Return the study's name after the words that mark it."""
    words = {
        say("SIMULATED"): is_simulated(history),
        say("JUDGED AGAIN"): history.judged_again is not None,
    }
    return " ".join([*(each for each, applies in words.items() if applies), history.study.name])


def not_judged_lines(history: StudyHistory) -> Iterator[str]:
    """Yield which measured launches could not be judged again, and why."""
    again = history.judged_again
    for reason, numbers in again.not_judged.items() if again else ():
        yield say(
            "Not judged again: trial {numbers}, because {reason}.",
            numbers=", ".join(map(str, numbers)),
            reason=reason,
        )


def _again_text(again: JudgedAgain) -> str:
    return say(
        "JUDGED AGAIN under {file}: the launches were made for another SLO, so that something better under "
        "this one may never have been tried. Nothing of it is kept in the study.",
        file=again.file,
    )
