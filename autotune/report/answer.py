"""The study's answer in words: what to run in production, how much better it is, and what limits it. Pure.

In: a `StudyHistory`, finished or not. Out: plain text, one thought a line. Invariant: whenever a number comes
from a model of the engine, the text says so first.
"""

from collections.abc import Iterator

from autotune.record import Outcome, Role, TrialRecord
from autotune.report.alike import alike_lines
from autotune.report.findings import (
    baseline_of,
    confirmed_of,
    decision_of,
    differences,
    failure_kind,
    failure_line,
    failures_by_kind,
    front,
    measured,
    meeting,
    most_promising,
    nearest,
    verdict_of,
    winner_of,
)
from autotune.report.front import confirmed_front_lines
from autotune.report.language import mark, say, word
from autotune.report.marks import marks, not_judged_lines
from autotune.report.search_end import search_end_lines
from autotune.report.undecided import remedy_text
from autotune.report.units import (
    ceiling_value,
    flag_list,
    gain_text,
    metric_value,
    percent,
    printable,
)
from autotune.search.answer import Answer, AnswerKind, Confirmed
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from autotune.slo import CeilingVerdict, Decision

_PLAIN_HEADLINES = {
    AnswerKind.UNDECIDED: mark("Undecided: too few samples to say whether anything meets the SLO."),
    AnswerKind.NOTHING_MEETS: mark("Nothing meets the SLO."),
    AnswerKind.NOTHING_MEASURED: mark("Nothing could be measured, so nothing is known about the SLO."),
    AnswerKind.NOT_CONFIRMED: mark("Not confirmed: the fresh launches did not settle the answer."),
    None: mark("No answer yet: the study is not finished."),
}


def answer_text(history: StudyHistory) -> str:
    """Return the whole answer as plain text, lines separated by newlines."""
    return "\n".join([*marks(history), headline(history), *explanation(history)])


def headline(history: StudyHistory) -> str:
    """Return the answer in one line."""
    match history.answer.kind if history.answer else None:
        case AnswerKind.IMPROVED:
            return say("Improved: {what}.", what=_improvement(history))
        case AnswerKind.UNCOMPARED:
            return say("A candidate meets the SLO; {unknown}.", unknown=_unknown_improvement(history))
        case AnswerKind.FRONT:
            unknown = "" if _has_baseline(history) else f"; {_unknown_improvement(history)}"
            return say(
                "A Pareto front meets the SLO, and the choice among its points is yours{unknown}.",
                unknown=unknown,
            )
        case AnswerKind.KEEP_BASELINE:
            rivals = history.answer.finalists if history.answer else ()
            why = say("no candidate was shown to be better") if rivals else _why_no_rival(history)
            return say("Keep the baseline: {why}.", why=why)
        case kind:
            return say(_PLAIN_HEADLINES[kind])


def _why_no_rival(history: StudyHistory) -> str:
    records = (trial.record for trial in history.trials)
    if any(record.role is Role.SEARCH and record.durations_s for record in records):
        return say("no other was seen to meet the SLO")
    return say("no other was launched")


def explanation(history: StudyHistory) -> Iterator[str]:
    """Yield the sentences that follow the headline."""
    answer = history.answer
    match answer.kind if answer else None:
        case AnswerKind.IMPROVED | AnswerKind.UNCOMPARED | AnswerKind.KEEP_BASELINE:
            yield from _winner_lines(history)
            yield from confirmed_front_lines(history)
        case AnswerKind.FRONT:
            yield from confirmed_front_lines(history)
        case AnswerKind.UNDECIDED:
            yield from _undecided_lines(history)
        case AnswerKind.NOTHING_MEETS:
            yield from _nearest_lines(history)
        case AnswerKind.NOTHING_MEASURED:
            yield from _failure_lines(history)
        case AnswerKind.NOT_CONFIRMED:
            yield from _contender_lines(history)
        case None:
            yield from _progress_lines(history)
    yield from search_end_lines(history)
    yield from not_judged_lines(history)
    for nodes, reason in history.quarantine.items():
        why = " ".join(reason.split())
        yield say("{nodes} was not used any more: {why}", nodes=nodes, why=why)


def trial_name(history: StudyHistory, trial: NumberedTrial) -> str:
    """Return `trial 7 (flag value, ...)`: its number and what distinguishes it from the baseline."""
    baseline = baseline_of(history)
    changed = differences(history, trial.record.to_candidate())
    if baseline is not None and not changed:
        return say("trial {number} (the baseline)", number=trial.number)
    what = flag_list(changed) or say("as the baseline")
    return say("trial {number} ({what})", number=trial.number, what=what)


