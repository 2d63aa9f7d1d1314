"""Why the search ended, in words, and what more time would do. Pure.

In: a `StudyHistory`. Out: plain text, one thought a line; nothing about a search that goes on.
"""

from collections.abc import Iterator

from autotune.record import Outcome, Role
from autotune.report.language import mark, say
from autotune.report.units import duration, percent
from autotune.search.budget import Budget, expected_trial_s
from autotune.search.repeats import SearchEnd, due_again
from autotune.search.study_history import StudyHistory

_SEARCH_ENDS = {
    SearchEnd.LAUNCHES: mark("The search ended because its launches were spent."),
    SearchEnd.TIME: mark("The search ended because no further launch fitted into its time."),
    SearchEnd.EXHAUSTED: mark("The search ended because every candidate of the space was tried."),
    SearchEnd.GAIN: mark("The search ended because little was left to gain."),
    SearchEnd.STALLED: mark(
        "The search ended because it found only candidates that are known already or cannot run."
    ),
    SearchEnd.STOPPED: mark("The search was stopped; the same command goes on from there."),
}
WORTHWHILE_LAUNCHES = 10
"""Fewer launches of the search hardly say more than the baseline alone."""


def search_end_text(end: SearchEnd) -> str:
    """Return why the search ended, in a sentence."""
    return say(_SEARCH_ENDS[end])


def search_end_lines(history: StudyHistory) -> Iterator[str]:
    """Yield why the search ended, and what a later call goes on with."""
    if history.search_end is not None:
        yield search_end_text(history.search_end)
    if history.expected_gain is not None:
        yield say(
            "A further launch of it was expected to gain {gain}; --least-gain says how little is too little.",
            gain=percent(history.expected_gain, 2),
        )
    if history.search_end is SearchEnd.TIME:
        yield from _more_time_lines(history)
    due = set(due_again(history.trials))
    cut_off = [
        str(trial.number)
        for trial in history.trials
        if trial.number in due and trial.record.outcome is Outcome.INTERRUPTED
    ]
    if cut_off:
        numbers = ", ".join(cut_off)
        yield say(
            "Cut off, and run again by the same command with more time: trial {numbers}.", numbers=numbers
        )


def _more_time_lines(history: StudyHistory) -> Iterator[str]:
    """Yield how much time would do, if there was none for a single launch of the search."""
    records = [trial.record for trial in history.trials]
    each_s = expected_trial_s(records)
    if each_s and not any(record.role is Role.SEARCH and record.is_launch for record in records):
        launches = 1 + WORTHWHILE_LAUNCHES + Budget().confirmation_launches
        yield say(
            "A trial takes {each}: the baseline, {search} launches of the search and a confirmation of "
            "{confirmation} need {all}; fewer --finalists need less.",
            each=duration(each_s),
            search=WORTHWHILE_LAUNCHES,
            confirmation=Budget().confirmation_launches,
            all=duration(launches * each_s),
        )
