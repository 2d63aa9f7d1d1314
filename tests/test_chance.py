"""A load is given up only if no course that its pace allows makes it worth as much as the best so far."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.metrics import Metric, measure
from autotune.request import RequestRecord
from autotune.slo import Course
from tests.support.records import steady_records

CONCURRENCY = 4
REQUESTS = 200


def _worth(records: Sequence[RequestRecord]) -> float:
    return measure(records, concurrency=CONCURRENCY).rate(Metric.OUTPUT_THROUGHPUT)


def _course(records: Sequence[RequestRecord], *, to_beat: float = 0.0) -> Course:
    """The course of a model whose load these are."""
    sent_s = np.sort([record.scheduled_s for record in records])
    return Course(sent_s, _worth(records), to_beat, noise_ratio=0.02)


def _noisy(level_s: float, seed: int, *, count: int = REQUESTS, grows: float = 0.0) -> list[RequestRecord]:
    """Requests that take so long, by 10 % more or less, and ever longer by as much as `grows` in all."""
    generator = np.random.default_rng(seed)
    trend = np.linspace(1, 1 + grows, count - CONCURRENCY)
    return steady_records(
        list(level_s * trend * generator.uniform(0.9, 1.1, count - CONCURRENCY)), concurrency=CONCURRENCY
    )


@given(
    seed=st.integers(0, 10_000),
    slower=st.floats(0.5, 4.0),
    grows=st.floats(0.0, 1.0),
    share=st.floats(0.35, 0.95),
)
def test_a_load_that_is_worth_as_much_as_the_best_is_never_given_up_whatever_the_models_level(
    seed: int, slower: float, grows: float, share: float
) -> None:
    own = _noisy(slower, seed, grows=grows)
    course = _course(_noisy(1.0, seed + 1, grows=grows), to_beat=_worth(own))

    most = course.most(own[: int(share * REQUESTS)], concurrency=CONCURRENCY)

    assert most is not None
    assert not course.is_too_little(most)


def test_the_bound_comes_nearer_the_more_was_seen() -> None:
    own, course = _noisy(2.0, 1), _course(_noisy(1.0, 2))

    bounds = [course.most(own[:count], concurrency=CONCURRENCY) for count in (80, 120, 160, 195)]

    assert all(bound is not None for bound in bounds)
    assert bounds == sorted(bounds, key=lambda bound: -(bound or 0))
    assert bounds[-1] == pytest.approx(_worth(own), rel=0.02)


def test_too_few_requests_or_all_of_them_tell_nothing() -> None:
    own = _noisy(2.0, 1)
    course = _course(_noisy(1.0, 2))

    assert course.most(own[:66], concurrency=CONCURRENCY) is None
    assert course.most(own[:67], concurrency=CONCURRENCY) is not None
    assert course.most(own[:67], concurrency=40) is None
    assert course.most(own, concurrency=CONCURRENCY) is None


def test_a_model_that_sends_everything_at_once_has_no_pace() -> None:
    course = replace(_course(_noisy(1.0, 2)), sent_s=np.zeros(REQUESTS))

    assert course.most(_noisy(2.0, 1)[:100], concurrency=CONCURRENCY) is None


def test_what_lies_below_the_best_by_no_more_than_the_noise_is_not_too_little() -> None:
    course = _course(_noisy(1.0, 2), to_beat=100.0)

    assert [course.is_too_little(worth) for worth in (97.9, 98.1, 101.0)] == [True, False, False]
