import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autotune.document import read_document
from autotune.errors import ConfigError
from autotune.space import Candidate, Choices, FloatRange, IntRange, SearchSpace


def space_of(**changes: Any) -> SearchSpace:
    data = {
        "version": "0.5.23",
        "model": "m",
        "tune": {"chunked-prefill-size": {"int": [64, 256], "multiple_of": 64}},
    }
    return SearchSpace.model_validate(data | changes)


@given(
    low=st.integers(-1000, 1000),
    width=st.integers(0, 1000),
    step=st.integers(1, 50),
    value=st.floats(-3000, 3000),
)
def test_a_snapped_whole_number_is_an_allowed_one(low: int, width: int, step: int, value: float) -> None:
    if (low + width) // step * step < low:
        return
    tunable = IntRange.model_validate({"int": [low, low + width], "multiple_of": step})

    snapped = tunable.snap(value)

    assert low <= snapped <= low + width
    assert snapped % step == 0
    assert tunable.contains(snapped)


@given(value=st.floats(0, 2), step=st.sampled_from([0.005, 0.05, 0.1, None]))
def test_a_snapped_fraction_is_an_allowed_one(value: float, step: float | None) -> None:
    tunable = FloatRange.model_validate({"float": [0.7, 0.92], "step": step})

    snapped = tunable.snap(value)

    assert 0.7 <= snapped <= 0.92
    assert tunable.contains(snapped)
    assert len(str(snapped)) <= 6


def test_ranges_count_their_values() -> None:
    assert IntRange.model_validate({"int": [64, 256], "multiple_of": 64}).count() == 4
    assert FloatRange.model_validate({"float": [0.7, 0.9], "step": 0.05}).count() == 5
    assert math.isinf(FloatRange.model_validate({"float": [0.7, 0.9]}).count())
    assert Choices.model_validate({"choices": ["a", "b"]}).count() == 2


@pytest.mark.parametrize(
    ("tunable", "message"),
    [
        ({"int": [9, 3]}, "reversed: write [3, 9]"),
        ({"float": [0.9, 0.3]}, "reversed"),
        ({"int": [0, 3], "scale": "log"}, "above 0"),
        ({"int": [65, 127], "multiple_of": 64}, "no multiple of 64"),
        ({"choices": [1, 1]}, "twice"),
        ({"choices": []}, "at least 1"),
        ({"integer": [1, 2]}, "a tunable flag is"),
        ({"int": [1, 2], "choices": [1]}, "a tunable flag is"),
        ({"int": [1.5, 2]}, "integer"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(tunable: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace("[", r"\[")):
        space_of(tune={"x": tunable})


FAULTY = """\
version: "0.5.23"
model: m
nodes:
  - {name: a}
  - {name: a}
flags:
  chunked-prefill-size: 64
tune:
  chunked-prefill-size: {int: [64, 256]}
  first:
    int: [1, 2]
    when: second == 1
  second: {int: [1, 2]}
  third:
    int: [1, 2]
    when: 1 +
require:
  - chunked_prefill_size > 1
  - chunked_prefil_size > 1
  - import os
baseline:
  frist: 1
"""


def test_parts_that_contradict_each_other_are_named_with_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(FAULTY)

    with pytest.raises(ConfigError) as caught:
        read_document(path).to_model(SearchSpace)

    places = [(problem.line, problem.key, problem.remedy) for problem in caught.value.problems]
    assert places == [
        (9, "tune.chunked-prefill-size", "Keep one of the two."),
        (22, "baseline.frist", "Did you mean 'first'?"),
        (19, "require.1", "Did you mean 'chunked_prefill_size'?"),
        (20, "require.2", None),
        (12, "tune.first.when", "Only fixed flags and flags tuned above it may be named."),
        (16, "tune.third.when", None),
        (5, "nodes.1.name", "Give every node a name of its own."),
    ]
    assert "got" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"version": 0.5}, "in quotes"), ({"require": ["unknown > 1"]}, "names no flag of this space")],
)
def test_a_space_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        space_of(**changes)


def test_a_condition_decides_whether_a_flag_takes_part() -> None:
    space = space_of(
        tune={
            "policy": {"choices": ["a", "b"]},
            "depth": {"int": [1, 3], "when": "policy == 'b'"},
        }
    )

    assert space.is_active("depth", {"policy": "b"})
    assert not space.is_active("depth", {"policy": "a"})
    assert not space.is_active("depth", {})


def test_a_requirement_speaks_of_fixed_and_tuned_flags() -> None:
    space = space_of(flags={"tp-size": 2}, require=["chunked_prefill_size >= 64 * tp_size"])

    assert space.violated(Candidate.of({"chunked-prefill-size": 64})) == space.require[0]
    assert space.violated(Candidate.of({"chunked-prefill-size": 128})) is None
    assert space.violated(Candidate.of({})) is None


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers() | st.booleans() | st.text()))
def test_a_fingerprint_ignores_the_order_of_the_flags(flags: dict[str, Any]) -> None:
    backwards = dict(reversed(flags.items()))

    assert Candidate.of(flags) == Candidate.of(backwards)
    assert Candidate.of(flags).fingerprint == Candidate.of(backwards).fingerprint


def test_a_candidate_prints_its_flags() -> None:
    assert str(Candidate.of({"b": 1, "a": True})) == "a=True b=1"
    assert str(Candidate.of({})) == "(engine defaults)"


@pytest.mark.parametrize("path", sorted(Path("search_spaces").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_space_loads(path: Path) -> None:
    space = read_document(path).to_model(SearchSpace)

    assert space.size > 100


def test_a_python_module_can_be_preloaded_and_another_command_not() -> None:
    tune = {"chunked-prefill-size": {"int": [64, 8192]}}
    known = {"version": "0.5.23", "model": "m", "launcher": "process", "tune": tune, "preload": True}
    assert SearchSpace.model_validate(known).preload
    assert SearchSpace.model_validate({**known, "command": ["python3", "-m", "sglang.launch_server"]}).preload
    for command in (["sglang", "serve"], ["python3", "-m", "sglang.launch_server", "--trust-remote-code"]):
        with pytest.raises(ValidationError, match="preload imports a Python module, and the command is"):
            SearchSpace.model_validate({**known, "command": command})
