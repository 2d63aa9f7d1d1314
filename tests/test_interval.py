import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autotune.interval import SeenShare, percentile_interval, pool_shares, share_interval, student_quantile


@given(count=st.integers(1, 500), data=st.data())
def test_the_share_interval_is_clopper_pearsons(count: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, count))
    expected = stats.binomtest(hits, count).proportion_ci(0.95, method="exact")

    interval = share_interval(hits, count, error_rate=0.05)

    assert interval.low == pytest.approx(expected.low, abs=1e-9)
    assert interval.high == pytest.approx(expected.high, abs=1e-9)


def test_no_samples_say_nothing() -> None:
    interval = share_interval(0, 0, error_rate=0.05)

    assert (interval.low, interval.high) == (0.0, 1.0)
    assert math.isinf(percentile_interval(np.empty(0), 95).low)


def test_the_percentile_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    truth = stats.norm.ppf(0.9)
    covered = 0
    for _ in range(400):
        interval = percentile_interval(np.sort(generator.normal(size=200)), 90)
        covered += interval.low <= truth <= interval.high

    assert covered >= 0.93 * 400


def test_a_high_percentile_of_few_samples_has_no_upper_bound() -> None:
    assert math.isinf(percentile_interval(np.arange(20.0), 99).high)


def test_students_quantile_is_the_tables() -> None:
    assert student_quantile(0.975, 4) == pytest.approx(2.776, abs=1e-3)


def test_a_clustered_share_is_never_surer_than_if_nothing_had_been_over() -> None:
    nothing = SeenShare(0.0, 300.0, 300).interval(error_rate=0.05)
    little = SeenShare(1e-4, 70_000.0, 300).interval(error_rate=0.05)
    much = SeenShare(0.05, 70_000.0, 300).interval(error_rate=0.05)

    assert little.high == nothing.high
    assert nothing.high < much.low < 0.05 < much.high


def test_shares_of_several_launches_are_pooled_by_their_weight() -> None:
    pooled = pool_shares([SeenShare(0.1, 30.0, 10), SeenShare(0.0, 10.0, 10)])

    assert pooled.share == pytest.approx(0.075)
    assert (pooled.independent, pooled.clusters) == (40.0, 20)
    assert pool_shares([]) == SeenShare(0.0, 0.0, 0)
    assert pool_shares([]).interval(error_rate=0.05).high == 1.0