def margin_text(verdict: CeilingVerdict) -> str:
    """Return a ceiling, what was measured, and how much room there is or by how much it is missed."""
    if verdict.value is None:
        return say("{ceiling}: nothing was measured", ceiling=verdict.ceiling)
    is_open = verdict.decision is Decision.UNDECIDED
    return say(
        "{ceiling}: measured {value}{failed}, {room} of the limit{doubt}",
        ceiling=verdict.ceiling,
        value=ceiling_value(verdict.ceiling, verdict.value),
        failed=_failed_text(verdict),
        room=room_text(verdict),
        doubt=say(", undecided after {samples} samples", samples=verdict.samples) if is_open else "",
    )


def _failed_text(verdict: CeilingVerdict) -> str:
    """Return how many failed requests stand beside the measured value, which is that of the others."""
    if not verdict.failed:
        return ""
    if verdict.failed == 1:
        return say(" (1 failed request counts as beyond it)")
    return say(" ({count} failed requests count as beyond it)", count=verdict.failed)


def room_text(verdict: CeilingVerdict) -> str:
    """Return the margin as a share of the limit."""
    share = percent(abs(verdict.margin_ratio))
    if verdict.margin_ratio < 0:
        return say("missed by {share}", share=share)
    return say("room of {share}", share=share)


def shortfall(history: StudyHistory, trial: NumberedTrial) -> str | None:
    """Return why a candidate does not meet the SLO for certain, None if it does."""
    if decision_of(history, trial) is Decision.MET:
        return None
    confirmed = confirmed_of(history, trial)
    if confirmed is not None and confirmed.failed_launches:
        return say(
            "{failed} of its {all} fresh launches failed",
            failed=confirmed.failed_launches,
            all=confirmed.launches,
        )
    if decision_of(history, trial) is None:
        return not_measured_text(trial.record)
    verdict = verdict_of(history, trial)
    binding = verdict.binding if verdict else None
    return say("no ceiling was judged") if binding is None else margin_text(binding)


def not_measured_text(record: TrialRecord) -> str:
    """Return what kept a trial from being measured."""
    line = printable(failure_line(record))
    kind = failure_kind(record)
    what = f"{word(kind) if kind else say('no verdict')}{': ' if line else ''}{line}"
    return say("it was not measured ({what})", what=what)


def nearest_text(history: StudyHistory) -> str | None:
    """Return the candidate nearest to the SLO and what it still misses; None if none was measured."""
    trial = nearest(history)
    if trial is None:
        return None
    reason = shortfall(history, trial) or say("meets it")
    return say("The nearest candidate is {trial}: {reason}.", trial=trial_name(history, trial), reason=reason)


def _improvement(history: StudyHistory) -> str:
    """Return what the winner has over the baseline."""
    match _baseline_decision(history):
        case Decision.MISSED:
            return say("a candidate meets the SLO, which the baseline does not")
        case Decision.UNDECIDED:
            return say("a candidate meets the SLO for certain, and the baseline perhaps not")
        case _ if len(history.study.slo.goals) > 1:
            return say(
                "a candidate meets the SLO and beats the baseline, without a certain loss in any objective"
            )
        case _:
            return say("a better candidate than the baseline meets the SLO")


def _has_baseline(history: StudyHistory) -> bool:
    baseline = baseline_of(history)
    return baseline is not None and baseline.record.outcome is Outcome.MEASURED


def _unknown_improvement(history: StudyHistory) -> str:
    baseline = baseline_of(history)
    why = say("it was not launched") if baseline is None else not_measured_text(baseline.record)
    return say("improvement over the baseline is unknown: {why}", why=why)


def _front_lines(history: StudyHistory) -> Iterator[str]:
    """Yield the front of the search, which nothing has confirmed yet."""
    numbers = ", ".join(str(number) for number in sorted(front(history)))
    if len(history.study.slo.goals) > 1 and numbers:
        yield say(
            "On the Pareto front of the candidates that meet the SLO: trial {numbers}.", numbers=numbers
        )


def _winner_lines(history: StudyHistory) -> Iterator[str]:
    trial, answer = winner_of(history), history.answer
    if trial is None or answer is None:
        return
    yield say("Run {trial}.", trial=trial_name(history, trial))
    yield from _value_lines(history, answer.confirmed_winner)
    if answer.confirmed_winner is None:
        yield say("It was measured once and not launched again: there was no time for it.")
    yield from _gain_lines(history, answer)
    yield from alike_lines(answer)
    verdict = verdict_of(history, trial)
    if verdict is not None and verdict.binding is not None:
        yield say("The ceiling that binds is {ceiling}.", ceiling=margin_text(verdict.binding))


def _value_lines(history: StudyHistory, confirmed: Confirmed | None) -> Iterator[str]:
    """Yield the winner's objectives over its fresh launches."""
    if confirmed is None or not confirmed.values:
        return
    count = len(confirmed.values)
    over = (
        say("in one fresh launch")
        if count == 1
        else say("on average over {count} fresh launches", count=count)
    )
    for index, goal in enumerate(history.study.slo.goals):
        value = metric_value(goal.quantity.metric, confirmed.mean(index))
        yield say("{what}: {value} {over}.", what=goal.quantity, value=value, over=over)


