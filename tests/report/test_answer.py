import pytest

from autotune.record import Outcome, Role
from autotune.report.answer import SIMULATED, answer_text, margin_text, shortfall
from autotune.search.confirmation import AnswerKind, Gain
from autotune.search.ledger import StudyHistory
from tests.support import histories as made

EXPECTED = {
    "improved": """\
Improved: a better candidate than the baseline meets the SLO.
Run trial 2 (chunked-prefill-size 8192, schedule-policy lpm).
output_throughput at concurrency 50: 1,120 tok/s on average over 2 fresh launches.
Gain over the baseline: +12.0 % [+8.10 % .. +16.0 %], with 95 % certainty.
The ceiling that binds is ttft p95 < 10s at concurrency 50: measured 7.20 s, room of 28.0 % of the limit.""",
    "kept": """\
Keep the baseline: no candidate was shown to be better.
Run trial 0 (the baseline).
output_throughput at concurrency 50: 1,000 tok/s on average over 2 fresh launches.
Trial 1 gained +1.00 % [-2.00 % .. +4.00 %] (met).
The ceiling that binds is ttft p95 < 10s at concurrency 50: measured 8.00 s, room of 20.0 % of the limit.""",
    "nothing_meets": """\
Nothing meets the SLO.
The nearest candidate is trial 1 (chunked-prefill-size 8192, schedule-policy lpm): \
ttft p95 < 10s at concurrency 50: measured 12.0 s, missed by 20.0 % of the limit.
Not measured: 1 crashed.""",
    "not_confirmed": """\
Not confirmed: the fresh launches did not settle the answer.
Trial 1: 3 fresh launches, 1 failed; \
ttft p95 < 10s at concurrency 50: measured 7.00 s, room of 30.0 % of the limit.
The best that still stands is trial 0 (the baseline): \
output_throughput at concurrency 50 1,000 tok/s in the search.""",
    "unfinished": """\
No answer yet: the study is not finished.
3 trials are finished, 1 are running or were cut off; 3 candidates were measured.
The best that still stands is trial 1 (chunked-prefill-size 8192, schedule-policy lpm): \
output_throughput at concurrency 50 1,100 tok/s in the search.""",
    "empty": """\
No answer yet: the study is not finished.
0 trials are finished, 1 are running or were cut off; 0 candidates were measured.""",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_answer_in_words(name: str) -> None:
    assert answer_text(getattr(made, name)()) == EXPECTED[name]


def test_a_simulated_answer_says_so_first() -> None:
    assert answer_text(made.improved(is_simulated=True)).splitlines()[0] == SIMULATED
    assert "SIMULATED" not in answer_text(made.improved())


def test_a_study_with_several_objectives_names_its_front() -> None:
    assert "On the Pareto front of the candidates that meet the SLO: trial 1, 2." in answer_text(
        made.pareto()
    )


def test_nothing_measured_is_said_with_the_kinds_of_failure() -> None:
    study = made.make_study()
    lost = made.without_engine(0, Outcome.INFEASIBLE, "no")
    answer = made.answered(AnswerKind.NOTHING_MEETS, None, None)
    text = answer_text(made.history(study, lost, answer=answer))
    assert "No candidate could be measured.\nNot measured: 1 infeasible." in text


def test_without_finalists_a_study_is_not_confirmed() -> None:
    study = made.make_study()
    answer = made.answered(AnswerKind.NOT_CONFIRMED, None, None)
    assert "There was no finalist to launch again." in answer_text(made.history(study, answer=answer))


def test_a_winner_over_a_baseline_that_misses_may_be_slower_and_says_why() -> None:
    study = made.make_study()
    answer = made.answered(
        AnswerKind.IMPROVED,
        1,
        made.confirmed(study, 0, 1000.0, 15.0),
        made.confirmed(study, 1, 900.0, 7.0, gain=Gain(estimate=-0.1, low=-0.12, high=-0.08)),
    )
    trials = [
        made.trial(study, 0, {}, 1000.0, 15.0, role=Role.BASELINE),
        made.trial(study, 1, made.FASTER, 900.0, 7.0),
    ]
    lines = answer_text(made.history(study, *trials, answer=answer)).splitlines()
    ceiling = "ttft p95 < 10s at concurrency 50"
    assert lines[0] == "Improved: a candidate meets the SLO, which the baseline does not."
    assert lines[3:] == [
        f"The baseline does not meet it: {ceiling}: measured 15.0 s, missed by 50.0 % of the limit.",
        "Gain over the baseline: -10.0 % [-12.0 % .. -8.00 %], with 95 % certainty.",
        f"The ceiling that binds is {ceiling}: measured 7.00 s, room of 30.0 % of the limit.",
    ]


def test_an_answer_whose_trial_is_gone_still_has_its_headline() -> None:
    study = made.make_study()
    answer = made.answered(AnswerKind.IMPROVED, 5, None)
    assert answer_text(made.history(study, answer=answer)).startswith("Improved")


def test_a_candidate_that_meets_the_slo_lacks_nothing() -> None:
    history = made.improved()
    assert shortfall(history, history.trials[2]) is None


@pytest.mark.parametrize(
    ("history", "number", "reason"),
    [
        (made.not_confirmed(), 1, "1 of its 3 fresh launches failed"),
        (made.improved(), 1, "measured 12.5 s, missed by 25.0 % of the limit"),
        (made.improved(), 3, "it was not measured (no_kv_memory: RuntimeError: Not enough memory)"),
        (made.unfinished(), 2, "measured 9.80 s, room of 2.00 % of the limit, undecided after 250 samples"),
    ],
)
def test_what_a_candidate_lacks_is_said(history: StudyHistory, number: int, reason: str) -> None:
    assert (shortfall(history, history.trials[number]) or "").endswith(reason)


def test_a_ceiling_without_any_sample_has_no_margin() -> None:
    verdict = made.improved().trials[0].record.verdict
    assert verdict is not None
    unseen = verdict.ceilings[0].model_copy(update={"value": None})
    assert margin_text(unseen) == "ttft p95 < 10s at concurrency 50: nothing was measured"
