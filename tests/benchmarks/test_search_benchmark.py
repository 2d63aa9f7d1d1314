from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from autotune.search.stopping import FEWEST_MEASURED
from tests.benchmarks.search import synthetic
from tests.benchmarks.search.methods import Method, methods
from tests.benchmarks.search.problem import Launch, Problem
from tests.benchmarks.search.study import Stop, Study, run
from tests.benchmarks.search.table import header, reached, row

STUDY = Study(
    launches_5=3.0,
    launches_2=6.0,
    minutes_5=10.0,
    minutes_2=20.0,
    exported=(0.97, 0.99),
    stopped=Stop(12, 0.98, 0),
    crashes=1,
    misses=False,
    is_worse=False,
    ask_s=0.1,
)


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A function of which nobody asks for more than a rough optimum."""
    return replace(synthetic.problem(), candidates=500)


def test_every_seed_of_a_method_is_a_study_of_its_own_and_can_be_repeated(problem: Problem) -> None:
    gp = methods()["gp"]

    one, again, other = (run(problem, gp, seed, 12, (6, 12)) for seed in (3, 3, 4))

    assert replace(one, ask_s=0.0) == replace(again, ask_s=0.0)
    assert one.exported != other.exported
    assert len(row("gp", [one, other])) == len(header((6, 12)))


def _method(*gains: float | None) -> Method:
    """Return what launches the baseline again and again, and expects these gains."""

    def launches(problem: Problem, _seed: int) -> Iterator[Launch]:
        truth = problem.truth(problem.baseline)
        for gain in gains:
            yield Launch(problem.baseline, truth.value, truth.excess, truth, gain=gain)

    return launches


def test_a_study_stops_at_the_first_launch_that_promises_too_little_after_enough_of_them(
    problem: Problem,
) -> None:
    early = [None, 0.001, *[0.5] * (FEWEST_MEASURED - 1), 0.005, 0.5]
    stopped, short, silent = (
        run(problem, _method(*gains), 0, 40, (40,)).stopped for gains in (early, early[:5], [None, None])
    )

    assert stopped is not None
    assert stopped.launches == FEWEST_MEASURED + 1
    assert short is not None
    assert short.launches == 5
    assert silent is None


def test_what_was_to_be_reached_is_said_with_what_was() -> None:
    slow = replace(STUDY, minutes_5=100.0)
    lost = replace(STUDY, launches_2=np.inf, exported=(0.5, 0.9))
    lines = "\n".join(
        reached({"gp + twin": [lost], "optuna TPE": [slow], "gp": [STUDY], "gp + twin off by 2": [lost]})
    )

    assert "launches to 5 %, median: 3, at most 4: reached" in lines
    assert "launches to 2 %, median: inf, at most 8: NOT reached" in lines
    assert "minutes to 5 % against optuna TPE: 0.1, at most 0.25: reached" in lines
    assert "less than the plain GP, worst stop: 0.485, at most 0.1: NOT reached" in lines


def test_a_method_that_does_not_know_what_is_left_has_no_stop() -> None:
    assert row("random", [replace(STUDY, stopped=None)]).count(" -") == 2
    assert "12     2.0%/2.0%" in row("gp", [STUDY])
