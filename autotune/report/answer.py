"""The study's answer in words: what to run in production, how much better it is, and what limits it. Pure.

In: a `StudyHistory`, finished or not. Out: plain text, one thought a line. Invariant: whenever a number comes
from a model of the engine, the text says so first.
"""

from collections.abc import Iterator

from autotune.record import TrialRecord
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
    nearest,
    verdict_of,
    winner_of,
)
from autotune.report.units import (
    ceiling_value,
    flag_list,
    metric_value,
    percent,
    printable,
    signed_percent,
)
from autotune.search.confirmation import Answer, AnswerKind, Confirmed, Gain, NumberedTrial
from autotune.search.ledger import StudyHistory
from autotune.slo import CeilingVerdict, Decision

SIMULATED = "SIMULATED: these numbers come from a model of the engine, not from a measurement."


def answer_text(history: StudyHistory) -> str:
    """Return the whole answer as plain text, lines separated by newlines."""
    marks = [SIMULATED] if is_simulated(history) else []
    return "\n".join([*marks, headline(history), *explanation(history)])


def headline(history: StudyHistory) -> str:
    """Return the answer in one line."""
    match history.answer.kind if history.answer else None:
        case AnswerKind.IMPROVED if _baseline_misses(history):
            return "Improved: a candidate meets the SLO, which the baseline does not."
        case AnswerKind.IMPROVED:
            return "Improved: a better candidate than the baseline meets the SLO."
        case AnswerKind.KEEP_BASELINE:
            return "Keep the baseline: no candidate was shown to be better."
        case AnswerKind.NOTHING_MEETS:
            return "Nothing meets the SLO."
        case AnswerKind.NOT_CONFIRMED:
            return "Not confirmed: the fresh launches did not settle the answer."
        case None:
            return "No answer yet: the study is not finished."


def explanation(history: StudyHistory) -> Iterator[str]:
    """Yield the sentences that follow the headline."""
    answer = history.answer
    yield from _front_lines(history)
    match answer.kind if answer else None:
        case AnswerKind.IMPROVED | AnswerKind.KEEP_BASELINE:
            yield from _winner_lines(history)
        case AnswerKind.NOTHING_MEETS:
            yield from _nearest_lines(history)
        case AnswerKind.NOT_CONFIRMED:
            yield from _contender_lines(history)
        case None:
            yield from _progress_lines(history)


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
    value = ceiling_value(verdict.ceiling, verdict.value)
    return f"{verdict.ceiling}: measured {value}, {room_text(verdict)} of the limit{doubt}"


def room_text(verdict: CeilingVerdict) -> str:
    """Return the margin as a share of the limit."""
    share = percent(abs(verdict.margin_ratio))
    return f"missed by {share}" if verdict.margin_ratio < 0 else f"room of {share}"


def gain_text(gain: Gain) -> str:
    """Return a gain with its interval."""
    low, high = signed_percent(gain.low), signed_percent(gain.high)
    return f"{signed_percent(gain.estimate)} [{low} .. {high}]"


def shortfall(history: StudyHistory, trial: NumberedTrial) -> str | None:
    """Return why a candidate does not meet the SLO for certain, None if it does."""
    if decision_of(history, trial) is Decision.MET:
        return None
    confirmed = confirmed_of(history, trial)
    if confirmed is not None and confirmed.failed_launches:
        return f"{confirmed.failed_launches} of its {_launches(confirmed)} fresh launches failed"
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


def _front_lines(history: StudyHistory) -> Iterator[str]:
    numbers = ", ".join(str(number) for number in sorted(front(history)))
    if len(history.study.slo.goals) > 1 and numbers:
        yield f"On the Pareto front of the candidates that meet the SLO: trial {numbers}."


def _winner_lines(history: StudyHistory) -> Iterator[str]:
    trial, answer = winner_of(history), history.answer
    if trial is None or answer is None:
        return
    goal = history.study.slo.goals[0]
    yield f"Run {trial_name(history, trial)}."
    confirmed = answer.confirmed_winner
    if confirmed is not None and confirmed.values:
        mean = sum(confirmed.values) / len(confirmed.values)
        value = metric_value(goal.quantity.metric, mean)
        yield f"{goal.quantity}: {value} on average over {len(confirmed.values)} fresh launches."
    yield from _gain_lines(history, answer)
    if answer.binding is not None:
        yield f"The ceiling that binds is {margin_text(answer.binding)}."


def _gain_lines(history: StudyHistory, answer: Answer) -> Iterator[str]:
    certainty = percent(1 - answer.error_rate, 2)
    confirmed = answer.confirmed_winner
    if _baseline_misses(history) and answer.baseline is not None:
        binding = answer.baseline.verdict.binding
        yield f"The baseline does not meet it{f': {margin_text(binding)}' if binding else ''}."
    if confirmed is not None and confirmed.gain is not None:
        yield f"Gain over the baseline: {gain_text(confirmed.gain)}, with {certainty} certainty."
    for rival in answer.finalists:
        if answer.kind is AnswerKind.KEEP_BASELINE and rival.gain is not None:
            yield f"Trial {rival.trial} gained {gain_text(rival.gain)} ({rival.decision})."


def _baseline_misses(history: StudyHistory) -> bool:
    """Whether the baseline was launched again and did not meet the SLO for certain."""
    baseline = history.answer.baseline if history.answer else None
    return baseline is not None and baseline.decision is not Decision.MET


def _nearest_lines(history: StudyHistory) -> Iterator[str]:
    text = nearest_text(history)
    yield text or "No candidate could be measured."
    yield from _failure_lines(history)


def _contender_lines(history: StudyHistory) -> Iterator[str]:
    answer = history.answer
    contenders = answer.finalists if answer else ()
    for confirmed in contenders:
        verdict = confirmed.verdict.binding
        margin = f"; {margin_text(verdict)}" if verdict else ""
        failed = f", {confirmed.failed_launches} failed" if confirmed.failed_launches else ""
        yield f"Trial {confirmed.trial}: {_launches(confirmed)} fresh launches{failed}{margin}."
    if not contenders:
        yield "There was no finalist to launch again."
    yield from _best_lines(history)


def _progress_lines(history: StudyHistory) -> Iterator[str]:
    counts = f"{len(history.trials)} trials are finished, {history.running} are running or were cut off"
    yield f"{counts}; {len(measured(history))} candidates were measured."
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


def _launches(confirmed: Confirmed) -> int:
    return len(confirmed.values) + confirmed.failed_launches
