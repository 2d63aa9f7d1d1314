import pytest

from autotune.record import Outcome, Role
from autotune.search.budget import (
    Budget,
    allowance_s,
    expected_trial_s,
    fits_confirmation,
    fits_search,
    launches_used,
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


def test_a_number_of_launches_ends_the_search() -> None:
    assert fits_search(Budget(launches=5), TRIALS, None)
    assert not fits_search(Budget(launches=4), TRIALS, None)


def test_time_is_kept_for_the_whole_confirmation() -> None:
    budget = Budget(finalists=1, rounds=2)  # 4 launches of 100 s, and one for the search

    assert fits_search(budget, TRIALS, 500.0)
    assert not fits_search(budget, TRIALS, 499.0)
    assert fits_confirmation(TRIALS, 100.0)
    assert not fits_confirmation(TRIALS, 99.0)


def test_nothing_is_known_before_the_first_trial() -> None:
    assert expected_trial_s([]) == 0
    assert fits_search(Budget(), (), 1.0)
    assert not fits_search(Budget(), (), 0.0)


def test_earlier_calls_use_up_the_hours_of_a_study_but_not_of_a_call() -> None:
    spent = sum(trial.record.duration_s for trial in TRIALS)

    assert allowance_s(Budget(study_s=1000), TRIALS) == pytest.approx(1000 - spent)
    assert allowance_s(Budget(call_s=1000), TRIALS) == 1000
    assert allowance_s(Budget(study_s=1000, call_s=100), TRIALS) == 100
    assert allowance_s(Budget(), TRIALS) is None
