from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotune.live_values import NextLive
from autotune.order import LiveValue, TrialOrder
from autotune.record import Role, TrialRecord
from autotune.search.budget import Budget
from autotune.search.ledger import Ledger
from autotune.search.live_choice import MOST, ByPromise, FewNearby
from autotune.search.live_plan import LivePlanner
from autotune.search.sampler import Proposal, SamplerKind, make_sampler
from autotune.search.told import Told
from autotune.slo import Slo
from autotune.space import Candidate, SearchSpace
from autotune.study import Study
from tests.support.trials import STUDY, measured, numbered

LIMIT = "max-running-requests"
HOST = TrialOrder(7, Role.SEARCH, Candidate.of({LIMIT: 256}), None, measure_all=False)


def orders(*values: int) -> list[TrialOrder]:
    return [
        replace(HOST, candidate=Candidate.of({LIMIT: each}), live=LiveValue(LIMIT, each)) for each in values
    ]


def chosen(choose: NextLive, records: list[TrialRecord], *values: int) -> int | None:
    order = choose(records, orders(*values))
    return None if order is None or order.live is None else order.live.value


def few(*earlier: TrialRecord) -> FewNearby:
    return FewNearby(STUDY, numbered(*earlier), number=7)


def host(value: float = 100.0, **changes: Any) -> TrialRecord:
    return measured(value, flags={LIMIT: 256}, **changes)


def live(limit: int, **changes: Any) -> TrialRecord:
    return measured(100.0, flags={LIMIT: limit}, measured_live_on=7, durations_s={"load": 30.0}, **changes)


def test_without_a_model_the_baseline_and_the_likely_winners_deserve_more_and_who_may_be_mended() -> None:
    choose = few(measured(100.0), measured(120.0), measured(90.0))

    assert chosen(choose, [host(130.0)], 8) == 8
    assert chosen(choose, [host(110.0)], 8) == 8
    assert chosen(choose, [host(80.0)], 8) is None
    assert chosen(choose, [host(80.0, ttft_s=3.0)], 8) == 8
    assert chosen(choose, [host(80.0, role=Role.BASELINE)], 8) == 8


def test_without_a_model_it_is_the_first_ones_and_no_more_than_two() -> None:
    assert MOST == 2
    assert chosen(few(), [host()], 16, 64) == 16
    assert chosen(few(), [host()]) is None
    assert chosen(few(), [host(), live(16), live(32)], 64) is None


def test_without_a_model_nothing_is_measured_that_takes_longer_than_a_launch() -> None:
    assert chosen(few(), [host(durations_s={"launch": 30.0, "load": 40.0})], 16) is None


def test_after_a_value_that_suffices_comes_one_nearer_to_the_launched() -> None:
    assert chosen(few(), [host(), live(32)], 16, 64) == 64


def test_after_a_value_that_does_not_mend_what_is_missed_comes_a_lower_one() -> None:
    slow = [host(ttft_s=3.0), live(32, ttft_s=3.0)]

    assert chosen(few(), slow, 64, 16) == 16


# ---- with a model


def study() -> Study:
    """The load of its objective bounds no limit."""
    space = STUDY.space.model_dump(by_alias=True) | {"tune": {LIMIT: {"int": [1, 256], "scale": "log"}}}
    slo = {
        "workload": {"input_tokens": 256, "output_tokens": 32},
        "load": [{"rate": 4, "requests": 40}],
        "objective": "maximise output_throughput at rate 4",
    }
    changes = {"space": SearchSpace.model_validate(space), "slo": Slo.model_validate(slo)}
    return STUDY.model_copy(update=changes)


def rises_to(best: int, limit: int, *, launch_s: float) -> TrialRecord:
    """A candidate that is the better the nearer its limit lies to the best one, by ratio."""
    value = 1000.0 * min(limit / best, best / limit) ** 0.5
    return measured(value, flags={LIMIT: limit}, durations_s={"launch": launch_s, "load": 40.0})


@pytest.fixture(params=[SamplerKind.GP])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(study(), tmp_path)) as opened:
        opened.use(make_sampler(request.param, opened.study.space, seed=1))
        yield opened


def planner_of(ledger: Ledger, *limits: int, launch_s: float, budget: Budget | None = None) -> LivePlanner:
    """The planner of a study that has measured these, of which 60 is the best value of all."""
    for limit in limits:
        asked = ledger.ask(Proposal(Candidate.of({LIMIT: limit}), None))
        ledger.tell(asked, rises_to(60, limit, launch_s=launch_s))
    told = Told(ledger.study.space)
    told.take_in(ledger.trials())
    return LivePlanner(ledger.study, ledger, told, budget or Budget())


KNOWN = (1, 2, 4, 7, 20, 32, 130, 200)


def choice(ledger: Ledger, *values: int, launch_s: float) -> NextLive:
    planner = planner_of(ledger, *KNOWN, launch_s=launch_s)
    asked = ledger.ask(Proposal(HOST.candidate, None))
    return planner.choice(asked.number, asked.candidate, [Candidate.of({LIMIT: each}) for each in values])


