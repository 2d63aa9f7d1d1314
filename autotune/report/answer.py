"""The study's answer in words: what to run in production, how much better it is, and what limits it. Pure.

In: a `StudyHistory`, finished or not. Out: plain text, one thought a line. Invariant: whenever a number comes
from a model of the engine, the text says so first.
"""

from collections.abc import Iterator

from autotune.record import Outcome, Role, TrialRecord
from autotune.report.findings import (
    baseline_of,
    confirmed_of,
    decision_of,
    differences,
    failure_kind,
    failure_line,
    failures_by_kind,
    front,
    is_simulated,
    measured,
    meeting,
    most_promising,
    nearest,
    verdict_of,
    winner_of,
)
from autotune.report.front import confirmed_front_lines
from autotune.report.undecided import remedy_text
from autotune.report.units import (
    ceiling_value,
    duration,
    flag_list,
    gain_text,
    metric_value,
    percent,
    printable,
)
from autotune.search.answer import Answer, AnswerKind, Confirmed
from autotune.search.budget import Budget, expected_trial_s
from autotune.search.confirmation import NumberedTrial
from autotune.search.ledger import StudyHistory
from autotune.search.repeats import SearchEnd, due_again
from autotune.slo import CeilingVerdict, Decision

SIMULATED = "SIMULATED: these numbers come from a model of the engine, not from a measurement."


_PLAIN_HEADLINES = {
    AnswerKind.UNDECIDED: "Undecided: too few samples to say whether anything meets the SLO.",
    AnswerKind.NOTHING_MEETS: "Nothing meets the SLO.",
    AnswerKind.NOTHING_MEASURED: "Nothing could be measured, so nothing is known about the SLO.",
    AnswerKind.NOT_CONFIRMED: "Not confirmed: the fresh launches did not settle the answer.",
    None: "No answer yet: the study is not finished.",
}
_SEARCH_ENDS = {
    SearchEnd.LAUNCHES: "The search ended because its launches were spent.",
    SearchEnd.TIME: "The search ended because no further launch fitted into its time.",
    SearchEnd.EXHAUSTED: "The search ended because every candidate of the space was tried.",
    SearchEnd.STALLED: (
        "The search ended because it found only candidates that are known already or cannot run."
    ),
    SearchEnd.STOPPED: "The search was stopped; the same command goes on from there.",
}
WORTHWHILE_LAUNCHES = 10
"""Fewer launches of the search hardly say more than the baseline alone."""


def answer_text(history: StudyHistory) -> str:
    """Return the whole answer as plain text, lines separated by newlines."""
    marks = [SIMULATED] if is_simulated(history) else []
    return "\n".join([*marks, headline(history), *explanation(history)])


def headline(history: StudyHistory) -> str:
    """Return the answer in one line."""
    match history.answer.kind if history.answer else None:
        case AnswerKind.IMPROVED:
            return f"Improved: {_improvement(history)}."
        case AnswerKind.UNCOMPARED:
            return f"A candidate meets the SLO; {_unknown_improvement(history)}."
        case AnswerKind.FRONT:
            unknown = "" if _has_baseline(history) else f"; {_unknown_improvement(history)}"
            return f"A Pareto front meets the SLO, and the choice among its points is yours{unknown}."
        case AnswerKind.KEEP_BASELINE:
            rivals = history.answer.finalists if history.answer else ()
            why = "no candidate was shown to be better" if rivals else _why_no_rival(history)
            return f"Keep the baseline: {why}."
        case kind:
            return _PLAIN_HEADLINES[kind]


def _why_no_rival(history: StudyHistory) -> str:
    records = (trial.record for trial in history.trials)
    if any(record.role is Role.SEARCH and record.durations_s for record in records):
        return "no other was seen to meet the SLO"
    return "no other was launched"


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
    yield from _search_lines(history)


def trial_name(history: StudyHistory, trial: NumberedTrial) -> str:
    """Return `trial 7 (flag value, ...)`: its number and what distinguishes it from the baseline."""
    baseline = baseline_of(history)
    changed = differences(history, trial.record.to_candidate())
    if baseline is not None and not changed:
        return f"trial {trial.number} (the baseline)"
    return f"trial {trial.number} ({flag_list(changed) or 'as the baseline'})"


