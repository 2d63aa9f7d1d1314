import random
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from autotune.record import Role, TrialRecord
from autotune.search.confirmation import (
    Turn,
    best_so_far,
    contest_of,
    contest_under,
    finalists,
    next_confirmation,
)
from autotune.slo import Decision, Slo, Stop, StopKind, Verdict
from tests.support.trials import STUDY, failed, measured, numbered, with_goals


def test_the_finalists_are_the_best_candidates_that_do_not_miss_a_ceiling() -> None:
    trials = numbered(
        measured(100.0, role=Role.BASELINE),
        measured(120.0),
        measured(200.0, ttft_s=3.0),
        measured(130.0),
        failed(),
        measured(110.0),
        measured(130.0, same_as=3),
    )

    assert [trial.number for trial in finalists(trials, STUDY.slo, count=2)] == [3, 1]


def _undecided(value: float) -> TrialRecord:
    record = measured(value)
    assert record.verdict is not None
    (judged,) = record.verdict.ceilings
    doubt = judged.model_copy(update={"decision": Decision.UNDECIDED})
    return record.model_copy(update={"verdict": Verdict(ceilings=(doubt,))})


def test_the_best_that_surely_meets_the_slo_is_a_finalist_whatever_the_doubtful_ones_promise() -> None:
    trials = numbered(_undecided(150.0), _undecided(140.0), measured(110.0), measured(120.0))

    assert [trial.number for trial in finalists(trials, STUDY.slo, count=1)] == [3]
    assert [trial.number for trial in finalists(trials, STUDY.slo, count=2)] == [0, 3]
    assert [trial.number for trial in finalists(trials, STUDY.slo, count=3)] == [0, 1, 3]
    assert [trial.number for trial in finalists(trials[:2], STUDY.slo, count=1)] == [0]


def _given_up(value: float) -> TrialRecord:
    record = measured(value)
    stop = Stop(kind=StopKind.NO_CHANCE, reason="x", ceiling=None, requests=20, planned=40)
    (point,) = record.points
    return record.model_copy(update={"points": (point.model_copy(update={"stopped": stop}),)})


def test_what_was_given_up_is_neither_a_finalist_nor_something_to_beat() -> None:
    trials = numbered(
        measured(100.0, role=Role.BASELINE), _given_up(150.0), measured(110.0), _undecided(140.0)
    )

    assert [trial.number for trial in finalists(trials, STUDY.slo, count=3)] == [3, 2]
    assert best_so_far(trials, STUDY.slo) == 110.0
    assert best_so_far(trials[:2], STUDY.slo) == 100.0
    assert best_so_far(numbered(_undecided(140.0), measured(150.0, ttft_s=3.0)), STUDY.slo) is None


def test_a_minimised_objective_ranks_the_other_way() -> None:
    data = STUDY.slo.model_dump(exclude={"objective"}) | {"objective": "minimise ttft p50 at concurrency 4"}
    slo = Slo.model_validate(data)

    ranked = finalists(numbered(measured(3.0), measured(1.0), measured(2.0)), slo, count=3)

    assert [trial.number for trial in ranked] == [1, 2, 0]


def test_several_objectives_send_the_ends_of_the_front_first() -> None:
    trials = numbered(measured(10.0, 1.0), measured(20.0, 2.0), measured(15.0, 3.0), measured(30.0, 4.0))

    assert [trial.number for trial in finalists(trials, with_goals().slo, count=2)] == [3, 0]


@given(st.integers(1, 4), st.integers(2, 4))
def test_every_round_launches_every_contender_once(count: int, rounds: int) -> None:
    contenders = list(range(count))
    launched: list[int] = []
    while (number := next_confirmation(contenders, launched, rounds=rounds)) is not None:
        launched.append(number)

    for index in range(rounds):
        assert sorted(launched[index * count : (index + 1) * count]) == contenders


def _confirmed(number: int, value: float = 100.0) -> TrialRecord:
    return measured(value, role=Role.CONFIRMATION, confirms=number)


def test_a_finalist_found_by_a_later_call_is_compared_with_launches_of_its_own_time() -> None:
    first = (measured(100.0, role=Role.BASELINE), measured(120.0), _confirmed(0), _confirmed(1))
    contest = contest_of(numbered(*first, _confirmed(1), _confirmed(0)), STUDY.slo, count=1)
    later = contest_of(numbered(*first, _confirmed(1), _confirmed(0), measured(130.0)), STUDY.slo, count=2)

    assert len(contest.fresh) == 4
    assert contest.next_launch(rounds=2) is None
    assert later.fresh == ()
    assert later.next_launch(rounds=2) is later.baseline


