"""When a confirmation goes on: until the answer is known as well as was asked, and no surer than it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.metrics import measure
from autotune.record import Role, TrialRecord
from autotune.search.answer import conclude
from autotune.search.budget import Budget
from autotune.search.confirmation import Contest, NumberedTrial
from autotune.search.rounds import MOST_ROUNDS, complete_rounds, gain_error_rate, rounds_due
from autotune.slo import judge
from tests.support.records import steady_records
from tests.support.trials import STUDY, measured

BUDGET = Budget(precision=0.02)
OWN, RIVAL = measured(100.0, role=Role.BASELINE), measured(120.0)


def contest(*launches: TrialRecord, baseline: bool = True, finalists: bool = True) -> Contest:
    own = NumberedTrial(0, OWN) if baseline else None
    rivals = (NumberedTrial(1, RIVAL),) if finalists else ()
    return Contest(own, rivals, (*([own] if own else []), *rivals), launches)


LAUNCH = {ttft_s: measured(1.0, ttft_s=ttft_s, role=Role.CONFIRMATION) for ttft_s in (0.5, 5.0)}


def fresh(confirms: int, *values: float, ttft_s: float = 0.5) -> list[TrialRecord]:
    return [
        LAUNCH[ttft_s].model_copy(update={"objectives": (value,), "confirms": confirms}) for value in values
    ]


NOISY = [*fresh(0, 100.0, 104.0), *fresh(1, 120.0, 126.0)]
QUIET = [*fresh(0, 100.0, 100.1), *fresh(1, 120.0, 120.1)]


def test_without_a_precision_the_rounds_are_those_asked_for() -> None:
    assert rounds_due(contest(*NOISY), STUDY.slo, Budget(rounds=3)) == 3


def test_one_round_more_follows_while_the_gain_is_known_less_well_than_asked() -> None:
    assert rounds_due(contest(*NOISY), STUDY.slo, BUDGET) == 3
    assert rounds_due(contest(*QUIET), STUDY.slo, BUDGET) == 2


def test_the_rounds_that_are_always_run_come_first() -> None:
    assert rounds_due(contest(*NOISY[:3]), STUDY.slo, BUDGET) == 2


def test_a_round_that_was_begun_is_completed_whatever_it_shows() -> None:
    assert rounds_due(contest(*QUIET, *fresh(0, 100.0)), STUDY.slo, BUDGET) == 3


@pytest.mark.parametrize("budget", [BUDGET, Budget()])
def test_launches_on_a_node_that_is_gone_are_not_caught_up_with_for_ever(budget: Budget) -> None:
    ahead = [*fresh(0, *[100.0, 104.0] * MOST_ROUNDS), *fresh(1, 120.0, 126.0)]

    assert rounds_due(contest(*ahead), STUDY.slo, budget) <= MOST_ROUNDS


def test_it_ends_after_so_many_rounds_at_the_latest() -> None:
    values = [100.0, 130.0] * (MOST_ROUNDS // 2)
    launches = [*fresh(0, *values), *fresh(1, *values)]

    assert rounds_due(contest(*launches), STUDY.slo, BUDGET) == MOST_ROUNDS


def test_a_gain_of_what_misses_the_slo_needs_no_precision() -> None:
    launches = [*fresh(0, 100.0, 104.0), *fresh(1, 120.0, 126.0, ttft_s=5.0)]

    assert rounds_due(contest(*launches), STUDY.slo, BUDGET) == 2


@pytest.mark.parametrize("missing", ["baseline", "finalists"])
def test_without_somebody_to_compare_there_is_no_gain_to_know(missing: str) -> None:
    alone = contest(*fresh(0, 100.0, 104.0), *fresh(1, 120.0, 126.0), **{missing: False})

    assert rounds_due(alone, STUDY.slo, BUDGET) == 2


LIKELY = [*fresh(0, 100.0, 104.0), *fresh(1, 112.0, 117.0)]
"""A gain of 12 % that two rounds do not prove."""
DOUBTFUL = [*fresh(0, 100.0, 104.0), *fresh(1, 100.5, 104.5)]
ANY_NUMBER = None
_OFTEN_SLOW = measure(steady_records([5.0] * 10 + [0.5] * 190, concurrency=4), concurrency=4)
DOUBT = judge(STUDY.slo, {"concurrency 4": _OFTEN_SLOW})
"""As many requests over the limit as are allowed: however often it is launched, nobody knows."""


def test_a_gain_for_want_of_proof_is_launched_on_with_what_the_search_left() -> None:
    assert rounds_due(contest(*LIKELY), STUDY.slo, Budget(), unspent=ANY_NUMBER) == 4
    assert rounds_due(contest(*LIKELY), STUDY.slo, Budget(), unspent=30) == 4
    assert rounds_due(contest(*LIKELY), STUDY.slo, Budget(), unspent=0) == 2


@pytest.mark.parametrize(("unspent", "rounds"), [(1, 2), (2, 3), (3, 3), (6, 5), (8, 4), (12, 4)])
def test_it_is_doubled_unless_nearly_all_that_is_left_would_be_spent(unspent: int, rounds: int) -> None:
    assert rounds_due(contest(*LIKELY), STUDY.slo, Budget(), unspent=unspent) == rounds


def test_a_gain_that_is_proven_needs_no_more_rounds() -> None:
    assert rounds_due(contest(*QUIET), STUDY.slo, Budget(), unspent=30) == 2


def test_a_gain_that_could_not_be_proven_with_all_that_is_left_is_not_tried() -> None:
    assert rounds_due(contest(*DOUBTFUL), STUDY.slo, Budget(), unspent=30) == 2


def test_between_two_looks_nothing_is_decided() -> None:
    sure = [*fresh(0, 100.0, 100.1, 100.0), *fresh(1, 120.0, 120.1, 120.0)]

    assert rounds_due(contest(*sure), STUDY.slo, Budget(), unspent=30) == 4


def test_launches_that_were_added_already_are_spent() -> None:
    four = [*fresh(0, 100.0, 104.0, 100.0, 104.0), *fresh(1, 105.0, 109.0, 105.0, 109.0)]

    assert rounds_due(contest(*four), STUDY.slo, Budget(), unspent=4) == 4
    assert rounds_due(contest(*four), STUDY.slo, Budget(), unspent=12) == 8


def test_a_finalist_of_whom_nobody_knows_whether_it_meets_the_slo_is_launched_on() -> None:
    missed = fresh(0, 100.0, 100.1, ttft_s=5.0)
    doubted = [each.model_copy(update={"verdict": DOUBT}) for each in fresh(1, 120.0, 120.1)]

    assert rounds_due(contest(*missed, *doubted), STUDY.slo, Budget(), unspent=30) == 4
    assert rounds_due(contest(*missed, *doubted), STUDY.slo, Budget()) == 2


def test_what_misses_the_slo_is_not() -> None:
    launches = [*fresh(0, 100.0, 104.0, ttft_s=5.0), *fresh(1, 120.0, 126.0, ttft_s=5.0)]

    assert rounds_due(contest(*launches), STUDY.slo, Budget(), unspent=30) == 2


@given(unspent=st.integers(0, 60) | st.none(), rounds=st.integers(2, 5))
def test_all_looks_together_spend_the_error_rate_and_the_launches_and_no_more(
    unspent: int | None, rounds: int
) -> None:
    budget, looks = Budget(rounds=rounds), [rounds]
    spent = 0.0
    while True:
        own, doubted = fresh(0, *[100.0] * looks[-1], ttft_s=5.0), fresh(1, *[120.0] * looks[-1])
        done = contest(*own, *(each.model_copy(update={"verdict": DOUBT}) for each in doubted))
        spent += gain_error_rate(done, budget, unspent=unspent)
        due = rounds_due(done, STUDY.slo, budget, unspent=unspent)
        if due == looks[-1]:
            break
        looks.append(due)

    assert spent == pytest.approx(0.05)
    assert 2 * (looks[-1] - rounds) <= (MOST_ROUNDS * 2 if unspent is None else unspent)


def test_looking_again_spends_ever_less_and_never_more_than_the_whole() -> None:
    rates = [
        gain_error_rate(contest(*fresh(0, *[1.0] * count), *fresh(1, *[1.0] * count)), BUDGET)
        for count in range(2, 30)
    ]

    assert rates == sorted(rates, reverse=True)
    assert sum(rates) <= 0.05
    assert gain_error_rate(contest(*NOISY), Budget()) == 0.05


@pytest.mark.parametrize(("budget", "noise"), [(BUDGET, 0.01), (Budget(), 0.05)])
def test_intervals_with_which_it_ended_hold_the_gain_as_often_as_stated(budget: Budget, noise: float) -> None:
    generator = np.random.default_rng(5)
    studies, held = 200, 0
    for _ in range(studies):
        launches: list[TrialRecord] = []
        while complete_rounds(contest(*launches)) < rounds_due(
            contest(*launches), STUDY.slo, budget, unspent=30
        ):
            for number, true in ((0, 100.0), (1, 110.0)):
                launches += fresh(number, true * float(np.exp(generator.normal(0, noise))))
        done = contest(*launches)
        rate = gain_error_rate(done, budget, unspent=30)
        gain = conclude(done, STUDY.slo, gain_error_rate=rate).finalists[0].gain
        held += gain is not None and gain.low <= 0.1 <= gain.high

    assert held / studies >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / studies)