def test_with_a_model_the_most_promising_is_measured_and_nothing_that_promises_little(
    ledger: Ledger,
) -> None:
    choose = choice(ledger, 3, 60, 100, launch_s=900.0)
    records = [rises_to(60, 256, launch_s=900.0)]

    assert isinstance(choose, ByPromise)
    assert chosen(choose, records, 3, 60, 100) == 60
    assert chosen(choose, records, 3) is None
    assert chosen(choose, records) is None


def test_what_promises_less_than_a_launch_elsewhere_is_measured_only_where_launches_are_dear(
    ledger: Ledger, tmp_path: Path
) -> None:
    records_of = {launch_s: [rises_to(60, 256, launch_s=launch_s)] for launch_s in (1.0, 3600.0)}
    dear = choice(ledger, 100, launch_s=3600.0)
    (tmp_path / "other").mkdir()
    with closing(Ledger(study(), tmp_path / "other")) as other:
        other.use(make_sampler(SamplerKind.GP, other.study.space, seed=1))
        cheap = choice(other, 100, launch_s=1.0)

        assert chosen(dear, records_of[3600.0], 100) == 100
        assert chosen(cheap, records_of[1.0], 100) is None


def test_what_was_measured_on_the_engine_already_counts(ledger: Ledger) -> None:
    choose = choice(ledger, 40, 60, launch_s=900.0)
    records = [rises_to(60, 256, launch_s=900.0)]
    better = measured(1000.0, flags={LIMIT: 60}, measured_live_on=8, durations_s={"load": 40.0})

    assert chosen(choose, records, 40) == 40
    assert chosen(choose, [*records, better], 40) is None


def test_who_chooses_needs_no_storage_while_a_trial_runs(ledger: Ledger) -> None:
    choose = choice(ledger, 60, launch_s=900.0)
    ledger.close()

    assert chosen(choose, [rises_to(60, 256, launch_s=900.0)], 60) == 60


@pytest.mark.parametrize("ledger", [SamplerKind.TPE, SamplerKind.RANDOM], indirect=True)
def test_samplers_without_a_model_choose_a_few_nearby(ledger: Ledger) -> None:
    assert isinstance(choice(ledger, 60, launch_s=900.0), FewNearby)


@pytest.mark.parametrize(("launch_s", "expected"), [(900.0, 60), (0.0, None)])
def test_while_nothing_is_known_all_promise_the_same_and_the_cheaper_is_measured(
    ledger: Ledger, launch_s: float, expected: int | None
) -> None:
    ledger.ask(Proposal(HOST.candidate, None))
    planner = planner_of(ledger, launch_s=launch_s)
    choose = planner.choice(0, HOST.candidate, [Candidate.of({LIMIT: each}) for each in (60, 30)])
    records = [rises_to(60, 256, launch_s=launch_s - 1.0)]

    assert chosen(choose, records, 60, 30) == expected


PROPOSAL = Candidate.of({LIMIT: 50})


def test_where_launches_are_dear_a_higher_limit_is_launched_and_the_proposal_measured_on_its_engine(
    ledger: Ledger,
) -> None:
    planner = planner_of(ledger, *KNOWN, launch_s=3600.0)

    asked = planner.ask(Proposal(PROPOSAL, None), ())
    order = replace(HOST, number=asked.number, candidate=asked.candidate)
    first, *others = planner.orders(order, (), first=asked.live)

    assert int(str(asked.candidate.to_dict()[LIMIT])) > 50
    assert asked.live == (PROPOSAL,)
    assert (first.candidate, first.live) == (PROPOSAL, LiveValue(LIMIT, 50))
    assert others
    assert all(each.live and each.candidate not in (PROPOSAL, asked.candidate) for each in others)


def test_where_launches_are_as_cheap_as_loads_the_proposal_itself_is_launched(ledger: Ledger) -> None:
    asked = planner_of(ledger, *KNOWN, launch_s=0.0).ask(Proposal(PROPOSAL, None), ())

    assert (asked.candidate, asked.live) == (PROPOSAL, ())


def test_the_proposal_is_launched_where_nothing_is_measured_live_or_nobody_can_tell(ledger: Ledger) -> None:
    off = Budget(measures_live=False)
    planner = planner_of(ledger, launch_s=3600.0)
    assert planner.ask(Proposal(PROPOSAL, None), ()).candidate == PROPOSAL

    planner = planner_of(ledger, *KNOWN, launch_s=3600.0, budget=off)
    assert planner.ask(Proposal(PROPOSAL, None), ()).candidate == PROPOSAL
    assert planner.orders(HOST, (), first=()) == []


def test_a_confirmation_measures_what_it_launches_and_nothing_else(ledger: Ledger) -> None:
    planner = planner_of(ledger, *KNOWN, launch_s=3600.0)

    assert planner.orders(replace(HOST, role=Role.CONFIRMATION), (), first=()) == []
