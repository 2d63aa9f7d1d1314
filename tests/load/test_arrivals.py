import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autotune.load.arrivals import LoadPoint, due_times_s


@given(
    count=st.integers(2, 300),
    rate=st.floats(0.1, 500),
    arrivals=st.sampled_from(["poisson", "constant"]),
    seed=st.integers(0, 2**32),
)
def test_due_times_start_at_zero_never_go_back_and_keep_the_rate(
    count: int, rate: float, arrivals: str, seed: int
) -> None:
    point = LoadPoint.model_validate({"rate": rate, "arrivals": arrivals, "requests": count})
    due_s = due_times_s(point, count, np.random.default_rng(seed))
    assert due_s[0] == 0
    assert (np.diff(due_s) >= 0).all()
    assert due_s[-1] == pytest.approx((count - 1) / rate)


def test_a_single_request_is_due_at_once() -> None:
    assert due_times_s(LoadPoint(rate=2, requests=1), 1, np.random.default_rng(0)).tolist() == [0]


def test_a_closed_loop_has_no_due_times() -> None:
    with pytest.raises(ValueError, match="closed loop"):
        due_times_s(LoadPoint(concurrency=2, requests=1), 1, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"requests": 3}, "either concurrency"),
        ({"requests": 3, "concurrency": 1, "rate": 1}, "either concurrency"),
        ({"concurrency": 1}, "either requests"),
        ({"concurrency": 1, "requests": 3, "duration_s": 3}, "either requests"),
        ({"concurrency": 1, "requests": 3, "arrivals": "poisson"}, "closed loop has none"),
    ],
)
def test_a_load_point_is_one_load_and_one_end(data: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LoadPoint.model_validate(data)


@pytest.mark.parametrize(
    ("point", "label", "warm_up"),
    [
        (LoadPoint(concurrency=50, requests=9), "concurrency 50", 16),
        (LoadPoint(concurrency=3, requests=9), "concurrency 3", 3),
        (LoadPoint(rate=4, duration_s=9), "rate 4", 4),
        (LoadPoint(rate=0.5, requests=9, warm_up=0), "rate 0.5", 0),
    ],
)
def test_a_load_point_names_itself_and_its_warm_up(point: LoadPoint, label: str, warm_up: int) -> None:
    assert (point.label, point.warm_up_requests) == (label, warm_up)
