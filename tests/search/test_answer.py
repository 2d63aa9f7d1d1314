from collections.abc import Sequence
from typing import Any

import pytest

from autotune.record import Outcome, Role, TrialRecord
from autotune.search.alike import Alikeness, AnswersVerdict
from autotune.search.answer import Answer, AnswerKind, conclude
from autotune.search.confirmation import Contest, NumberedTrial
from autotune.slo import Decision, Slo, Verdict
from tests.support.trials import STUDY, failed, measured, numbered, verdict, with_goals

BASELINE = NumberedTrial(0, measured(100.0, role=Role.BASELINE))
PARETO = with_goals()
"""Maximise throughput, minimise TTFT."""


def undecided(ttft_s: float = 0.9) -> Verdict:
    judged = verdict(STUDY.slo, ttft_s)
    few = {"decision": Decision.UNDECIDED, "share_over": 0.0, "independent_samples": 5.0, "requests": 5.0}
    return Verdict(ceilings=(judged.ceilings[0].model_copy(update=few),))


def fresh(number: int, *values: float, ttft_s: float = 0.5, **changes: Any) -> list[TrialRecord]:
    return [
        measured(value, ttft_s=ttft_s, role=Role.CONFIRMATION, confirms=number, **changes) for value in values
    ]


def both(number: int, *rows: tuple[float, float], ttft_s: float = 0.5) -> list[TrialRecord]:
    return [measured(*row, ttft_s=ttft_s, role=Role.CONFIRMATION, confirms=number) for row in rows]


def concluded(
    baseline: NumberedTrial | None,
    rivals: Sequence[NumberedTrial],
    launches: Sequence[TrialRecord],
    slo: Slo = STUDY.slo,
    *,
    others: Sequence[NumberedTrial] = (),
    differing: Sequence[int] = (),
) -> Answer:
    candidates = (*([baseline] if baseline else []), *rivals, *others)
    alike = {number: Alikeness(verdict=AnswersVerdict.DIFFERENT) for number in differing}
    return conclude(Contest(baseline, tuple(rivals), tuple(candidates), tuple(launches)), slo, alike=alike)


def rivals(count: int) -> tuple[NumberedTrial, ...]:
    return numbered(BASELINE.record, *(measured(120.0 + index, 1.0) for index in range(count)))[1:]


def test_a_clear_gain_wins_with_its_interval_above_zero() -> None:
    launches = [*fresh(0, 100.0, 101.0), *fresh(1, 120.0, 121.0), *fresh(2, 110.0, 109.0)]

    answer = concluded(BASELINE, rivals(2), launches)

    assert (answer.kind, answer.winner) == (AnswerKind.IMPROVED, 1)
    assert answer.meets_slo
    assert answer.confirmed_winner is not None
    assert answer.confirmed_winner.gain is not None
    assert answer.confirmed_winner.gain.low > 0.1
    assert answer.confirmed_winner.gain.estimate == pytest.approx(0.2, abs=0.01)
    assert answer.confirmed_winner.mean(0) == 120.5


def test_a_gain_that_may_be_nothing_keeps_the_baseline() -> None:
    launches = [*fresh(0, 100.0, 110.0), *fresh(1, 104.0, 108.0)]

    answer = concluded(BASELINE, rivals(1), launches)

    assert (answer.kind, answer.winner) == (AnswerKind.KEEP_BASELINE, 0)
    assert answer.finalists[0].gain is not None
    assert answer.finalists[0].gain.low < 0


def test_a_finalist_that_misses_a_ceiling_when_launched_again_does_not_win() -> None:
    launches = [*fresh(0, 100.0, 100.5), *fresh(1, 120.0), *fresh(1, 120.0, ttft_s=3.0)]

    answer = concluded(BASELINE, rivals(1), launches)

    assert (answer.kind, answer.winner) == (AnswerKind.KEEP_BASELINE, 0)
    assert answer.finalists[0].decision is Decision.MISSED


def test_a_refuted_finalist_needs_no_second_launch_for_an_answer() -> None:
    launches = [*fresh(0, 100.0, 100.5), *fresh(1, 120.0, ttft_s=3.0), *fresh(2, 121.0, 121.5)]

    both_known = concluded(BASELINE, rivals(2), launches)
    one_known = concluded(BASELINE, rivals(2), launches[:-1])

    assert (both_known.kind, both_known.winner) == (AnswerKind.IMPROVED, 2)
    assert one_known.kind is AnswerKind.NOT_CONFIRMED


def test_a_finalist_that_fails_to_launch_again_does_not_win() -> None:
    launches = [*fresh(0, 100.0, 100.5), *fresh(1, 120.0), failed(role=Role.CONFIRMATION, confirms=1)]

    assert concluded(BASELINE, rivals(1), launches).winner == 0


def test_a_baseline_that_misses_the_slo_loses_to_any_candidate_that_meets_it() -> None:
    launches = [*fresh(0, 100.0, 101.0, ttft_s=3.0), *fresh(1, 90.0, 90.5)]

    answer = concluded(BASELINE, rivals(1), launches)

    assert (answer.kind, answer.winner) == (AnswerKind.IMPROVED, 1)


