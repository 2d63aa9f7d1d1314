from dataclasses import replace

import pytest

from autotune.dashboard import trial_note
from autotune.failure import FailureKind
from autotune.live.lines import trial_line
from autotune.record import Outcome, Role
from autotune.report import findings
from autotune.report.markdown import render_markdown
from autotune.report.seen import Measurements
from autotune.report.summary import summary_points
from autotune.report.table import trials_frame
from autotune.report.trial_data import trial_data
from autotune.search.answer import AnswerKind
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from autotune.slo import Decision, Stop, StopKind
from autotune.space import Candidate
from tests.support import histories as made


def numbers(trials: object) -> list[int]:
    assert isinstance(trials, tuple)
    return [trial.number for trial in trials]


def test_one_simulated_record_makes_the_study_simulated() -> None:
    assert findings.is_simulated(made.improved(is_simulated=True))
    assert not findings.is_simulated(made.improved())
    study = made.make_study()
    assert findings.is_simulated(made.history(study, made.trial(study, 0, {}, 1.0, 1.0, is_simulated=True)))


def test_a_simulated_answer_without_records_is_simulated() -> None:
    study = made.make_study()
    answer = made.answered(AnswerKind.NOTHING_MEETS, None, None, is_simulated=True)
    assert findings.is_simulated(made.history(study, answer=answer))


def test_the_baseline_is_the_one_that_was_measured() -> None:
    study = made.make_study()
    broken = made.failed(0, FailureKind.CRASHED, "gone", candidate={})
    broken = NumberedTrial(0, broken.record.model_copy(update={"role": Role.BASELINE}))
    again = made.trial(study, 1, {}, 1000.0, 8.0, role=Role.BASELINE)
    for trials, number in (((broken,), 0), ((broken, again), 1), ((again, broken), 1)):
        baseline = findings.baseline_of(made.history(study, *trials))
        assert baseline is not None
        assert baseline.number == number


def test_fresh_launches_overrule_the_search() -> None:
    history = made.not_confirmed()
    finalist = history.trials[1]
    assert finalist.record.verdict is not None
    assert finalist.record.verdict.decision is Decision.MET
    assert findings.decision_of(history, finalist) is Decision.MISSED


def test_a_confirmation_stands_for_the_candidate_it_launches_again() -> None:
    history = made.improved()
    again = findings.trial_of(history, 8)
    assert again is not None
    confirmed = findings.confirmed_of(history, again)
    assert confirmed is not None
    assert confirmed.trial == 2


def test_what_was_not_measured_has_no_decision() -> None:
    history = made.improved()
    assert findings.decision_of(history, history.trials[3]) is None


def test_the_measured_candidates_leave_confirmations_out() -> None:
    assert numbers(findings.measured(made.improved())) == [0, 1, 2]


def test_leaders_are_those_that_meet_the_slo_and_then_the_nearest() -> None:
    assert numbers(findings.leaders(made.unfinished(), 5)) == [1, 0, 2]
    assert numbers(findings.leaders(made.nothing_meets(), 5)) == [1, 0]
    assert numbers(findings.leaders(made.unfinished(), 1)) == [1]


def test_the_nearest_candidate_misses_by_the_least() -> None:
    near = findings.nearest(made.nothing_meets())
    assert near is not None
    assert near.number == 1
    assert findings.nearest(made.empty()) is None


def test_a_candidate_whose_fresh_launches_all_failed_is_the_farthest() -> None:
    study = made.make_study()
    lost = made.confirmed(study, 1, 1100.0, 7.0, failed_launches=2).model_copy(update={"values": ()})
    answer = made.answered(AnswerKind.NOTHING_MEETS, None, None, lost)
    trials = [made.trial(study, 0, {}, 1000.0, 15.0), made.trial(study, 1, made.FASTER, 1100.0, 7.0)]
    near = findings.nearest(made.history(study, *trials, answer=answer))
    assert near is not None
    assert near.number == 0


def test_the_front_holds_what_no_candidate_that_meets_the_slo_dominates() -> None:
    assert findings.front(made.pareto()) == {1, 2}
    assert findings.front(made.nothing_meets()) == frozenset()


