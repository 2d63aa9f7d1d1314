from typing import Any

import pytest

from autotune.search.twin import Twin, twin_of
from autotune.simulator.profile import read_profile
from autotune.slo import parse_ceiling
from autotune.space import LauncherKind
from autotune.study import Study
from tests.support.trials import STUDY

FLAGS: dict[str, Any] = {
    "chunked-prefill-size": 4096,
    "max-running-requests": 64,
    "mem-fraction-static": 0.8,
    "schedule-policy": "fcfs",
}


def _study(**changes: Any) -> Study:
    return STUDY.model_copy(update={"space": STUDY.space.model_copy(update=changes)})


def _twin() -> Twin:
    twin = twin_of(_study(launcher=LauncherKind.PROCESS))
    assert twin is not None
    return twin


def test_only_a_launcher_that_is_not_the_simulator_has_a_twin() -> None:
    assert twin_of(STUDY) is None
    assert twin_of(_study(launcher=LauncherKind.DOCKER, profile=None)) is None


def test_it_tells_objectives_and_ceilings_in_the_units_of_a_trial() -> None:
    prediction = _twin().predict(FLAGS)

    assert prediction.values is not None
    assert 100 < prediction.values[0] < 10_000
    assert list(prediction.constraints) == [parse_ceiling("ttft p95 < 1s at concurrency 4")["text"]]
    assert -1 <= prediction.constraints["ttft p95 < 1s at concurrency 4"] < 0
    assert prediction.room > 1


def test_a_candidate_is_predicted_once() -> None:
    twin = _twin()

    assert twin.predict(FLAGS) is twin.predict(dict(reversed(FLAGS.items())))


def test_more_memory_for_the_pool_leaves_less_room_and_hides_no_value() -> None:
    twin = _twin()
    tight = twin.predict({**FLAGS, "mem-fraction-static": 0.999})

    assert tight.room < 0 < twin.predict(FLAGS).room
    assert tight.values is not None


@pytest.mark.parametrize("flags", [{"mem-fraction-static": 0.1}, {"chunked-prefill-size": "many"}])
def test_what_cannot_start_has_no_value_and_no_room(flags: dict[str, Any]) -> None:
    prediction = _twin().predict({**FLAGS, **flags})

    assert prediction.values is None
    assert prediction.room < 0


def test_it_has_no_noise_of_its_own() -> None:
    profile = read_profile("llama-8b-1xh100")

    one, other = (Twin(profile, STUDY.space, STUDY.slo).predict(FLAGS) for _ in range(2))

    assert one == other