def test_without_a_baseline_the_best_finalist_wins_but_is_called_uncompared() -> None:
    contenders = numbered(measured(90.0), measured(80.0))

    answer = concluded(None, contenders, [*fresh(0, 90.0, 90.5), *fresh(1, 95.0, 96.0)])

    assert (answer.kind, answer.winner) == (AnswerKind.UNCOMPARED, 1)
    assert answer.finalists[1].gain is None


def test_an_unfinished_confirmation_confirms_nothing() -> None:
    answer = concluded(BASELINE, rivals(1), fresh(0, 100.0))

    assert (answer.kind, answer.winner, answer.meets_slo) == (AnswerKind.NOT_CONFIRMED, None, False)


def test_an_invalid_confirmation_is_no_evidence() -> None:
    invalid = fresh(1, 1.0, outcome=Outcome.INVALID)

    answer = concluded(BASELINE, rivals(1), [*fresh(0, 100.0, 101.0), *fresh(1, 120.0, 121.0), *invalid])

    assert answer.winner == 1


def test_too_few_samples_are_not_called_a_miss() -> None:
    launches = [*fresh(0, 100.0, 101.0, ttft_s=3.0), *fresh(1, 120.0, 121.0, verdict=undecided())]

    answer = concluded(BASELINE, rivals(1), launches)

    assert (answer.kind, answer.winner) == (AnswerKind.UNDECIDED, None)


def test_nothing_meets_the_slo_only_if_everything_misses_it() -> None:
    launches = [*fresh(0, 100.0, 101.0, ttft_s=3.0), *fresh(1, 120.0, 121.0, ttft_s=3.0)]

    assert concluded(BASELINE, rivals(1), launches).kind is AnswerKind.NOTHING_MEETS


def test_a_baseline_that_nothing_beats_is_kept_by_its_own_trial_and_a_fresh_launch() -> None:
    once, twice = concluded(BASELINE, (), []), concluded(BASELINE, (), fresh(0, 101.0))

    assert (once.kind, once.winner, once.baseline) == (AnswerKind.KEEP_BASELINE, 0, None)
    assert twice.kind is AnswerKind.KEEP_BASELINE
    assert twice.baseline is not None
    assert (twice.baseline.values, twice.baseline.launches) == (((101.0,),), 1)


def test_a_baseline_alone_that_fails_to_start_again_is_not_confirmed() -> None:
    answer = concluded(BASELINE, (), [failed(role=Role.CONFIRMATION, confirms=0)])

    assert (answer.kind, answer.winner) == (AnswerKind.NOT_CONFIRMED, None)


def test_a_baseline_alone_that_misses_when_launched_again_is_not_kept() -> None:
    assert concluded(BASELINE, (), fresh(0, 100.0, ttft_s=3.0)).kind is AnswerKind.NOTHING_MEETS


def test_without_a_contender_a_baseline_that_misses_is_no_answer() -> None:
    baseline = NumberedTrial(0, measured(100.0, ttft_s=3.0))

    answer = concluded(baseline, (), [])

    assert (answer.kind, answer.winner) == (AnswerKind.NOTHING_MEETS, None)


def test_one_undecided_candidate_leaves_the_study_undecided() -> None:
    baseline = NumberedTrial(0, measured(100.0, ttft_s=3.0))
    other = NumberedTrial(1, measured(100.0, verdict=undecided(1.1)))

    assert concluded(baseline, (), [], others=[other]).kind is AnswerKind.UNDECIDED
    assert concluded(other, (), []).kind is AnswerKind.UNDECIDED


def test_a_study_that_measured_nothing_says_nothing_about_the_slo() -> None:
    assert concluded(None, (), []).kind is AnswerKind.NOTHING_MEASURED


def test_all_objectives_of_every_fresh_launch_are_kept_with_their_gains() -> None:
    launches = [*both(0, (100.0, 1.0), (101.0, 1.0)), *both(1, (120.0, 0.8), (121.0, 0.8))]

    answer = concluded(BASELINE, rivals(1), launches, PARETO.slo)

    (rival,) = answer.finalists
    assert rival.values == ((120.0, 0.8), (121.0, 0.8))
    throughput, ttft = rival.gains
    assert throughput is not None
    assert ttft is not None
    assert ttft.estimate == pytest.approx(0.25, abs=0.01)
    assert (answer.kind, answer.winner) == (AnswerKind.IMPROVED, 1)
    assert (answer.front, answer.dominating) == ((1,), (1,))


def test_more_of_one_for_less_of_another_names_a_front_and_no_winner() -> None:
    launches = [
        *both(0, (100.0, 1.0), (100.5, 1.0)),
        *both(1, (150.0, 3.0), (151.0, 3.01)),
        *both(2, (70.0, 0.2), (70.2, 0.2)),
    ]

    answer = concluded(BASELINE, rivals(2), launches, PARETO.slo)

    assert (answer.kind, answer.winner, answer.meets_slo) == (AnswerKind.FRONT, None, True)
    assert (answer.front, answer.dominating) == ((0, 1, 2), ())
    assert answer.knee == 0  # it gives up 63 % of the range of one and 29 % of that of the other
    for each in (*answer.finalists, answer.baseline):
        assert each is not None
        for index, span in enumerate(each.spans):
            assert span is not None
            assert span[0] < each.mean(index) < span[1]


