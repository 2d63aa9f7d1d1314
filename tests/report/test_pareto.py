from random import Random

from hypothesis import given
from hypothesis import strategies as st

from autotune.report.pareto import dominates, pareto_front

POINTS = st.integers(1, 3).flatmap(
    lambda size: st.lists(st.tuples(*[st.integers(0, 6).map(float)] * size), max_size=25)
)


def test_the_front_of_a_known_set() -> None:
    assert pareto_front([(1, 5), (2, 2), (3, 3), (5, 1), (2, 2)]) == (0, 1, 3, 4)


def test_no_points_have_no_front() -> None:
    assert pareto_front([]) == ()


@given(POINTS)
def test_nothing_dominates_a_member_of_the_front(points: list[tuple[float, ...]]) -> None:
    members = [points[index] for index in pareto_front(points)]
    assert not any(dominates(point, member) for point in points for member in members)


@given(POINTS)
def test_a_member_of_the_front_dominates_everything_outside(points: list[tuple[float, ...]]) -> None:
    members = set(pareto_front(points))
    outside = [point for index, point in enumerate(points) if index not in members]
    assert all(any(dominates(points[index], point) for index in members) for point in outside)


@given(POINTS)
def test_any_points_at_all_have_a_front(points: list[tuple[float, ...]]) -> None:
    assert bool(pareto_front(points)) == bool(points)


@given(POINTS, st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(points: list[tuple[float, ...]], random: Random) -> None:
    shuffled = list(points)
    random.shuffle(shuffled)
    front = sorted(points[index] for index in pareto_front(points))
    assert front == sorted(shuffled[index] for index in pareto_front(shuffled))


@given(POINTS)
def test_dominance_is_never_mutual(points: list[tuple[float, ...]]) -> None:
    assert not any(dominates(one, other) and dominates(other, one) for one in points for other in points)
