from dataclasses import replace

from autotune.export.page import evidence_page
from autotune.export.selection import select
from autotune.report.answer import answer_text
from autotune.search.gains import Gain
from tests.support import histories as made

DIFFER = (
    "16 fixed prompts, greedily: 40.0 % of the characters are equal before the first that differs "
    "(position 2 at the earliest); between launches of the baseline 100 %"
)


def test_a_winner_that_answers_as_the_baseline_says_so_with_both_differences() -> None:
    assert (
        "It answers as the baseline does: 16 fixed prompts, greedily: 98.0 % of the token ids are equal "
        "before the first that differs (position 21 at the earliest), log-probabilities drift by 0.00420 "
        "nats a token; between launches of the baseline 100 %, log-probabilities drift by 0.00390 nats a "
        "token."
    ) in answer_text(made.answering(made.improved(), 2, made.ALIKE)).splitlines()


def test_a_winner_that_answers_otherwise_says_so_and_how_to_take_it_all_the_same() -> None:
    lines = answer_text(made.answering(made.improved(), 2, made.DIFFERENT)).splitlines()

    at = lines.index(f"ITS ANSWERS DIFFER from the baseline's: {DIFFER}.")
    assert lines[at + 1] == (
        "Look at what it answers first: autotune export takes it only with --accept-answers."
    )


def test_what_was_not_asked_is_not_called_alike() -> None:
    assert (
        "Whether it answers as the baseline does is not known: "
        "a simulated engine has no model that could answer."
    ) in answer_text(made.answering(made.improved(), 2, made.NOT_ASKED))


def test_a_finalist_that_gained_more_and_answers_otherwise_is_named() -> None:
    history = made.answering(made.improved(), 2, made.ALIKE)
    assert history.answer is not None
    ahead = made.confirmed(
        history.study, 1, 1500.0, 7.0, gain=Gain(estimate=0.5, low=0.45, high=0.55)
    ).model_copy(update={"alike": made.DIFFERENT})
    answer = history.answer.model_copy(update={"finalists": (*history.answer.finalists, ahead)})

    text = answer_text(replace(history, answer=answer))

    assert f"Trial 1 gained +50.0 % [+45.0 % .. +55.0 %], but its answers differ: {DIFFER}." in text


def test_a_point_of_a_front_that_answers_otherwise_says_so() -> None:
    history = made.answering(made.front_answered(), 2, made.DIFFERENT)

    line = next(line for line in answer_text(history).splitlines() if line.startswith("Trial 2:"))

    assert line.endswith(f"; ITS ANSWERS DIFFER from the baseline's: {DIFFER}.")


def test_the_evidence_has_the_answers() -> None:
    history = made.answering(made.improved(), 2, made.ALIKE)

    page = evidence_page(select(history, number=None, force=False)).text

    assert "## Answers\n\n`It answers as the baseline does: " in page
