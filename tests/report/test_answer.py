from dataclasses import replace

import pytest

from autotune.failure import FailureKind
from autotune.record import Outcome, Role
from autotune.report.answer import answer_text, headline, margin_text, shortfall
from autotune.report.marks import SIMULATED
from autotune.search.answer import AnswerKind
from autotune.search.confirmation import NumberedTrial
from autotune.search.gains import Gain
from autotune.search.repeats import SearchEnd
from autotune.search.study_history import StudyHistory
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
    "undecided": """\
Undecided: too few samples to say whether anything meets the SLO.
The most promising candidate is trial 1 (chunked-prefill-size 8192, schedule-policy lpm).
ttft p95 < 10s at concurrency 50: measured 9.80 s, room of 2.00 % of the limit, undecided after 250 samples. \
By the share seen so far about 1900 would decide it: give concurrency 50 more requests than 300 in the SLO \
file (that is a new study).""",
    "front_answered": """\
A Pareto front meets the SLO, and the choice among its points is yours.
Confirmed Pareto front (fresh launches that meet the SLO, none beaten by another for certain): trial 0, 1, 2.
Trial 0 (the baseline): output_throughput at concurrency 50 1,000 tok/s; ttft p95 at concurrency 50 6.00 s.
Trial 1: output_throughput at concurrency 50 700 tok/s (gain -40.0 % [-50.0 % .. -30.0 %]); \
ttft p95 at concurrency 50 4.00 s (gain +30.0 % [+20.0 % .. +40.0 %]).
Trial 2: output_throughput at concurrency 50 1,300 tok/s (gain +30.0 % [+20.0 % .. +40.0 %]); \
ttft p95 at concurrency 50 9.00 s (gain -40.0 % [-50.0 % .. -30.0 %]).
None of them is shown to be better than the baseline without a loss elsewhere.
Choose one of them: autotune export r1 --to TARGET --trial N.""",
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


def test_a_named_point_of_a_front_says_why_it_is_named_and_how_to_take_another() -> None:
    history = made.front_answered()
    assert history.answer is not None
    update = {"kind": AnswerKind.IMPROVED, "winner": 2, "dominating": (2,)}
    named = made.history(
        history.study, *history.trials, answer=history.answer.model_copy(update=update), running=0
    )
    lines = answer_text(named).splitlines()
    assert lines[0].startswith("Improved: a candidate meets the SLO and beats the baseline")
    assert "ttft p95 at concurrency 50: 9.00 s on average over 2 fresh launches." in lines
    assert "Gain over the baseline in output_throughput at concurrency 50: +30.0 %" in answer_text(named)
    assert "Nowhere worse than the baseline on average and somewhere better for certain: trial 2." in lines
    assert lines[-1].startswith("Trial 2 is named because it beats the baseline")
    assert lines[-1].endswith("autotune export r1 --to TARGET --trial N.")


def test_a_front_names_its_knee_and_the_interval_of_every_value() -> None:
    history = made.front_answered()
    assert history.answer is not None
    first, *others = history.answer.finalists
    first = first.model_copy(update={"spans": ((690.0, 710.0), None)})
    answer = history.answer.model_copy(update={"knee": 1, "finalists": (first, *others)})

    text = answer_text(made.history(history.study, *history.trials, answer=answer))

    assert "The knee of the front is trial 1: it gives up least in all objectives together." in text
    assert (
        "Trial 1: output_throughput at concurrency 50 700 tok/s [690 tok/s .. 710 tok/s] (gain -40.0 %"
        in text
    )


def test_nothing_measured_is_said_with_the_kinds_of_failure() -> None:
    study = made.make_study()
    lost = made.without_engine(0, Outcome.INFEASIBLE, "no")
    answer = made.answered(AnswerKind.NOTHING_MEASURED, None, None)
    text = answer_text(made.history(study, lost, answer=answer))
    assert text.splitlines() == [
        "Nothing could be measured, so nothing is known about the SLO.",
        "Not measured: 1 infeasible.",
    ]


def _uncompared(kind: AnswerKind) -> StudyHistory:
    study = made.make_study()
    broken = made.failed(0, FailureKind.CRASHED, "Segmentation fault", candidate={}).record
    baseline = NumberedTrial(0, broken.model_copy(update={"role": Role.BASELINE}))
    answer = made.answered(kind, 1, None, made.confirmed(study, 1, 1100.0, 7.0))
    return made.history(study, baseline, made.trial(study, 1, made.FASTER, 1100.0, 7.0), answer=answer)


@pytest.mark.parametrize("kind", [AnswerKind.UNCOMPARED, AnswerKind.FRONT])
def test_without_a_measured_baseline_the_headline_says_that_improvement_is_unknown_and_why(
    kind: AnswerKind,
) -> None:
    assert headline(_uncompared(kind)).endswith(
        "improvement over the baseline is unknown: it was not measured (crashed: Segmentation fault)."
    )