def margin_text(verdict: CeilingVerdict) -> str:
    """Return a ceiling, what was measured, and how much room there is or by how much it is missed."""
    if verdict.value is None:
        return f"{verdict.ceiling}: nothing was measured"
    doubt = f", undecided after {verdict.samples} samples" if verdict.decision is Decision.UNDECIDED else ""
    value = f"{ceiling_value(verdict.ceiling, verdict.value)}{_failed_text(verdict)}"
    return f"{verdict.ceiling}: measured {value}, {room_text(verdict)} of the limit{doubt}"


def _failed_text(verdict: CeilingVerdict) -> str:
    """Return how many failed requests stand beside the measured value, which is that of the others."""
    if not verdict.failed:
        return ""
    counted = "1 failed request counts" if verdict.failed == 1 else f"{verdict.failed} failed requests count"
    return f" ({counted} as beyond it)"


def room_text(verdict: CeilingVerdict) -> str:
    """Return the margin as a share of the limit."""
    share = percent(abs(verdict.margin_ratio))
    return f"missed by {share}" if verdict.margin_ratio < 0 else f"room of {share}"


def shortfall(history: StudyHistory, trial: NumberedTrial) -> str | None:
    """Return why a candidate does not meet the SLO for certain, None if it does."""
    if decision_of(history, trial) is Decision.MET:
        return None
    confirmed = confirmed_of(history, trial)
    if confirmed is not None and confirmed.failed_launches:
        return f"{confirmed.failed_launches} of its {confirmed.launches} fresh launches failed"
    if decision_of(history, trial) is None:
        return not_measured_text(trial.record)
    verdict = verdict_of(history, trial)
    binding = verdict.binding if verdict else None
    return "no ceiling was judged" if binding is None else margin_text(binding)


def not_measured_text(record: TrialRecord) -> str:
    """Return what kept a trial from being measured."""
    line = printable(failure_line(record))
    return f"it was not measured ({failure_kind(record) or 'no verdict'}{': ' if line else ''}{line})"


def nearest_text(history: StudyHistory) -> str | None:
    """Return the candidate nearest to the SLO and what it still misses; None if none was measured."""
    trial = nearest(history)
    if trial is None:
        return None
    reason = shortfall(history, trial) or "meets it"
    return f"The nearest candidate is {trial_name(history, trial)}: {reason}."


def _improvement(history: StudyHistory) -> str:
    """Return what the winner has over the baseline."""
    match _baseline_decision(history):
        case Decision.MISSED:
            return "a candidate meets the SLO, which the baseline does not"
        case Decision.UNDECIDED:
            return "a candidate meets the SLO for certain, and the baseline perhaps not"
        case _ if len(history.study.slo.goals) > 1:
            return "a candidate meets the SLO and beats the baseline, without a certain loss in any objective"
        case _:
            return "a better candidate than the baseline meets the SLO"


def _has_baseline(history: StudyHistory) -> bool:
    baseline = baseline_of(history)
    return baseline is not None and baseline.record.outcome is Outcome.MEASURED


def _unknown_improvement(history: StudyHistory) -> str:
    baseline = baseline_of(history)
    why = "it was not launched" if baseline is None else not_measured_text(baseline.record)
    return f"improvement over the baseline is unknown: {why}"


def _front_lines(history: StudyHistory) -> Iterator[str]:
    """Yield the front of the search, which nothing has confirmed yet."""
    numbers = ", ".join(str(number) for number in sorted(front(history)))
    if len(history.study.slo.goals) > 1 and numbers:
        yield f"On the Pareto front of the candidates that meet the SLO: trial {numbers}."


def _winner_lines(history: StudyHistory) -> Iterator[str]:
    trial, answer = winner_of(history), history.answer
    if trial is None or answer is None:
        return
    yield f"Run {trial_name(history, trial)}."
    yield from _value_lines(history, answer.confirmed_winner)
    if answer.confirmed_winner is None:
        yield "It was measured once and not launched again: there was no time for it."
    yield from _gain_lines(history, answer)
    verdict = verdict_of(history, trial)
    if verdict is not None and verdict.binding is not None:
        yield f"The ceiling that binds is {margin_text(verdict.binding)}."


def _value_lines(history: StudyHistory, confirmed: Confirmed | None) -> Iterator[str]:
    """Yield the winner's objectives over its fresh launches."""
    if confirmed is None or not confirmed.values:
        return
    count = len(confirmed.values)
    over = "in one fresh launch" if count == 1 else f"on average over {count} fresh launches"
    for index, goal in enumerate(history.study.slo.goals):
        yield f"{goal.quantity}: {metric_value(goal.quantity.metric, confirmed.mean(index))} {over}."