def _gain_lines(history: StudyHistory, answer: Answer) -> Iterator[str]:
    certainty = percent(1 - answer.error_rate, 2)
    yield from baseline_lines(history)
    goals = history.study.slo.goals
    for goal, gain in zip(
        goals, answer.confirmed_winner.gains if answer.confirmed_winner else (), strict=False
    ):
        of = say(" in {what}", what=goal.quantity) if len(goals) > 1 else ""
        if gain is not None:
            yield say(
                "Gain over the baseline{of}: {gain}, with {certainty} certainty.",
                of=of,
                gain=gain_text(gain),
                certainty=certainty,
            )
    for rival in answer.finalists if len(goals) == 1 else ():
        if answer.kind is AnswerKind.KEEP_BASELINE and rival.gain is not None:
            yield say(
                "Trial {number} gained {gain} ({verdict}).",
                number=rival.trial,
                gain=gain_text(rival.gain),
                verdict=word(rival.decision),
            )


def baseline_lines(history: StudyHistory) -> Iterator[str]:
    """Yield that the baseline does not meet the SLO for certain, if it was launched again and does not."""
    decision = _baseline_decision(history)
    if history.answer is None or history.answer.baseline is None or decision is Decision.MET:
        return
    binding = history.answer.baseline.verdict.binding
    why = f": {margin_text(binding)}" if binding else ""
    if decision is Decision.MISSED:
        yield say("The baseline does not meet it{why}.", why=why)
    else:
        yield say("The baseline may not meet it{why}.", why=why)


def _baseline_decision(history: StudyHistory) -> Decision | None:
    """Return whether the baseline met the SLO when it was launched again, None if it was not."""
    baseline = history.answer.baseline if history.answer else None
    return None if baseline is None else baseline.decision


def _undecided_lines(history: StudyHistory) -> Iterator[str]:
    """Yield the candidate that is likeliest to meet the SLO, and what would decide it."""
    trial = most_promising(history)
    verdict = None if trial is None else verdict_of(history, trial)
    if trial is None or verdict is None:
        return
    yield say("The most promising candidate is {trial}.", trial=trial_name(history, trial))
    for judged in verdict.ceilings:
        if judged.decision is Decision.UNDECIDED:
            yield f"{margin_text(judged)}. {remedy_text(history.study.slo, judged)}"
    yield from _failure_lines(history)


def _nearest_lines(history: StudyHistory) -> Iterator[str]:
    text = nearest_text(history)
    yield text or say("No candidate could be measured.")
    yield from _failure_lines(history)


def _contender_lines(history: StudyHistory) -> Iterator[str]:
    answer = history.answer
    contenders = answer.finalists if answer else ()
    alone = [answer.baseline] if answer and answer.baseline and not contenders else []
    for confirmed in (*contenders, *alone):
        if history.judged_again is not None and not confirmed.launches:
            yield say(
                "Trial {number} is promising, not confirmed: it was never launched again, because it was no "
                "finalist under the study's own SLO.",
                number=confirmed.trial,
            )
            continue
        verdict = confirmed.verdict.binding
        margin = f"; {margin_text(verdict)}" if verdict else ""
        failed = say(", {count} failed", count=confirmed.failed_launches) if confirmed.failed_launches else ""
        yield say(
            "Trial {number}: {launches} fresh launches{failed}{margin}.",
            number=confirmed.trial,
            launches=confirmed.launches,
            failed=failed,
            margin=margin,
        )
    if not contenders:
        yield say("There was no finalist to launch again.")
    yield from _best_lines(history)


def _progress_lines(history: StudyHistory) -> Iterator[str]:
    yield say(
        "{finished} trials are finished, {running} are running or were cut off; {measured} candidates were "
        "measured.",
        finished=len(history.trials),
        running=history.running,
        measured=len(measured(history)),
    )
    yield from _front_lines(history)
    yield from _best_lines(history)
    yield from _failure_lines(history)


def _best_lines(history: StudyHistory) -> Iterator[str]:
    """Yield the best candidate that nothing speaks against, or the nearest to the SLO."""
    best = next(iter(meeting(history)), None)
    if best is None or best.record.objectives is None:
        text = nearest_text(history)
        yield from [text] if text else []
        return
    quantity = history.study.slo.goals[0].quantity
    value = metric_value(quantity.metric, best.record.objectives[0])
    yield say(
        "The best that still stands is {trial}: {what} {value} in the search.",
        trial=trial_name(history, best),
        what=quantity,
        value=value,
    )


def _failure_lines(history: StudyHistory) -> Iterator[str]:
    kinds = failures_by_kind(history)
    if kinds:
        counts = ", ".join(f"{len(trials)} {word(kind)}" for kind, trials in kinds.items())
        yield say("Not measured: {counts}.", counts=counts)