def test_more_search_that_finds_no_new_finalist_costs_no_new_confirmation() -> None:
    trials = numbered(
        measured(100.0, role=Role.BASELINE), measured(120.0), _confirmed(0), _confirmed(1), measured(110.0)
    )

    assert len(contest_of(trials, STUDY.slo, count=1).fresh) == 2


def test_who_failed_or_missed_on_a_fresh_launch_is_never_a_finalist_again_while_there_are_others() -> None:
    crash = failed().model_copy(update={"role": Role.CONFIRMATION, "confirms": 1})
    old = (measured(100.0, role=Role.BASELINE), measured(120.0), measured(119.0), crash, _refuting(2))
    later = contest_of(numbered(*old, _confirmed(1), measured(110.0)), STUDY.slo, count=3)
    alone = contest_of(numbered(*old, measured(130.0, ttft_s=3.0)), STUDY.slo, count=3)

    assert [each.number for each in later.finalists] == [6]
    assert later.fresh == ()
    assert [each.number for each in alone.finalists] == [1, 2]
    assert alone.refuted == {1, 2}


def _refuting(number: int) -> TrialRecord:
    return measured(120.0, ttft_s=3.0, role=Role.CONFIRMATION, confirms=number)


def test_who_was_refuted_is_launched_no_more_and_the_others_go_on() -> None:
    before = (measured(100.0, role=Role.BASELINE), measured(120.0), measured(119.0))
    contest = contest_of(numbered(*before, _confirmed(0), _refuting(1), _confirmed(2)), STUDY.slo, count=2)
    next_one = contest.next_launch(rounds=2)
    done = contest_of(
        numbered(*before, _confirmed(0), _refuting(1), _confirmed(2), _confirmed(2), _confirmed(0)),
        STUDY.slo,
        count=2,
    )

    assert [each.number for each in contest.standing] == [0, 2]
    assert next_one is not None
    assert next_one.number == 2
    assert done.next_launch(rounds=2) is None


@given(st.integers(1, 3), st.lists(st.booleans(), min_size=8, max_size=8))
def test_once_all_are_refuted_the_next_best_joins_until_one_stands_or_as_many_more_have_joined(
    count: int, holds: list[bool]
) -> None:
    values = [measured(200.0 - index) for index in range(8)]
    records = [measured(100.0, role=Role.BASELINE), *values]
    while chosen := (contest := contest_of(numbered(*records), STUDY.slo, count=count)).next_launch(rounds=2):
        number = chosen.number
        is_held = number == 0 or holds[number - 1]
        records.append(_confirmed(number) if is_held else _refuting(number))

    joined = [each.number for each in contest.finalists]
    first_held = next((index for index, is_held in enumerate(holds) if is_held), 8)
    assert joined == list(range(1, min(max(count, first_held + 1), 2 * count) + 1))
    assert contest.refuted == {number for number in joined if not holds[number - 1]}
    launched = Counter(record.confirms for record in contest.fresh)
    assert all(launched[each] == (1 if each in contest.refuted else 2) for each in (0, *joined))


def test_the_next_of_a_front_is_what_is_left_without_those_that_were_refuted() -> None:
    slo = with_goals().slo
    ends = (measured(120.0, 0.5), measured(110.0, 0.4), measured(115.0, 0.6))
    records = (measured(100.0, 0.45, role=Role.BASELINE), *ends, _refuting(1), _refuting(2))

    assert [each.number for each in contest_of(numbered(*records), slo, count=2).finalists] == [1, 2, 3]


def test_those_who_are_believed_to_be_worth_most_are_nominated_before_those_that_were_seen_so() -> None:
    trials = numbered(measured(100.0, role=Role.BASELINE), measured(120.0), measured(130.0), measured(110.0))
    worth = {1: 0.5, 2: 0.1, 3: 0.9}

    def nominated(count: int, *fresh: TrialRecord) -> list[int]:
        records = (*(trial.record for trial in trials), *fresh)
        contest = contest_of(
            numbered(*records),
            STUDY.slo,
            count=count,
            ranking=lambda able: [worth[each.number] for each in able],
        )
        return [each.number for each in contest.finalists]

    assert nominated(2) == [3, 1]
    assert nominated(2, _confirmed(1)) == [1, 3]
    assert nominated(1, _confirmed(2)) == [2]
    assert nominated(1, _refuting(2)) == [2, 3]


def test_nobody_is_ranked_where_nobody_is_nominated_any_more() -> None:
    def ranking(_: object) -> None:
        raise AssertionError

    before = (measured(100.0, role=Role.BASELINE), measured(120.0), measured(119.0))

    assert (
        len(contest_of(numbered(*before, _confirmed(2)), STUDY.slo, count=1, ranking=ranking).finalists) == 1
    )


