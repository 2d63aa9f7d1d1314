import re

import pytest

from autotune.errors import ConfigError
from autotune.failure import EngineFailure, FailureKind, StartPhase
from autotune.record import Outcome, Role
from autotune.search.budget import (
    Budget,
    allowance_s,
    expected_trial_s,
    fits,
    has_launches,
    launches_used,
    parse_least_gain,
    parse_share,
    reserve_s,
)
from tests.support.trials import failed, measured, numbered

TRIALS = numbered(
    measured(1.0, role=Role.BASELINE),
    measured(2.0),
    failed(),
    measured(2.0, same_as=1, durations_s={}),
    measured(3.0, outcome=Outcome.INTERRUPTED),
    measured(3.0, outcome=Outcome.INVALID),
    measured(4.0, role=Role.CONFIRMATION, confirms=1),
)


def test_only_launches_of_the_search_are_counted() -> None:
    assert launches_used(TRIALS) == 4


def test_a_launch_that_was_lost_to_a_node_is_free() -> None:
    lost = EngineFailure(kind=FailureKind.NODE_LOST, phase=StartPhase.WEIGHTS, line="gone")

    assert launches_used(numbered(failed(outcome=Outcome.INVALID, failure=lost))) == 0


def test_a_number_of_launches_ends_the_search() -> None:
    assert has_launches(Budget(launches=5), TRIALS)
    assert not has_launches(Budget(launches=4), TRIALS)
    assert has_launches(Budget(), TRIALS)


def test_time_is_kept_for_the_whole_confirmation() -> None:
    reserved_s = reserve_s(Budget(finalists=1, rounds=2), TRIALS)  # 4 launches of 100 s

    assert reserved_s == 400.0
    assert fits(TRIALS, 500.0, reserved_s=reserved_s)
    assert not fits(TRIALS, 499.0, reserved_s=reserved_s)
    assert fits(TRIALS, 100.0)
    assert not fits(TRIALS, 99.0)
    assert fits(TRIALS, None)


def test_the_time_that_is_kept_is_that_of_trials_that_skipped_no_load_point() -> None:
    short = {"launch": 10.0}
    missed = [measured(1.0, ttft_s=5.0, durations_s=short) for _ in range(9)]

    assert reserve_s(Budget(finalists=1, rounds=2), numbered(measured(1.0), *missed)) == 400.0
    assert reserve_s(Budget(finalists=1, rounds=2), numbered(*missed)) == 40.0


def test_before_the_first_measured_trial_the_longest_launch_in_vain_is_expected() -> None:
    hang = failed(durations_s={"launch": 1800.0})
    cut_off = measured(1.0, outcome=Outcome.INTERRUPTED, durations_s={"launch": 2000.0})

    assert expected_trial_s([failed(), hang]) == 1800.0
    assert expected_trial_s([cut_off, hang]) == 2000.0
    assert expected_trial_s([cut_off, hang, measured(1.0)]) == 100.0
    assert reserve_s(Budget(), numbered(hang)) == 0.0


def test_a_launch_whose_numbers_were_taken_over_is_not_how_long_a_trial_takes() -> None:
    assert expected_trial_s([measured(1.0), measured(1.0, same_as=0, durations_s={"launch": 5.0})]) == 100.0


def test_nothing_is_known_before_the_first_trial() -> None:
    assert expected_trial_s([]) == 0
    assert fits((), 1.0)
    assert not fits((), 0.0)


def test_earlier_calls_use_up_the_hours_of_a_study_but_not_of_a_call() -> None:
    spent = sum(trial.record.duration_s for trial in TRIALS)

    assert allowance_s(Budget(study_s=1000), TRIALS) == pytest.approx(1000 - spent)
    assert allowance_s(Budget(call_s=1000), TRIALS) == 1000
    assert allowance_s(Budget(study_s=1000, call_s=100), TRIALS) == 100
    assert allowance_s(Budget(), TRIALS) is None


@pytest.mark.parametrize(("text", "share"), [("2%", 0.02), ("0.5 %", 0.005), ("0.02", 0.02)])
def test_a_share_is_written_in_percent_or_as_a_number(text: str, share: float) -> None:
    assert parse_share("--precision", text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "2", "-1%", "100%", "two", "nan"])
def test_what_is_no_share_is_refused_with_the_option_and_the_value(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--precision {text!r}: write a share such as 2%")):
        parse_share("--precision", text)


def test_what_a_launch_must_promise_is_a_share_or_off() -> None:
    assert parse_least_gain("0.5%") == pytest.approx(0.005)
    assert parse_least_gain("off") is None
    message = "--least-gain 'never': write a share such as 1%, or off"
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_least_gain("never")


def test_what_was_measured_live_takes_its_time_but_no_launch() -> None:
    live = measured(5.0, measured_live_on=1, durations_s={"load": 10.0})
    trials = (*TRIALS, *numbered(live))

    assert launches_used(trials) == launches_used(TRIALS)
    assert expected_trial_s([each.record for each in trials]) == 100.0
    assert reserve_s(Budget(finalists=1, rounds=2), trials) == 400.0
    spent_s = sum(each.record.duration_s for each in trials)
    assert allowance_s(Budget(study_s=1000.0), trials) == 1000.0 - spent_s