def test_a_front_that_bends_outwards_or_has_two_points_has_no_knee() -> None:
    ends = [*both(0, (100.0, 1.0), (100.5, 1.0)), *both(1, (200.0, 2.0), (200.5, 2.0))]
    middle = both(2, (120.0, 1.8), (120.5, 1.8))

    assert concluded(BASELINE, rivals(1), ends, PARETO.slo).knee is None
    assert concluded(BASELINE, rivals(2), [*ends, *middle], PARETO.slo).front == (0, 1, 2)
    assert concluded(BASELINE, rivals(2), [*ends, *middle], PARETO.slo).knee is None


def test_a_point_that_another_dominates_or_that_misses_is_not_on_the_front() -> None:
    launches = [
        *both(0, (100.0, 1.0), (100.5, 1.0)),
        *both(1, (150.0, 0.5), (151.0, 0.5)),
        *both(2, (120.0, 0.8), (121.0, 0.8)),
        *both(3, (300.0, 0.1), (301.0, 0.1), ttft_s=3.0),
    ]

    answer = concluded(BASELINE, rivals(3), launches, PARETO.slo)

    assert (answer.kind, answer.winner) == (AnswerKind.IMPROVED, 1)
    assert (answer.front, answer.dominating) == ((1,), (1, 2))


def test_a_difference_within_the_noise_dominates_nothing() -> None:
    launches = [*both(0, (100.0, 1.0), (110.0, 1.1)), *both(1, (104.0, 0.9), (112.0, 1.0))]

    answer = concluded(BASELINE, rivals(1), launches, PARETO.slo)

    assert (answer.kind, answer.winner) == (AnswerKind.KEEP_BASELINE, 0)
    assert (answer.front, answer.dominating) == ((0, 1), ())


def test_a_candidate_that_dominates_in_the_second_objective_alone_is_named() -> None:
    launches = [*both(0, (100.0, 1.0), (100.5, 1.0)), *both(1, (100.0, 0.5), (100.5, 0.5))]

    answer = concluded(BASELINE, rivals(1), launches, PARETO.slo)

    assert (answer.kind, answer.winner, answer.dominating) == (AnswerKind.IMPROVED, 1, (1,))


def test_a_gain_at_a_certain_price_is_not_named_the_winner() -> None:
    launches = [*both(0, (100.0, 1.0), (100.5, 1.0)), *both(1, (150.0, 1.2), (151.0, 1.2))]

    assert concluded(BASELINE, rivals(1), launches, PARETO.slo).kind is AnswerKind.FRONT


def test_the_only_candidate_that_meets_the_slo_wins_over_a_baseline_that_does_not() -> None:
    missing = both(0, (100.0, 1.0), (100.5, 1.0), ttft_s=3.0)
    first, second = both(1, (90.0, 0.9), (90.5, 0.9)), both(2, (80.0, 0.5), (80.5, 0.5))

    alone = concluded(BASELINE, rivals(1), [*missing, *first], PARETO.slo)
    two = concluded(BASELINE, rivals(2), [*missing, *first, *second], PARETO.slo)
    none = concluded(None, rivals(1), first, PARETO.slo)

    assert (alone.kind, alone.winner) == (AnswerKind.IMPROVED, 1)
    assert (two.kind, two.front) == (AnswerKind.FRONT, (1, 2))
    assert (none.kind, none.winner) == (AnswerKind.UNCOMPARED, 1)


def test_several_objectives_that_nobody_meets_name_nothing() -> None:
    launches = [
        *both(0, (100.0, 1.0), (101.0, 1.0), ttft_s=3.0), *both(1, (90.0, 1.0), (91.0, 1.0), ttft_s=3.0),
    ]  # fmt: skip

    answer = concluded(BASELINE, rivals(1), launches, PARETO.slo)

    assert (answer.kind, answer.front) == (AnswerKind.NOTHING_MEETS, ())


def test_a_smaller_gain_with_the_same_answers_wins_over_a_larger_one_with_others() -> None:
    launches = [*fresh(0, 100.0, 101.0), *fresh(1, 120.0, 121.0), *fresh(2, 110.0, 109.0)]

    answer = concluded(BASELINE, rivals(2), launches, differing=[1])

    assert (answer.kind, answer.winner) == (AnswerKind.IMPROVED, 2)
    assert [each.answers_differ for each in answer.finalists] == [True, False]


def test_a_gain_with_other_answers_is_named_if_there_is_no_other_gain() -> None:
    launches = [*fresh(0, 100.0, 101.0), *fresh(1, 120.0, 121.0), *fresh(2, 101.0, 99.0)]

    answer = concluded(BASELINE, rivals(2), launches, differing=[1])

    assert (answer.kind, answer.winner) == (AnswerKind.IMPROVED, 1)
    assert answer.confirmed_winner is not None
    assert answer.confirmed_winner.answers_differ
