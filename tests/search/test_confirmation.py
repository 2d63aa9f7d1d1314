import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.record import Outcome, Role, TrialRecord
from autotune.search.confirmation import (
    AnswerKind,
    NumberedTrial,
    conclude,
    finalists,
    next_confirmation,
)
from autotune.slo import Decision, Slo
from tests.support.trials import STUDY, failed, measured, numbered

BASELINE = NumberedTrial(0, measured(100.0, role=Role.BASELINE))


def _confirmed(number: int, *values: float, ttft_s: float = 0.5) -> list[TrialRecord]:
    return [measured(value, ttft_s=ttft_s, role=Role.CONFIRMATION, confirms=number) for value in values]


def test_the_finalists_are_the_best_candidates_that_do_not_miss_a_ceiling() -> None:
    trials = numbered(
        BASELINE.record,
        measured(120.0),
        measured(200.0, ttft_s=3.0),
        measured(130.0),
        failed(),
        measured(110.0),
        measured(130.0, same_as=3),
    )

    assert [trial.number for trial in finalists(trials, STUDY.slo, count=2)] == [3, 1]


def test_a_minimised_objective_ranks_the_other_way() -> None:
    data = STUDY.slo.model_dump(exclude={"objective"}) | {"objective": "minimise ttft p50 at concurrency 4"}
    slo = Slo.model_validate(data)

    ranked = finalists(numbered(measured(3.0), measured(1.0), measured(2.0)), slo, count=3)

    assert [trial.number for trial in ranked] == [1, 2, 0]


def test_several_objectives_send_the_ends_of_the_front_first() -> None:
    goals = ["maximise output_throughput at concurrency 4", "minimise ttft p95 at concurrency 4"]
    data = STUDY.slo.model_dump(exclude={"objective"}) | {"objectives": goals}
    slo = Slo.model_validate(data)
    trials = numbered(measured(10.0, 1.0), measured(20.0, 2.0), measured(15.0, 3.0), measured(30.0, 4.0))

    assert [trial.number for trial in finalists(trials, slo, count=2)] == [3, 0]


@given(st.integers(1, 4), st.integers(2, 4))
def test_every_round_launches_every_contender_once(count: int, rounds: int) -> None:
    contenders = list(range(count))
    launched: list[int] = []
    while (number := next_confirmation(contenders, launched, rounds=rounds)) is not None:
        launched.append(number)

    for index in range(rounds):
        assert sorted(launched[index * count : (index + 1) * count]) == contenders


def test_a_clear_gain_wins_with_its_interval_above_zero() -> None:
    contenders = numbered(BASELINE.record, measured(120.0), measured(119.0))[1:]
    confirmations = [
        *_confirmed(0, 100.0, 101.0),
        *_confirmed(1, 120.0, 121.0),
        *_confirmed(2, 110.0, 109.0),
    ]

    answer = conclude(BASELINE, contenders, confirmations, STUDY.slo)

    assert (answer.kind, answer.winner) == (AnswerKind.IMPROVED, 1)
    assert answer.confirmed_winner is not None
    assert answer.confirmed_winner.gain is not None
    assert answer.confirmed_winner.gain.low > 0.1
    assert answer.confirmed_winner.gain.estimate == pytest.approx(0.2, abs=0.01)
    assert answer.binding is not None
    assert answer.is_simulated


def test_a_gain_within_the_noise_keeps_the_baseline() -> None:
    contenders = numbered(BASELINE.record, measured(120.0))[1:]
    confirmations = [*_confirmed(0, 100.0, 110.0), *_confirmed(1, 104.0, 112.0)]

    answer = conclude(BASELINE, contenders, confirmations, STUDY.slo)

    assert (answer.kind, answer.winner) == (AnswerKind.KEEP_BASELINE, 0)


def test_a_winner_that_misses_its_ceiling_when_launched_again_does_not_win() -> None:
    contenders = numbered(BASELINE.record, measured(120.0))[1:]
    confirmations = [*_confirmed(0, 100.0, 100.5), *_confirmed(1, 120.0, 120.0, ttft_s=2.0)]

    answer = conclude(BASELINE, contenders, confirmations, STUDY.slo)

    assert (answer.kind, answer.winner) == (AnswerKind.KEEP_BASELINE, 0)
    assert answer.finalists[0].decision is Decision.MISSED


def test_a_finalist_that_fails_to_launch_again_does_not_win() -> None:
    contenders = numbered(BASELINE.record, measured(120.0))[1:]
    confirmations = [
        *_confirmed(0, 100.0, 100.5),
        *_confirmed(1, 120.0),
        failed(role=Role.CONFIRMATION, confirms=1),
    ]

    assert conclude(BASELINE, contenders, confirmations, STUDY.slo).winner == 0


def test_a_baseline_that_misses_the_slo_loses_to_any_candidate_that_meets_it() -> None:
    baseline = NumberedTrial(0, measured(100.0, ttft_s=3.0, role=Role.BASELINE))
    contenders = numbered(baseline.record, measured(90.0))[1:]
    confirmations = [*_confirmed(0, 100.0, 101.0, ttft_s=3.0), *_confirmed(1, 90.0, 90.5)]

    answer = conclude(baseline, contenders, confirmations, STUDY.slo)

    assert (answer.kind, answer.winner) == (AnswerKind.IMPROVED, 1)


def test_without_a_baseline_the_best_finalist_wins_without_a_gain() -> None:
    contenders = numbered(measured(90.0), measured(80.0))
    confirmations = [*_confirmed(0, 90.0, 90.5), *_confirmed(1, 95.0, 96.0)]

    answer = conclude(None, contenders, confirmations, STUDY.slo)

    assert (answer.kind, answer.winner) == (AnswerKind.IMPROVED, 1)
    assert answer.finalists[1].gain is None


def test_an_unfinished_confirmation_confirms_nothing() -> None:
    contenders = numbered(BASELINE.record, measured(120.0))[1:]

    answer = conclude(BASELINE, contenders, _confirmed(0, 100.0), STUDY.slo)

    assert (answer.kind, answer.winner) == (AnswerKind.NOT_CONFIRMED, None)


def test_without_a_contender_the_baseline_stands_by_its_own_trial() -> None:
    assert conclude(BASELINE, (), [], STUDY.slo).kind is AnswerKind.KEEP_BASELINE


def test_without_a_contender_a_baseline_that_misses_is_no_answer() -> None:
    baseline = NumberedTrial(0, measured(100.0, ttft_s=3.0))

    answer = conclude(baseline, (), [], STUDY.slo)

    assert (answer.kind, answer.winner) == (AnswerKind.NOTHING_MEETS, None)
    assert conclude(None, (), [], STUDY.slo).kind is AnswerKind.NOTHING_MEETS


def test_an_invalid_confirmation_is_no_evidence() -> None:
    contenders = numbered(BASELINE.record, measured(120.0))[1:]
    invalid = measured(1.0, role=Role.CONFIRMATION, confirms=1, outcome=Outcome.INVALID)
    confirmations = [*_confirmed(0, 100.0, 101.0), *_confirmed(1, 120.0, 121.0), invalid]

    assert conclude(BASELINE, contenders, confirmations, STUDY.slo).winner == 1


def test_a_new_finalist_is_launched_as_often_as_those_of_an_earlier_call() -> None:
    launched = [0, 1, 1, 0]
    while (number := next_confirmation([0, 2, 1], launched, rounds=2)) is not None:
        launched.append(number)

    assert sorted(launched) == [0, 0, 1, 1, 2, 2]