@pytest.mark.parametrize(
    ("candidate", "changed"),
    [
        ({}, {}),
        (made.FASTER, made.FASTER),
        ({"other": 1, "schedule-policy": "lpm"}, {"schedule-policy": "lpm", "other": 1}),
    ],
)
def test_differences_are_the_flags_that_the_baseline_sets_otherwise(
    candidate: dict[str, object], changed: dict[str, object]
) -> None:
    found = findings.differences(made.improved(), Candidate.of(candidate))  # type: ignore[arg-type]  # made up
    assert list(found.items()) == list(changed.items())


def test_a_flag_that_only_the_baseline_sets_is_a_difference_too() -> None:
    history = made.history(made.make_study({"baseline": {"schedule-policy": "lpm"}}))
    assert findings.differences(history, Candidate.of({})) == {"schedule-policy": None}


def test_failures_come_by_kind_and_the_frequent_ones_first() -> None:
    kinds = findings.failures_by_kind(made.improved())
    assert {kind: numbers(trials) for kind, trials in kinds.items()} == {
        "no_kv_memory": [3, 4],
        "infeasible": [5],
        "invalid": [6],
    }
    assert next(iter(kinds)) == "no_kv_memory"


def test_a_trial_without_an_engine_gives_its_reason_as_the_decisive_line() -> None:
    record = made.without_engine(1, Outcome.INTERRUPTED, "the controller ended").record
    assert findings.failure_kind(record) == "interrupted"
    assert findings.failure_line(record) == "the controller ended"
    assert findings.failure_line(record.model_copy(update={"reason": None})) == ""


def stopped_early(history: StudyHistory, number: int) -> StudyHistory:
    """The study with the load points of one trial stopped early."""
    stop = Stop(kind=StopKind.MISSED, reason="it is missed", ceiling=None, requests=32, planned=254)
    trial = history.trials[number]
    points = tuple(point.model_copy(update={"stopped": stop}) for point in trial.record.points)
    cut = NumberedTrial(number, trial.record.model_copy(update={"points": points}))
    return replace(history, trials=(*history.trials[:number], cut, *history.trials[number + 1 :]))


def test_what_a_stopped_load_point_had_shown_is_told_as_partial_and_compared_with_nothing() -> None:
    whole = made.nothing_meets()
    near = findings.nearest(whole)
    assert near is not None
    history = stopped_early(whole, near.number)
    trial, goals = history.trials[near.number], history.study.slo.goals
    load = goals[0].quantity.load

    assert findings.objective_of(near.record, goals, 0) is not None
    assert findings.objective_of(trial.record, goals, 0) is None
    assert findings.nearest(history) not in (None, trial)
    assert f"{load} stopped after 32 of 254 requests: it is missed" in findings.stop_lines(trial.record)
    assert Measurements(history).of(trial, goals[0].quantity) is None
    row = trials_frame(history).set_index("number").loc[near.number]
    assert row[[goals[0].text, f"ttft_p95_s at {load}"]].isna().all()
    assert "stopped after 32 of 254 requests" in row["stopped"]
    assert "stopped early, once they were decided" in render_markdown(history)
    assert "stopped early" not in render_markdown(whole)
    assert "stopped after 32 of 254" in trial_data(Measurements(history))["relation"][near.number]
    assert f"(stopped early at {load})" in trial_line(trial, history.study.slo).plain
    assert f"partial: {load} stopped after 32 of 254" in trial_note(history, trial)


def test_what_was_measured_live_says_so_wherever_it_is_shown() -> None:
    history = made.measured_live()
    live = history.trials[2]

    data = trial_data(Measurements(history))
    assert data["relation"] == [None, None, "measured live on the engine of trial 1"]
    assert data["folder"] == ["trials/0000/", "trials/0001/", "trials/0001/"]
    assert trial_line(live, history.study.slo).plain.endswith("(live on trial 1)")
    assert trials_frame(history).set_index("number").loc[2, "measured_live_on"] == 1
    cost = next(point for point in summary_points(history) if point.word == "What it cost")
    assert cost.sentences[0].startswith("2 launches in ")
    assert cost.sentences[1].startswith("1 more candidates were measured live on another trial's engine")
    assert "measured live on the engine of trial 1, not launched" in trial_note(history, live)
    assert "(trials/0002/concurrency-50.npz)" in trial_note(history, live).replace("/raw/", "")
