"""The answer at a glance: what to change, the gain, what binds, how sure it is, and what it cost. Pure.

In: a `StudyHistory`. Out: rows of a word and its sentences, the same for the page and for Markdown.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from autotune.report.answer import baseline_lines, margin_text, nearest_text
from autotune.report.findings import baseline_of, confirmed_of, differences, verdict_of, winner_of
from autotune.report.language import say
from autotune.report.plots.flags import flag_of
from autotune.report.spent import gpu_hours, gpus_of, spent_s
from autotune.report.units import duration, flag_value, gain_text, metric_value, percent, significant
from autotune.search.study_history import StudyHistory


@dataclass(frozen=True)
class Point:
    """One row of the answer."""

    word: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """A flag that differs from the baseline."""

    flag: str
    before: str
    after: str


def summary_points(history: StudyHistory) -> tuple[Point, ...]:
    """Return the rows that there is something to say for."""
    rows = (
        Point(say("Gain"), tuple(_gains(history))),
        Point(say("What binds"), tuple(_binding(history))),
        Point(say("How sure"), tuple(_certainty(history))),
        Point(say("What it cost"), (cost_text(history), *_live(history), *_stopped(history))),
    )
    return tuple(row for row in rows if row.sentences)


def changes(history: StudyHistory) -> tuple[Change, ...]:
    """Return what the winner changes of the baseline, flag by flag; empty without a winner."""
    winner, baseline = winner_of(history), baseline_of(history)
    if winner is None:
        return ()
    names = differences(history, winner.record.to_candidate())
    rows = (
        Change(
            flag=name,
            before=flag_value(None if baseline is None else flag_of(baseline, name)),
            after=flag_value(flag_of(winner, name)),
        )
        for name in names
    )
    return tuple(row for row in rows if row.before != row.after)


def cost_text(history: StudyHistory) -> str:
    """Return how many launches and GPU-hours the study took so far."""
    seconds = spent_s(history)
    launches = sum(trial.record.is_launch for trial in history.trials)
    gpus = gpus_of(history)
    if not gpus:
        return say("{launches} launches in {time}.", launches=launches, time=duration(seconds))
    return say(
        "{launches} launches in {time} on {gpus} GPUs: {hours} GPU-hours.",
        launches=launches,
        time=duration(seconds),
        gpus=gpus,
        hours=significant(gpu_hours(history, seconds)),
    )


def _live(history: StudyHistory) -> Iterator[str]:
    """Yield how many candidates took no launch."""
    count = sum(
        trial.record.measured_live_on is not None and trial.record.same_as is None for trial in history.trials
    )
    if count:
        yield say(
            "{count} more candidates were measured live on another trial's engine, a flag being changed "
            "while it ran; what was measured only so is not exported.",
            count=count,
        )


def _stopped(history: StudyHistory) -> Iterator[str]:
    """Yield how many load points were not measured to their end."""
    count = sum(len(trial.record.stops) for trial in history.trials if trial.record.same_as is None)
    if count:
        yield say(
            "{count} load points of the search were stopped early, once they were decided or could "
            "not win; what they had shown by then is partial and compared with nothing.",
            count=count,
        )


def _gains(history: StudyHistory) -> Iterator[str]:
    winner, goals = winner_of(history), history.study.slo.goals
    confirmed = None if winner is None else confirmed_of(history, winner)
    if confirmed is None:
        return
    yield from baseline_lines(history)
    for index, goal in enumerate(goals):
        value = metric_value(goal.quantity.metric, confirmed.mean(index)) if confirmed.values else None
        gain = confirmed.gains[index] if index < len(confirmed.gains) else None
        if value and gain:
            yield say("{goal}: {value}, {gain}.", goal=goal.text, value=value, gain=gain_text(gain))
        elif value:
            yield say("{goal}: {value}.", goal=goal.text, value=value)


def _binding(history: StudyHistory) -> Iterator[str]:
    winner = winner_of(history)
    verdict = None if winner is None else verdict_of(history, winner)
    if verdict is not None and verdict.binding is not None:
        yield say("{ceiling}.", ceiling=margin_text(verdict.binding))
    elif not _has_result(history) and (text := nearest_text(history)):
        yield text


def _has_result(history: StudyHistory) -> bool:
    return history.answer is not None and history.answer.meets_slo


def _certainty(history: StudyHistory) -> Iterator[str]:
    answer, winner = history.answer, winner_of(history)
    if answer is None:
        yield say("The study is not finished; nothing was launched again yet.")
        return
    confirmed = None if winner is None else confirmed_of(history, winner)
    if winner is not None and confirmed is None:
        yield say("It was measured once and not launched again.")
        return
    if confirmed is None:
        if answer.finalists:
            yield say(
                "{count} candidates were launched again; gains hold with {certainty} certainty, for all "
                "comparisons at once.",
                count=len(answer.finalists),
                certainty=percent(1 - answer.error_rate, 2),
            )
    else:
        yield say(
            "{good} of {all} fresh launches were measured; gains hold with {certainty} certainty, for all "
            "comparisons at once.",
            good=len(confirmed.values),
            all=confirmed.launches,
            certainty=percent(1 - answer.error_rate, 2),
        )
