from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autotune.search.gp.encoding import Encoding

SPACE: dict[str, BaseDistribution] = {
    "chunk": IntDistribution(512, 16384, log=True),
    "slots": IntDistribution(8, 512, step=8),
    "fraction": FloatDistribution(0.6, 0.96, step=0.005),
    "caution": FloatDistribution(0.3, 1.5, log=True),
    "policy": CategoricalDistribution(["lpm", "fcfs", 3]),
    "only": FloatDistribution(2.0, 2.0, log=True),
}


def _lies_in(values: dict[str, Any]) -> bool:
    return all(
        distribution._contains(distribution.to_internal_repr(values[name]))
        for name, distribution in SPACE.items()
    )


@given(st.integers(0, 2**32 - 1))
@example(124)
def test_every_drawn_candidate_lies_in_its_space_and_is_found_again(seed: int) -> None:
    encoding, generator = Encoding(SPACE), np.random.default_rng(seed)
    row = encoding.spread(1, generator)[0]

    rows = encoding.values(np.vstack((row, encoding.around(row, 5, generator))))

    assert all(map(_lies_in, rows))
    found = encoding.values(encoding.units(rows))
    exact = [name for name in SPACE if name != "caution"]  # a logarithm's way back rounds its last digit
    assert [[row[name] for name in exact] for row in found] == [[row[name] for name in exact] for row in rows]
    assert [row["caution"] for row in found] == pytest.approx([row["caution"] for row in rows])


def test_a_parameter_that_takes_no_part_is_left_out_and_lies_in_the_middle() -> None:
    encoding = Encoding(SPACE)
    units = encoding.units([{"chunk": 512}])

    assert encoding.values(units) == [{"chunk": 512}]
    assert encoding.columns(units).tolist() == [[0.0, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.5]]
    assert encoding.groups.tolist() == [0, 1, 2, 3, 4, 4, 4, 5]


def test_what_takes_no_part_in_a_trial_is_drawn_for_its_neighbours() -> None:
    encoding = Encoding(SPACE)

    near = encoding.around(encoding.units([{"chunk": 512}])[0], 20, np.random.default_rng(0))

    assert not np.isnan(near).any()


def test_two_choices_are_about_as_far_apart_as_a_numbers_ends() -> None:
    encoding = Encoding({"policy": SPACE["policy"]})
    one, other = encoding.columns(encoding.units([{"policy": "lpm"}, {"policy": 3}]))

    assert 0.95 < np.linalg.norm(one - other) < 1.0
    assert encoding.knows({"policy": 3})
    assert not encoding.knows({"chunk": 3})