def test_a_baseline_without_rivals_is_launched_once_more() -> None:
    trials = numbered(measured(100.0, role=Role.BASELINE), measured(200.0, ttft_s=3.0))
    contest = contest_of(trials, STUDY.slo, count=3)
    again = numbered(*(trial.record for trial in trials), _confirmed(0, 101.0))

    assert contest.next_launch(rounds=2) is trials[0]
    assert contest_of(again, STUDY.slo, count=3).next_launch(rounds=2) is None


def test_a_baseline_that_missed_the_slo_is_not_launched_again_for_nothing() -> None:
    trials = numbered(measured(100.0, ttft_s=3.0, role=Role.BASELINE))

    assert contest_of(trials, STUDY.slo, count=3).next_launch(rounds=2) is None
    assert contest_of((), STUDY.slo, count=3).next_launch(rounds=2) is None


def _launched_on(place: str, number: int, value: float = 100.0, **changes: Any) -> TrialRecord:
    return measured(value, role=Role.CONFIRMATION, confirms=number, nodes=(place,), **changes)


_BEFORE = (measured(100.0, role=Role.BASELINE), measured(120.0), measured(119.0))


def _turn(here: str, *busy: str, usable: str = "ab") -> Turn:
    return Turn((here,), tuple((each,) for each in usable), frozenset((each,) for each in busy))


@given(st.integers(1, 4), st.integers(2, 4), st.randoms())
def test_slots_share_the_rounds_and_each_round_stays_on_its_slot(
    slots: int, rounds: int, order: random.Random
) -> None:
    places = "abcd"[:slots]
    fresh: list[TrialRecord] = []
    running: dict[str, int] = {}
    while True:
        contest = contest_of(numbered(*_BEFORE, *fresh), STUDY.slo, count=2)
        for place in places:
            chosen = None
            if place not in running:
                chosen = contest.next_launch(rounds=rounds, turn=_turn(place, *running, usable=places))
            if chosen is not None:
                running[place] = chosen.number
        if not running:
            break
        ended = order.choice(sorted(running))
        fresh.append(_launched_on(ended, running.pop(ended)))

    counts = Counter((record.nodes, record.confirms) for record in fresh)
    assert len(fresh) == 3 * rounds
    for place in places:
        assert len({counts[(place,), number] for number in range(3)}) == 1
    assert contest.compared == contest.fresh


def test_the_round_of_a_slot_that_was_left_is_run_anew_elsewhere_and_does_not_count() -> None:
    on_b = [_launched_on("b", number) for number in (0, 1, 2)]
    fresh = (_launched_on("a", 0), *on_b, _launched_on("a", 1, ttft_s=3.0))
    contest = contest_of(numbered(*_BEFORE, *fresh), STUDY.slo, count=2)

    assert contest.next_launch(rounds=2, turn=_turn("b", usable="ab")) is None
    alone = contest.next_launch(rounds=2, turn=_turn("b", usable="b"))
    assert alone is not None
    assert contest.compared == (*on_b, fresh[-1])  # what missed a ceiling speaks against it for ever


def _under(*records: TrialRecord, slo: Slo = STUDY.slo) -> tuple[list[int], int]:
    """The finalists under an SLO that nobody confirmed for, and how many fresh launches count."""
    trials = numbered(*records)
    contest = contest_under(trials, trials, slo)
    return [trial.number for trial in contest.finalists], len(contest.fresh)


def test_whoever_was_launched_again_competes_under_another_slo_beside_the_most_promising() -> None:
    baseline, again = measured(100.0, role=Role.BASELINE), measured(120.0)
    fresh = measured(119.0, role=Role.CONFIRMATION, confirms=1)

    assert _under(baseline, again, measured(130.0), fresh) == ([2, 1], 1)
    assert _under(baseline, again, measured(110.0), fresh) == ([1], 1)
    assert _under(baseline, measured(120.0, ttft_s=3.0), measured(110.0), fresh) == ([2], 0)
    assert _under(baseline, measured(110.0), measured(120.0)) == ([2], 0)


def test_a_fresh_launch_that_failed_or_missed_proves_nobody_better() -> None:
    baseline, again, other = measured(100.0, role=Role.BASELINE), measured(120.0), measured(110.0)
    missed = measured(119.0, role=Role.CONFIRMATION, confirms=1, ttft_s=3.0)

    assert _under(baseline, again, other, missed) == ([1], 1)
    assert _under(baseline, again, other, failed(role=Role.CONFIRMATION, confirms=1)) == ([1], 1)
    assert _under(baseline, measured(110.0), again, failed(Role.CONFIRMATION, confirms=1)) == ([2, 1], 1)
    assert _under(baseline, measured(110.0), measured(111.0), missed) == ([2, 1], 1)
