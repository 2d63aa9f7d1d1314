import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.bench.search import Found, Range, largest_kept


@given(st.integers(1, 64), st.integers(0, 900), st.integers(0, 900))
def test_the_largest_concurrency_that_keeps_is_found_within_a_tenth(low: int, more: int, limit: int) -> None:
    tried: list[float] = []

    def keeps(load: float) -> bool:
        tried.append(load)
        return load <= limit

    found = largest_kept(keeps, Range(low, low + more, is_whole=True, most_points=40))
    assert found.points == len(tried) == len(set(tried))
    assert all(load == int(load) and low <= load <= low + more for load in tried)
    if limit < low:
        assert found == Found(None, low, 1)
    elif found.missed is None:
        assert found.kept == low + more <= limit
    else:
        assert found.kept is not None
        assert found.kept <= limit < found.missed
        assert found.missed <= max(found.kept + 1, 1.1 * found.kept + 1e-9)


@given(st.floats(0.01, 10), st.floats(1, 1000), st.floats(0.001, 20_000))
def test_few_points_are_enough_for_a_rate(low: float, factor: float, limit: float) -> None:
    found = largest_kept(lambda rate: rate <= limit, Range(low, low * factor, is_whole=False, most_points=18))
    assert found.points <= 18
    if found.kept is not None and found.missed is not None:
        assert found.kept <= limit < found.missed <= 1.1 * found.kept * (1 + 1e-9)


def test_no_more_points_are_measured_than_allowed() -> None:
    found = largest_kept(lambda load: load <= 37, Range(1, 512, is_whole=True, most_points=3))
    assert found == Found(4, None, 3)


@pytest.mark.parametrize(("low", "high"), [(0, 4), (-1, 4), (5, 4)])
def test_an_empty_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="a search goes"):
        largest_kept(lambda _: True, Range(low, high, is_whole=True))
