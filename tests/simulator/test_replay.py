from typing import Any

import numpy as np
import pytest

from autotune.load.arrivals import LoadPoint
from autotune.load.workload import Workload, offer
from autotune.metrics import Metric, measure
from autotune.request import OfferedLoad, Request
from autotune.search.calibration.case import shown_by, statistics
from autotune.simulator.arguments import to_argv
from autotune.simulator.profile import Profile
from autotune.simulator.rehearsal import Rehearsal, rehearse
from autotune.space import FlagValue
from tests.support.simulated import DEEPSEEK, LLAMA, equal_requests, profile_without_noise

WORKLOAD = Workload.model_validate(
    {"input_tokens": {"uniform": [512, 1536]}, "output_tokens": {"uniform": [2, 300]}, "seed": 7}
)
LOADS: list[dict[str, Any]] = [
    {"concurrency": 40, "requests": 120},
    {"concurrency": 1, "requests": 8},
    {"concurrency": 30, "requests": 90, "ramp_s": 20},
    {"rate": 2, "requests": 60},
    {"rate": 50, "requests": 100},
]
FLAGS: list[tuple[str, dict[str, FlagValue]]] = [
    (LLAMA, {"max-total-tokens": 40000}),
    (LLAMA, {"schedule-policy": "lpm", "cuda-graph-max-bs-decode": 16, "chunked-prefill-size": 512}),
    (DEEPSEEK, {"enable-mixed-chunk": True}),
]


def _rehearsed(profile: Profile, load: OfferedLoad, flags: dict[str, FlagValue]) -> Rehearsal:
    rehearsal = rehearse(profile, to_argv({"model-path": "m", **flags}), [load])
    assert rehearsal is not None
    return rehearsal


@pytest.mark.parametrize("point", LOADS, ids=str)
@pytest.mark.parametrize(("name", "flags"), FLAGS, ids=str)
def test_a_replay_gives_the_times_of_the_simulation(
    name: str, flags: dict[str, FlagValue], point: dict[str, Any]
) -> None:
    profile, load_point = profile_without_noise(name), LoadPoint.model_validate(point)
    rehearsal = _rehearsed(profile, offer(WORKLOAD, load_point, salt=0), flags)

    served = rehearsal.schedules[0].replay(profile.step, profile.experts)

    records = rehearsal.results[0].records
    first_s = np.array([record.first_token_s for record in records])
    last_s = np.array([record.chunk_times_s[-1] for record in records])
    np.testing.assert_allclose(served.sent_s + served.ttft_s, first_s, atol=1e-9)
    np.testing.assert_allclose(served.sent_s + served.e2e_s, last_s, atol=1e-9)
    shown = shown_by(measure(records, concurrency=load_point.concurrency).summary())
    found = statistics(served, shown)
    off = [metric is not Metric.OUTPUT_THROUGHPUT for metric, _ in shown]
    np.testing.assert_allclose(found[off], np.array(list(shown.values()))[off], rtol=1e-9)
    assert found[0] == pytest.approx(shown[Metric.OUTPUT_THROUGHPUT, ""], rel=0.02)


def test_a_replay_with_other_constants_is_the_simulation_with_them_where_only_tokens_decide() -> None:
    slow = profile_without_noise(decode_fixed_s=0.012, extend_token_s=4e-5, eager_decode_ratio=1.6)
    load = OfferedLoad(equal_requests(80, 900, 60), 40)
    flags: dict[str, FlagValue] = {"cuda-graph-max-bs-decode": 16}

    replayed = _rehearsed(profile_without_noise(), load, flags).schedules[0].replay(slow.step, None)

    simulated = _rehearsed(slow, load, flags).schedules[0].replay(slow.step, None)
    np.testing.assert_allclose(replayed.ttft_s, simulated.ttft_s)
    np.testing.assert_allclose(replayed.e2e_s, simulated.e2e_s)


def test_rates_and_extremes_of_a_replay_are_those_of_its_window() -> None:
    profile = profile_without_noise()
    served = (
        _rehearsed(profile, OfferedLoad(equal_requests(60, 500, 20), 20), {})
        .schedules[0]
        .replay(profile.step, None)
    )

    rates = statistics(
        served,
        [
            (Metric.OUTPUT_THROUGHPUT, ""),
            (Metric.REQUEST_THROUGHPUT, ""),
            (Metric.TOTAL_THROUGHPUT, ""),
        ],
    )
    assert rates[0] == pytest.approx(20 * rates[1], rel=0.6)
    assert rates[2] == pytest.approx(rates[0] + 500 * rates[1])
    least, median, most = statistics(
        served, [(Metric.TTFT, "min"), (Metric.TTFT, "p50"), (Metric.TTFT, "max")]
    )
    assert 0 < least <= median <= most


def test_a_load_of_single_tokens_has_no_time_per_token() -> None:
    profile = profile_without_noise()
    load = OfferedLoad([Request(0, 100, 1)], 1)

    served = _rehearsed(profile, load, {}).schedules[0].replay(profile.step, None)

    assert statistics(served, [(Metric.TPOT, "mean")])[0] == 0
    assert not len(served.tpot_s)


def test_a_load_that_is_refused_has_an_empty_schedule() -> None:
    load = OfferedLoad([Request(0, 500_000, 1)], 1)

    served = (
        _rehearsed(profile_without_noise(), load, {}).schedules[0].replay(profile_without_noise().step, None)
    )

    assert served.busy_s == 0
    assert statistics(served, [(Metric.OUTPUT_THROUGHPUT, "")])[0] == 0


def test_what_cannot_start_is_not_rehearsed() -> None:
    argv = to_argv({"model-path": "m", "mem-fraction-static": 0.1})

    assert rehearse(profile_without_noise(), argv, []) is None


def test_a_replay_knows_over_how_many_groups_the_context_is_spread() -> None:
    profile = profile_without_noise(DEEPSEEK, decode_context_s=1e-6)
    flags: dict[str, FlagValue] = {"tp-size": 16, "dp-size": 4, "enable-dp-attention": True}
    rehearsal = _rehearsed(profile, OfferedLoad(equal_requests(40, 900, 60), 20), flags)

    served = rehearsal.schedules[0].replay(profile.step, profile.experts)

    ended_s = [record.chunk_times_s[-1] for record in rehearsal.results[0].records]
    np.testing.assert_allclose(served.sent_s + served.e2e_s, ended_s, atol=1e-9)