def test_a_baseline_that_was_never_launched_leaves_improvement_unknown() -> None:
    study = made.make_study()
    answer = made.answered(AnswerKind.UNCOMPARED, 1, None)
    assert headline(made.history(study, answer=answer)).endswith("unknown: it was not launched.")


def test_a_baseline_that_nothing_competes_with_says_how_often_it_was_measured() -> None:
    study = made.make_study()
    baseline = made.trial(study, 0, {}, 1000.0, 8.0, role=Role.BASELINE)
    once = made.history(study, baseline, answer=made.answered(AnswerKind.KEEP_BASELINE, 0, None))
    fresh = made.confirmed(study, 0, 1000.0, 8.0)
    fresh = fresh.model_copy(update={"values": fresh.values[:1]})
    twice = made.history(study, baseline, answer=made.answered(AnswerKind.KEEP_BASELINE, 0, fresh))
    assert answer_text(once).splitlines()[:3] == [
        "Keep the baseline: no other was launched.",
        "Run trial 0 (the baseline).",
        "It was measured once and not launched again: there was no time for it.",
    ]
    assert "The ceiling that binds is ttft p95" in answer_text(once)
    assert "output_throughput at concurrency 50: 990 tok/s in one fresh launch." in answer_text(twice)


def test_a_baseline_that_fails_when_it_is_launched_again_is_shown() -> None:
    study = made.make_study()
    lost = made.confirmed(study, 0, 1000.0, 8.0, failed_launches=1)
    answer = made.answered(AnswerKind.NOT_CONFIRMED, None, lost)
    baseline = made.trial(study, 0, {}, 1000.0, 8.0, role=Role.BASELINE)
    assert "Trial 0: 3 fresh launches, 1 failed" in answer_text(made.history(study, baseline, answer=answer))


def test_an_undecided_baseline_is_not_said_to_miss() -> None:
    study = made.make_study()
    open_ = made.confirmed(study, 0, 1000.0, 9.8, undecided=[study.slo.ceilings[0].text])
    answer = made.answered(AnswerKind.IMPROVED, 1, open_, made.confirmed(study, 1, 1100.0, 7.0))
    trials = [
        made.trial(study, 0, {}, 1000.0, 9.8, role=Role.BASELINE),
        made.trial(study, 1, made.FASTER, 1100.0, 7.0),
    ]
    text = answer_text(made.history(study, *trials, answer=answer))
    assert text.startswith("Improved: a candidate meets the SLO for certain, and the baseline perhaps not.")
    assert "The baseline may not meet it: ttft p95 < 10s at concurrency 50" in text


@pytest.mark.parametrize("end", list(SearchEnd))
def test_why_the_search_ended_is_said_last(end: SearchEnd) -> None:
    history = replace(made.kept(), search_end=end)
    assert answer_text(history).splitlines()[-1].startswith("The search ")


def test_how_little_was_left_to_gain_is_said() -> None:
    history = replace(made.kept(), search_end=SearchEnd.GAIN, expected_gain=0.0042)
    assert "\nA further launch of it was expected to gain 0.42 %; --least-gain says" in answer_text(history)


def test_what_waits_for_more_time_is_named() -> None:
    study = made.make_study()
    trials = [made.without_engine(4, Outcome.INTERRUPTED, "the study's time was up")]
    text = answer_text(made.history(study, *trials))
    assert text.endswith("Cut off, and run again by the same command with more time: trial 4.")


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


def test_failed_requests_are_named_beside_the_value_of_the_others() -> None:
    history = made.improved()
    answer = history.answer
    assert answer is not None
    assert answer.binding is not None
    assert "(1 failed request counts as beyond it)" in margin_text(
        answer.binding.model_copy(update={"failed": 1})
    )
    assert "(7 failed requests count as beyond it)" in margin_text(
        answer.binding.model_copy(update={"failed": 7})
    )


def test_a_search_without_time_for_a_launch_says_how_much_would_do() -> None:
    study = made.make_study()
    baseline = made.trial(study, 0, {}, 1000.0, 9.0)
    record = baseline.record.model_copy(update={"role": Role.BASELINE, "durations_s": {"launch": 600.0}})
    alone = made.history(study, NumberedTrial(0, record), answer=None)
    lines = answer_text(replace(alone, search_end=SearchEnd.TIME)).splitlines()
    assert lines[-1].startswith("A trial takes 10 min 0 s: the baseline, 10 launches of the search and a co")
    assert "of 8 need 3 h 10 min" in lines[-1]
    searched = made.history(study, NumberedTrial(0, record), made.trial(study, 1, made.FASTER, 1100.0, 7.0))
    assert "A trial takes" not in answer_text(replace(searched, search_end=SearchEnd.TIME))