def _gain_lines(history: StudyHistory, answer: Answer) -> Iterator[str]:
    certainty = percent(1 - answer.error_rate, 2)
    decision = _baseline_decision(history)
    if answer.baseline is not None and decision in (Decision.MISSED, Decision.UNDECIDED):
        binding = answer.baseline.verdict.binding
        word = "does not meet it" if decision is Decision.MISSED else "may not meet it"
        yield f"The baseline {word}{f': {margin_text(binding)}' if binding else ''}."
    goals = history.study.slo.goals
    for goal, gain in zip(
        goals, answer.confirmed_winner.gains if answer.confirmed_winner else (), strict=False
    ):
        of = f" in {goal.quantity}" if len(goals) > 1 else ""
        if gain is not None:
            yield f"Gain over the baseline{of}: {gain_text(gain)}, with {certainty} certainty."
    for rival in answer.finalists if len(goals) == 1 else ():
        if answer.kind is AnswerKind.KEEP_BASELINE and rival.gain is not None:
            yield f"Trial {rival.trial} gained {gain_text(rival.gain)} ({rival.decision})."


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
    yield f"The most promising candidate is {trial_name(history, trial)}."
    for judged in verdict.ceilings:
        if judged.decision is Decision.UNDECIDED:
            yield f"{margin_text(judged)}. {remedy_text(history.study.slo, judged)}"
    yield from _failure_lines(history)


def _nearest_lines(history: StudyHistory) -> Iterator[str]:
    text = nearest_text(history)
    yield text or "No candidate could be measured."
    yield from _failure_lines(history)


def _contender_lines(history: StudyHistory) -> Iterator[str]:
    answer = history.answer
    contenders = answer.finalists if answer else ()
    alone = [answer.baseline] if answer and answer.baseline and not contenders else []
    for confirmed in (*contenders, *alone):
        verdict = confirmed.verdict.binding
        margin = f"; {margin_text(verdict)}" if verdict else ""
        failed = f", {confirmed.failed_launches} failed" if confirmed.failed_launches else ""
        yield f"Trial {confirmed.trial}: {confirmed.launches} fresh launches{failed}{margin}."
    if not contenders:
        yield "There was no finalist to launch again."
    yield from _best_lines(history)


def _progress_lines(history: StudyHistory) -> Iterator[str]:
    counts = f"{len(history.trials)} trials are finished, {history.running} are running or were cut off"
    yield f"{counts}; {len(measured(history))} candidates were measured."
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
    yield f"The best that still stands is {trial_name(history, best)}: {quantity} {value} in the search."


def _failure_lines(history: StudyHistory) -> Iterator[str]:
    kinds = failures_by_kind(history)
    if kinds:
        counts = ", ".join(f"{len(trials)} {kind}" for kind, trials in kinds.items())
        yield f"Not measured: {counts}."


def _search_lines(history: StudyHistory) -> Iterator[str]:
    """Yield why the search ended, and what a later call goes on with."""
    if history.search_end is not None:
        yield _SEARCH_ENDS[history.search_end]
    if history.search_end is SearchEnd.TIME:
        yield from _more_time_lines(history)
    due = set(due_again(history.trials))
    cut_off = [
        str(trial.number)
        for trial in history.trials
        if trial.number in due and trial.record.outcome is Outcome.INTERRUPTED
    ]
    if cut_off:
        yield f"Cut off, and run again by the same command with more time: trial {', '.join(cut_off)}."


def _more_time_lines(history: StudyHistory) -> Iterator[str]:
    """Yield how much time would do, if there was none for a single launch of the search."""
    records = [trial.record for trial in history.trials]
    each_s = expected_trial_s(records)
    if each_s and not any(record.role is Role.SEARCH and record.durations_s for record in records):
        launches = 1 + WORTHWHILE_LAUNCHES + Budget().confirmation_launches
        yield (
            f"A trial takes {duration(each_s)}: the baseline, {WORTHWHILE_LAUNCHES} launches of the search "
            f"and a confirmation of {Budget().confirmation_launches} need {duration(launches * each_s)}; "
            "fewer --finalists need less."
        )
