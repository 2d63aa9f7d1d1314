import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.engine.docker.launcher import DockerLauncher
from autotune.engine.launchers import open_launcher
from autotune.engine.phase_budgets import BudgetRule, PhaseBudgets
from autotune.failure import StartPhase
from autotune.space import SearchSpace

RULE = BudgetRule(launches=2, factor=3.0, floor_s=10.0)


def test_nothing_is_limited_before_enough_launches_became_ready() -> None:
    budgets = PhaseBudgets(RULE)
    assert budgets.of(StartPhase.WEIGHTS) is None
    budgets.learn({StartPhase.WEIGHTS: 5.0})
    assert budgets.of(StartPhase.WEIGHTS) is None
    budgets.learn({StartPhase.WEIGHTS: 40.0})
    found = budgets.of(StartPhase.WEIGHTS)
    assert found is not None
    assert (found.limit_s, found.slowest_s, found.launches) == (120.0, 40.0, 2)


def test_a_phase_that_no_launch_went_through_is_not_limited() -> None:
    budgets = PhaseBudgets(RULE)
    for _ in range(5):
        budgets.learn({StartPhase.WEIGHTS: 1.0})
    assert budgets.of(StartPhase.GRAPH_CAPTURE) is None


def test_a_pull_gets_an_hour_however_fast_the_image_was_found_before() -> None:
    budgets = PhaseBudgets(RULE)
    for seconds in (0.4, 0.5):
        budgets.learn({StartPhase.IMAGE: seconds})
    quick = budgets.of(StartPhase.IMAGE)
    budgets.learn({StartPhase.IMAGE: 2000.0})
    slow = budgets.of(StartPhase.IMAGE)
    assert quick is not None
    assert slow is not None
    assert (quick.limit_s, slow.limit_s) == (3600.0, 6000.0)
    assert slow.overrun(5999.0) is None
    told = "6000 s in phase image, which took 2000 s at most in the 3 launches before"
    assert slow.overrun(6000.0) == told


@given(seen_s=st.lists(st.floats(0, 1e5), min_size=2, max_size=100))
def test_a_limit_is_never_below_the_floor_or_below_a_launch_that_was_well(seen_s: list[float]) -> None:
    budgets = PhaseBudgets(RULE)
    for seconds in seen_s:
        budgets.learn({StartPhase.KV_POOL: seconds})
    found = budgets.of(StartPhase.KV_POOL)
    assert found is not None
    assert found.limit_s >= max(10.0, *seen_s[-64:])
    assert found.slowest_s == pytest.approx(max(seen_s[-64:]))


def test_a_study_that_goes_on_knows_the_limits_of_its_earlier_launches() -> None:
    space = SearchSpace.model_validate(
        {"version": "0.5.23", "model": "m", "image": "i", "tune": {"tp-size": {"choices": [1]}}}
    )
    launcher = open_launcher(
        space, seed=0, learnt=[{"image": 1.0, "weights": 400.0}, {}, *[{"weights": 9.0}] * 2]
    )

    assert isinstance(launcher, DockerLauncher)
    found = launcher._budgets.of(StartPhase.WEIGHTS)
    assert found is not None
    assert (found.limit_s, found.slowest_s, found.launches) == (1600.0, 400.0, 3)
