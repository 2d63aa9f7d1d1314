from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autotune.errors import ConfigError
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


@given(
    count=st.integers(2, 300), rate=st.floats(0.1, 500), shape=st.floats(0.05, 20), seed=st.integers(0, 2**32)
)
def test_gamma_arrivals_keep_the_rate_whatever_their_shape(
    count: int, rate: float, shape: float, seed: int
) -> None:
    point = LoadPoint(rate=rate, arrivals="gamma", burstiness=shape, requests=count)
    due_s = due_times_s(point, count, np.random.default_rng(seed))
    assert due_s[0] == 0
    assert (np.diff(due_s) >= 0).all()
    assert due_s[-1] == pytest.approx((count - 1) / rate)


def test_a_small_burstiness_makes_bursts_and_a_large_one_evens_out() -> None:
    spread = []
    for shape in (0.1, 1.0, 25.0):
        point = LoadPoint(rate=10, arrivals="gamma", burstiness=shape, requests=4000)
        gaps_s = np.diff(due_times_s(point, 4000, np.random.default_rng(3)))
        spread.append(float(gaps_s.std() / gaps_s.mean()))
    assert spread == pytest.approx([1 / 0.1**0.5, 1.0, 0.2], rel=0.2)


def test_draws_that_no_float_can_hold_still_end_in_time() -> None:
    point = LoadPoint(rate=2, arrivals="gamma", burstiness=1e-320, requests=5)
    assert due_times_s(point, 5, np.random.default_rng(0)).tolist() == [0, 0, 0, 0, 2]


@given(st.lists(st.floats(0.5, 20), min_size=2, max_size=5), st.integers(1, 60))
def test_steps_last_equally_long_and_each_has_its_rate(steps: list[float], each_s: int) -> None:
    seconds = float(each_s * len(steps))
    point = LoadPoint.model_validate({"steps": steps, "arrivals": "constant", "duration_s": seconds})
    count = int(np.ceil(seconds * point.mean_rate_rps))
    due_s = due_times_s(point, count, np.random.default_rng(0))
    assert point.label == f"rate {max(steps):g}"
    seen, _ = np.histogram(due_s, bins=np.arange(len(steps) + 1) * each_s)
    assert seen == pytest.approx(np.array(steps) * each_s, abs=1.5)


def test_steps_of_a_count_spread_it_by_their_rates() -> None:
    point = LoadPoint.model_validate({"steps": [1, 3], "arrivals": "constant", "requests": 40})
    due_s = due_times_s(point, 40, np.random.default_rng(0))
    assert (due_s < 10).sum() == pytest.approx(10, abs=1)
    assert due_s[-1] == pytest.approx(20, abs=1)


def test_a_trace_is_replayed_at_the_rate_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(f'{{"timestamp_s": {at}}}' for at in (5, 6, 6, 9)))
    due_s = due_times_s(LoadPoint(rate=1.5, trace=path, requests=4), 4, np.random.default_rng(0))
    assert due_s.tolist() == pytest.approx([0, 0.5, 0.5, 2])
    with pytest.raises(ConfigError, match="has 4 requests, 5 were asked"):
        due_times_s(LoadPoint(rate=1.5, trace=path, requests=5), 5, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"concurrency": 1, "steps": [1, 2]}, "either concurrency"),
        ({"concurrency": 1, "trace": "a"}, "a closed loop has none"),
        ({"rate": 1, "ramp_s": 3}, "ramp_s belongs to a concurrency"),
        ({"rate": 1, "arrivals": "gamma"}, "belong together"),
        ({"rate": 1, "burstiness": 2}, "belong together"),
        ({"rate": 1, "trace": "a", "arrivals": "poisson"}, "brings its own arrivals"),
        ({"rate": 3, "steps": [1, 2]}, "highest of the steps"),
        ({"steps": [1]}, "at least 2 items"),
    ],
)
def test_arrivals_that_contradict_each_other_are_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LoadPoint.model_validate({"requests": 3, **data})
