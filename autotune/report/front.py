"""The confirmed Pareto front in words: which candidates are on it, what each gives, and how to choose. Pure.

In: a finished `StudyHistory` with several objectives. Out: sentences. Invariant: only fresh launches are
spoken of, and nothing is called better that is not so for certain.
"""

from collections.abc import Iterator

from autotune.report.alike import difference_text
from autotune.report.findings import baseline_of
from autotune.report.language import say
from autotune.report.units import gain_text, metric_value
from autotune.search.answer import Answer, AnswerKind, Confirmed
from autotune.search.study_history import StudyHistory
from autotune.slo import Objective


def confirmed_front_lines(history: StudyHistory) -> Iterator[str]:
    """Yield the front of the answer; nothing without one."""
    answer = history.answer
    if answer is None or not answer.front:
        return
    yield say(
        "Confirmed Pareto front (fresh launches that meet the SLO, none beaten by another for certain): "
        "trial {numbers}.",
        numbers=_numbers(answer.front),
    )
    for confirmed in _everyone(answer):
        if confirmed.trial in answer.front:
            yield _point_text(history, confirmed)
    if answer.knee is not None:
        yield say(
            "The knee of the front is trial {number}: it gives up least in all objectives together.",
            number=answer.knee,
        )
    if answer.dominating:
        yield say(
            "Nowhere worse than the baseline on average and somewhere better for certain: trial {numbers}.",
            numbers=_numbers(answer.dominating),
        )
    elif answer.baseline is not None and answer.kind is AnswerKind.FRONT:
        yield say("None of them is shown to be better than the baseline without a loss elsewhere.")
    yield from _choice_lines(history, answer)


def _choice_lines(history: StudyHistory, answer: Answer) -> Iterator[str]:
    """Yield how the user takes another point than the named one."""
    command = f"autotune export {history.study.name} --to TARGET --trial N"
    if answer.kind is AnswerKind.FRONT:
        yield say("Choose one of them: {command}.", command=command)
        return
    if answer.kind is AnswerKind.IMPROVED and len(answer.front) > 1:
        yield say(
            "Trial {number} is named because it beats the baseline without a certain loss, by most in the "
            "first objective; for any other point of the front: {command}.",
            number=answer.winner,
            command=command,
        )


def _point_text(history: StudyHistory, confirmed: Confirmed) -> str:
    baseline = baseline_of(history)
    is_baseline = baseline is not None and baseline.number == confirmed.trial
    parts = []
    for index, goal in enumerate(history.study.slo.goals):
        gain = confirmed.gains[index] if confirmed.gains else None
        better = say(" (gain {gain})", gain=gain_text(gain)) if gain else ""
        value = metric_value(goal.quantity.metric, confirmed.mean(index))
        parts.append(f"{goal.quantity} {value}{_span(goal, confirmed, index)}{better}")
    values = "; ".join(parts) + _answers(confirmed)
    if is_baseline:
        return say("Trial {number} (the baseline): {values}.", number=confirmed.trial, values=values)
    return say("Trial {number}: {values}.", number=confirmed.trial, values=values)


def _span(goal: Objective, confirmed: Confirmed, index: int) -> str:
    span = confirmed.spans[index] if confirmed.spans else None
    return (
        "" if span is None else f" [{' .. '.join(metric_value(goal.quantity.metric, end) for end in span)}]"
    )


def _answers(confirmed: Confirmed) -> str:
    differs = difference_text(confirmed)
    return say("; ITS ANSWERS DIFFER from the baseline's: {differs}", differs=differs) if differs else ""


def _everyone(answer: Answer) -> tuple[Confirmed, ...]:
    return (*([answer.baseline] if answer.baseline else []), *answer.finalists)


def _numbers(numbers: tuple[int, ...]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))
