"""When a confirmation goes on: until the gain is known as well as was asked, and no surer than it is."""

import numpy as np
import pytest

from autotune.record import Role, TrialRecord
from autotune.search.answer import conclude
from autotune.search.budget import Budget
from autotune.search.confirmation import Contest, NumberedTrial
from autotune.search.rounds import MOST_ROUNDS, complete_rounds, gain_error_rate, rounds_due
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


def test_looking_again_spends_ever_less_and_never_more_than_the_whole() -> None:
    rates = [
        gain_error_rate(contest(*fresh(0, *[1.0] * count), *fresh(1, *[1.0] * count)), BUDGET)
        for count in range(2, 30)
    ]

    assert rates == sorted(rates, reverse=True)
    assert sum(rates) <= 0.05
    assert gain_error_rate(contest(*NOISY), Budget()) == 0.05


def test_intervals_that_were_narrow_enough_hold_the_gain_as_often_as_stated() -> None:
    generator = np.random.default_rng(5)
    studies, held = 200, 0
    for _ in range(studies):
        launches: list[TrialRecord] = []
        while complete_rounds(contest(*launches)) < rounds_due(contest(*launches), STUDY.slo, BUDGET):
            for number, true in ((0, 100.0), (1, 110.0)):
                launches += fresh(number, true * float(np.exp(generator.normal(0, 0.01))))
        done = contest(*launches)
        answer = conclude(done, STUDY.slo, gain_error_rate=gain_error_rate(done, BUDGET))
        gain = answer.finalists[0].gain
        held += gain is not None and gain.low <= 0.1 <= gain.high

    assert held / studies >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / studies)
