"""A verdict is wrong no more often than stated, also where requests are slow together and looks repeat."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autotune.interval import autocorrelation_time
from autotune.metrics import Samples
from autotune.slo import ERROR_RATE, LOOKS, Ceiling, Decision
from autotune.slo.verdict import decide_share

CEILING = Ceiling.model_validate("ttft p95 < 1s at concurrency 4")
REQUESTS, STUDIES = 250, 600
QUANTILE = 1.6448536269514722
"""The 95th percentile of the normal distribution."""


def independent(generator: np.random.Generator) -> NDArray[np.float64]:
    return generator.normal(size=REQUESTS)


def in_batches(generator: np.random.Generator) -> NDArray[np.float64]:
    """Eight requests are prefilled together and wait equally long."""
    shift = int(generator.integers(8))
    return np.repeat(generator.normal(size=REQUESTS // 8 + 2), 8)[shift : shift + REQUESTS]


def in_a_queue(generator: np.random.Generator) -> NDArray[np.float64]:
    """Each wait resembles the one before."""
    noise, waits = generator.normal(size=REQUESTS), np.empty(REQUESTS)
    last = generator.normal()
    for index in range(REQUESTS):
        last = waits[index] = 0.8 * last + 0.6 * noise[index]
    return waits


def decided(draw: Callable[[np.random.Generator], NDArray[np.float64]], shift: float, seed: int) -> Decision:
    """What a load point is found to be after as many looks as it takes; 0 is a p95 at the limit exactly."""
    generator = np.random.default_rng(seed)
    seen = np.empty(0)
    decision = Decision.UNDECIDED
    for _ in range(LOOKS):
        seen = np.append(seen, draw(generator))
        ttft_s = np.exp((seen - QUANTILE) / 4 + shift)
        share = Samples(ttft_s, np.arange(len(ttft_s))).share_over(CEILING.limit, 95.0)
        decision = decide_share(CEILING, share, ERROR_RATE / LOOKS)
        if decision is not Decision.UNDECIDED:
            break
    return decision


@pytest.mark.parametrize("draw", [independent, in_batches, in_a_queue])
def test_at_the_limit_either_claim_is_made_no_more_often_than_stated(
    draw: Callable[[np.random.Generator], NDArray[np.float64]],
) -> None:
    decisions = [decided(draw, 0.0, seed) for seed in range(STUDIES)]

    most = ERROR_RATE + 2 * np.sqrt(ERROR_RATE * (1 - ERROR_RATE) / STUDIES)
    assert decisions.count(Decision.MET) / STUDIES <= most
    assert decisions.count(Decision.MISSED) / STUDIES <= most


@pytest.mark.parametrize("draw", [independent, in_batches, in_a_queue])
@pytest.mark.parametrize(("shift", "truth"), [(-0.5, Decision.MET), (0.5, Decision.MISSED)])
def test_far_from_the_limit_most_studies_are_decided(
    draw: Callable[[np.random.Generator], NDArray[np.float64]], shift: float, truth: Decision
) -> None:
    assert [decided(draw, shift, seed) for seed in range(100)].count(truth) >= 75


def test_a_limit_that_nothing_comes_near_is_met_however_clumped_the_slowest_are() -> None:
    tpot_s = np.full(200, 0.020)
    tpot_s[90:99] = 0.022  # one burst holds all of the slowest

    def found(limit_s: float) -> Decision:
        share = Samples(tpot_s, np.arange(200)).share_over(limit_s, 95.0)
        return decide_share(CEILING, share, ERROR_RATE / LOOKS)

    assert found(0.200) is Decision.MET
    assert found(0.023) is Decision.UNDECIDED


def test_the_autocorrelation_time_is_the_size_of_a_batch() -> None:
    generator = np.random.default_rng(3)
    waves = np.repeat(generator.normal(size=4000), 5)

    assert autocorrelation_time(waves) == pytest.approx(5, rel=0.1)
    assert autocorrelation_time(generator.normal(size=4000)) == pytest.approx(1, abs=0.1)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.5]), max_size=60))
def test_a_series_is_never_worth_more_than_its_length(values: list[float]) -> None:
    assert 1 <= autocorrelation_time(np.array(values)) <= max(len(values), 1)
