import re

from autotune.outlook import outlook
from autotune.space import SearchSpace
from tests.support.trials import STUDY


def _with(**changes: object) -> str:
    space = SearchSpace.model_validate(STUDY.space.model_dump(by_alias=True) | changes)
    return outlook(STUDY.model_copy(update={"space": space}))


def test_an_outlook_tells_the_launch_the_defaults_and_the_size_of_the_space() -> None:
    text = _with()

    assert "local: python3 -m sglang.launch_server --model-path m" in text
    assert "chunked-prefill-size: 8192" in text
    assert "the space holds" in text
    assert "over 4 flags" in text


def test_a_night_is_counted_in_simulated_launches_and_says_so() -> None:
    assert f"SIMULATED by the profile {STUDY.space.profile}: a trial takes" in _with()
    assert "for the confirmation" in _with()


def test_a_baseline_that_fails_in_the_simulator_is_told() -> None:
    text = _with(flags={"mem-fraction-static": 0.05}, tune={"max-running-requests": {"int": [8, 16]}})

    assert "SIMULATED: the baseline fails" in text


def test_without_a_profile_nothing_is_foreseen() -> None:
    text = _with(profile=None, tune={"schedule-conservativeness": {"float": [0.3, 1.0]}})

    assert "is not foreseen" in text
    assert "infinitely many candidates" in text


def test_slots_are_named_and_multiply_what_a_night_holds() -> None:
    nodes = [{"name": name, "docker": f"ssh://{name}", "gpus": 1} for name in ("n0", "n1")]

    def told(*names: str) -> str:
        keys = {"nodes": [node for node in nodes if node["name"] in names], "nodes_per_engine": 1}
        space = STUDY.space.model_validate(STUDY.space.model_dump(by_alias=True) | keys)
        return outlook(STUDY.model_copy(update={"space": space}))

    (one,), (two,) = (
        re.findall(r"8 hours hold (\d+) launches", text) for text in (told("n0"), told("n0", "n1"))
    )
    assert int(two) == 2 * int(one)
    assert "slots" not in told("n0")
    assert "one launch at a time on each of 2 slots: n0; n1" in told("n0", "n1")
