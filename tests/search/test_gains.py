import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.search.gains import fit
from autotune.slo import Objective
from tests.support.trials import STUDY

MAXIMISE = STUDY.slo.goals[0]
MINIMISE = Objective.model_validate("minimise ttft p95 at concurrency 4")
POSITIVE = st.floats(0.1, 1e4)


def test_better_is_positive_whichever_way_the_objective_points() -> None:
    values = {0: (1.0, 1.0), 1: (2.0, 2.0)}

    more, less = (fit(values, goal, error_rate=0.05, comparisons=1) for goal in (MAXIMISE, MINIMISE))

    assert more.gain(1, 0) is not None
    assert more.gain(1, 0).estimate == pytest.approx(1.0)  # type: ignore[union-attr]  # asserted above
    assert less.gain(0, 1).estimate == pytest.approx(1.0)  # type: ignore[union-attr]  # as above


def test_one_launch_each_or_a_value_of_zero_tells_nothing() -> None:
    assert fit({0: (1.0,), 1: (2.0,)}, MAXIMISE, error_rate=0.05, comparisons=1).gain(1, 0) is None
    zero = fit({0: (1.0, 1.1), 1: (0.0, 2.0)}, MAXIMISE, error_rate=0.05, comparisons=1)
    assert zero.gain(1, 0) is None
    assert zero.gain(0, 7) is None


@given(st.lists(POSITIVE, min_size=2, max_size=4), st.lists(POSITIVE, min_size=2, max_size=4))
def test_a_gain_lies_in_its_interval_and_more_comparisons_widen_it(
    ours: list[float], theirs: list[float]
) -> None:
    one, many = (
        fit({0: theirs, 1: ours}, MAXIMISE, error_rate=0.05, comparisons=count).gain(1, 0) for count in (1, 6)
    )

    assert one is not None
    assert many is not None
    assert many.low <= one.low <= one.estimate <= one.high <= many.high


def test_a_slow_node_is_taken_off_at_the_price_of_a_degree_of_freedom() -> None:
    fast, slow = ("n0",), ("n1",)
    values = {0: [100.0, 51.0], 1: [120.0, 60.0], 2: [110.0, 56.0]}
    places = {number: [fast, slow] for number in values}

    blurred = fit(values, MAXIMISE, error_rate=0.05, comparisons=2)
    clear = fit(values, MAXIMISE, error_rate=0.05, comparisons=2, places=places)

    before, after = blurred.gain(1, 0), clear.gain(1, 0)
    assert before is not None
    assert after is not None
    assert after.estimate == pytest.approx(before.estimate)
    assert before.low < 0 < after.low
    assert clear.quantile > blurred.quantile


def test_one_round_on_each_of_two_nodes_tells_nothing_of_a_single_contender() -> None:
    model = fit({0: [1.0, 2.0]}, MAXIMISE, error_rate=0.05, comparisons=1, places={0: [("a",), ("b",)]})
    assert model.gain(0, 0) is None
