from typing import Any

import pytest

from autotune.engine.dialect import EffectiveFlags
from autotune.failure import EngineFailure, FailureKind, StartPhase
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.confirmation import NumberedTrial
from autotune.search.repeats import baseline_is_due, due_again, lost_nodes, stuck, world_failures
from tests.support.trials import failed, measured, numbered


def crashed(
    role: Role = Role.SEARCH, kind: FailureKind = FailureKind.CRASHED, line: str = "boom", **changes: Any
) -> TrialRecord:
    return failed(role, failure=EngineFailure(kind=kind, phase=StartPhase.WEIGHTS, line=line), **changes)


def test_what_was_cut_off_or_spoilt_is_due_again_until_something_took_its_place() -> None:
    cut_off = measured(1.0, outcome=Outcome.INTERRUPTED)
    spoilt = measured(2.0, outcome=Outcome.INVALID)
    trials = numbered(measured(3.0), cut_off, spoilt)

    assert due_again(trials) == (1, 2)
    assert due_again((*trials, NumberedTrial(3, measured(1.0), again=1))) == (2,)


def test_a_measurement_is_spoilt_twice_at_most_however_often_it_was_cut_off() -> None:
    spoilt = measured(2.0, outcome=Outcome.INVALID)
    cut_off = measured(2.0, outcome=Outcome.INTERRUPTED)
    first = (NumberedTrial(0, cut_off), NumberedTrial(1, spoilt, again=0))

    assert due_again(first) == (1,)
    assert due_again((*first, NumberedTrial(2, spoilt, again=1))) == ()


def test_confirmations_and_the_baseline_are_due_by_rules_of_their_own() -> None:
    records = (measured(1.0, role=role, outcome=Outcome.INTERRUPTED) for role in Role)

    assert due_again(numbered(*records)) == (list(Role).index(Role.SEARCH),)


@pytest.mark.parametrize(
    ("records", "is_due"),
    [
        ([], True),
        ([measured(1.0, role=Role.BASELINE)], False),
        ([measured(1.0, role=Role.BASELINE, outcome=Outcome.INTERRUPTED)], True),
        ([measured(1.0, role=Role.BASELINE, outcome=Outcome.INVALID)], True),
        ([crashed(Role.BASELINE)], True),
        ([crashed(Role.BASELINE), crashed(Role.BASELINE)], False),
        ([crashed(Role.BASELINE), measured(1.0, role=Role.BASELINE)], False),
        ([crashed(Role.BASELINE, FailureKind.NO_KV_MEMORY)], False),
        ([crashed(Role.BASELINE, FailureKind.PORT_BUSY)], True),
    ],
)
def test_a_baseline_with_bad_luck_is_tried_once_more(records: list[TrialRecord], is_due: bool) -> None:
    assert baseline_is_due(numbered(*records)) is is_due


def test_three_launches_that_fail_alike_before_any_engine_was_ready_are_the_worlds_fault() -> None:
    alike = numbered(crashed(Role.BASELINE), crashed(Role.BASELINE), crashed())

    assert stuck(alike[:2]) is None
    assert stuck(alike) == alike[0].record.failure
    assert world_failures(alike) == {0, 1, 2}
    assert baseline_is_due(alike)


def test_failures_that_differ_are_the_candidates_own() -> None:
    trials = numbered(*(crashed(line=f"line {index}") for index in range(5)))

    assert stuck(trials) is None
    assert world_failures(trials) == frozenset()


def test_once_an_engine_was_ready_failures_count_but_earlier_ones_still_do_not() -> None:
    ready = measured(1.0, effective=EffectiveFlags(flags={}))
    before = (crashed(), crashed(), crashed())
    trials = numbered(*before, ready, *before)

    assert stuck(trials) is None
    assert world_failures(trials) == {0, 1, 2}


def test_what_cost_no_launch_or_was_cut_off_does_not_break_a_row_of_failures() -> None:
    free = failed(outcome=Outcome.INFEASIBLE, failure=None, durations_s={})
    cut_off = failed(outcome=Outcome.INTERRUPTED, failure=None)

    assert world_failures(numbered(crashed(), free, crashed(), cut_off, crashed())) == {0, 2, 4}


def lost(role: Role = Role.SEARCH, kind: FailureKind = FailureKind.NODE_LOST, **changes: Any) -> TrialRecord:
    return crashed(role, kind, outcome=Outcome.INVALID, **changes)


def test_a_candidate_is_due_again_however_often_a_node_was_lost_under_it() -> None:
    spoilt = measured(2.0, outcome=Outcome.INVALID)
    chain = [NumberedTrial(0, lost())]
    chain += [NumberedTrial(number, lost(), again=number - 1) for number in (1, 2, 3)]

    assert due_again(chain) == (3,)
    assert due_again([*chain, NumberedTrial(4, spoilt, again=3)]) == (4,)
    assert due_again([*chain, NumberedTrial(4, spoilt, again=3), NumberedTrial(5, spoilt, again=4)]) == ()


@pytest.mark.parametrize("kind", [FailureKind.NODE_LOST, FailureKind.IMAGE_MISSING])
def test_a_baseline_is_due_however_often_a_node_was_lost_under_it(kind: FailureKind) -> None:
    assert baseline_is_due(numbered(*[lost(Role.BASELINE, kind)] * 5))
    assert baseline_is_due(numbered(lost(Role.BASELINE), crashed(Role.BASELINE)))
    assert not baseline_is_due(numbered(lost(Role.BASELINE), *[crashed(Role.BASELINE)] * 2))


def test_three_launches_in_a_row_under_which_a_node_failed_in_whatever_way_are_enough() -> None:
    ready = measured(1.0, effective=EffectiveFlags(flags={}))
    free = failed(outcome=Outcome.INFEASIBLE, failure=None, durations_s={})
    row = (lost(line="a"), free, lost(Role.CONFIRMATION, FailureKind.DRIVER_ERROR), lost(line="c"))

    assert lost_nodes(numbered(ready, *row[:3])) is None
    assert lost_nodes(numbered(ready, *row)) == row[-1].failure
    assert lost_nodes(numbered(ready, *row, ready)) is None
    assert lost_nodes(numbered(lost(), ready, lost(), ready, lost())) is None
    assert lost_nodes(numbered(*[crashed()] * 5)) is None
    assert lost_nodes(()) is None


@pytest.mark.parametrize("kind", [FailureKind.IMAGE_MISSING, FailureKind.BIND_SOURCE_MISSING])
def test_one_node_without_what_every_launch_needs_is_enough(kind: FailureKind) -> None:
    assert lost_nodes(numbered(measured(1.0), lost(kind=kind))) is not None


def test_what_was_measured_badly_live_has_no_launch_to_repeat() -> None:
    spoilt = measured(2.0, outcome=Outcome.INVALID, measured_live_on=0)

    assert due_again(numbered(measured(3.0), spoilt)) == ()
