import pytest

from autotune.record import Outcome
from autotune.report.spent import by_outcome, by_phase, gpu_hours, phases_of, shifts, spent_s
from autotune.report.summary import cost_text
from autotune.search.confirmation import NumberedTrial
from tests.support import histories as made

TRIAL_S = 412.0 + 95.5 + 4.0


def at(number: int, began_s: float, **changes: object) -> NumberedTrial:
    record = made.trial(made.make_study(), number, {}, 900.0, 5.0).record
    return NumberedTrial(number, record.model_copy(update={"began_s": began_s, **changes}))


def test_gpu_hours_are_the_time_of_all_trials_on_all_gpus() -> None:
    history = made.kept()
    assert spent_s(history) == 2 * TRIAL_S
    assert gpu_hours(history, spent_s(history)) == pytest.approx(8 * 2 * TRIAL_S / 3600)
    assert cost_text(history) == "2 launches in 17 min 3 s on 8 GPUs: 2.27 GPU-hours."


def test_without_gpus_the_cost_is_told_in_time() -> None:
    study = made.make_study(
        {"nodes": [{"name": "local"}], "image": None, "launcher": "process", "mounts": []}
    )
    assert cost_text(made.history(study, made.trial(study, 0, {}, 900.0, 5.0))) == "1 launches in 8 min 32 s."


def test_a_study_that_was_gone_on_with_follows_itself_whatever_its_clock_says() -> None:
    study = made.make_study()
    trials = (at(0, 5000.0), at(1, 6000.0), at(2, 10.0), at(3, 710.0))
    found = shifts(made.history(study, *trials))
    first_gap_s, second_gap_s = 1000.0 - TRIAL_S, 700.0 - TRIAL_S
    ends = [TRIAL_S, 2 * TRIAL_S + first_gap_s]
    assert [shift.began_s for shift in found] == pytest.approx(
        [0.0, 1000.0, ends[1], ends[1] + TRIAL_S + second_gap_s]
    )


def test_a_trial_that_was_cut_off_does_not_move_those_after_it() -> None:
    study = made.make_study()
    cut = at(1, 0.0, outcome=Outcome.INTERRUPTED, durations_s={"cut off": 100.0})
    found = shifts(made.history(study, at(0, 5000.0), cut, at(2, 6000.0)))
    assert [shift.began_s for shift in found] == [0.0, TRIAL_S, 1000.0]


def test_a_launch_is_divided_into_its_phases_and_what_they_leave() -> None:
    record = at(0, 0.0, start_phases_s={"weights": 300.0, "kv_pool": 100.0}).record
    assert phases_of(record) == {
        "launch": 12.0,
        "weights": 300.0,
        "kv_pool": 100.0,
        "load": 95.5,
        "teardown": 4.0,
    }
    whole = at(0, 0.0, start_phases_s={"weights": 412.0}).record
    assert "launch" not in phases_of(whole)


def test_hours_are_told_by_phase_and_by_what_came_of_them() -> None:
    history = made.improved()
    assert {share.name: share.trials for share in by_phase(history)} == {
        "launch": 7,
        "load": 5,
        "teardown": 5,
    }
    assert {share.name: share.trials for share in by_outcome(history)} == {
        "baseline": 1,
        "search": 2,
        "no_kv_memory": 2,
        "infeasible": 1,
        "invalid": 1,
        "confirmation": 2,
    }
    assert sum(share.spent_s for share in by_phase(history)) == pytest.approx(spent_s(history))
