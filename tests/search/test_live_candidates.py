from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.search.live_candidates import candidates_beside, launches_for, live_value
from autotune.slo import Slo
from autotune.space import Candidate, FlagValue, SearchSpace
from tests.support.trials import STUDY, measured, numbered

LIMIT = "max-running-requests"


def space_of(limit: dict[str, Any] | None, **keys: Any) -> SearchSpace:
    tune: dict[str, Any] = {"schedule-policy": {"choices": ["fcfs", "lpm"]}}
    if limit is not None:
        tune[LIMIT] = limit
    return SearchSpace.model_validate({**STUDY.space.model_dump(by_alias=True), "tune": tune, **keys})


def slo_of(*load: dict[str, Any], more: tuple[str, ...] = ()) -> Slo:
    point = "concurrency 100" if load[-1].get("concurrency") == 100 else "rate 4"
    return Slo.model_validate(
        {
            "workload": {"input_tokens": 256, "output_tokens": 32},
            "load": load,
            "ceilings": [f"ttft p95 < 1s at {point}"],
            "objectives": [f"maximise output_throughput at {point}", *more],
        }
    )


CLOSED = slo_of({"concurrency": 20, "requests": 80}, {"concurrency": 100, "requests": 300})
OPEN = slo_of({"rate": 4, "requests": 300})


def values(
    space: SearchSpace,
    host: dict[str, FlagValue],
    *,
    slo: Slo = OPEN,
    known: tuple[dict[str, FlagValue], ...] = (),
    unworthy: tuple[int, ...] = (),
) -> list[int]:
    found = candidates_beside(
        space,
        slo,
        Candidate.of(host),
        trials=numbered(*(measured(100.0, flags=each) for each in known)),
        is_worth=lambda candidate: candidate.to_dict()[LIMIT] not in unworthy,
    )
    lives = [live_value(each, Candidate.of(host)) for each in found]
    for candidate, live in zip(found, lives, strict=True):
        assert live.flag == LIMIT
        assert candidate == Candidate.of({**host, LIMIT: live.value})
    return [live.value for live in lives]


def test_values_lie_in_the_middle_of_what_is_not_known_the_least_one_last() -> None:
    choices = {"choices": [8, 16, 32, 64, 128, 256]}

    assert values(space_of(choices), {LIMIT: 128}) == [32, 16, 64, 8]
    assert values(space_of(choices), {LIMIT: 128}, known=({LIMIT: 32},)) == [16, 64, 8]
    assert values(space_of(choices), {LIMIT: 128}, known=({LIMIT: 8},)) == [32, 16, 64]
    assert values(space_of({"int": [8, 256]}), {LIMIT: 128})[:3] == [32, 16, 64]


def test_what_is_known_of_other_flags_is_not_known_here() -> None:
    space = space_of({"choices": [8, 32, 128]})
    host: dict[str, FlagValue] = {LIMIT: 128, "schedule-policy": "fcfs"}

    assert values(space, host, known=({LIMIT: 32, "schedule-policy": "lpm"},)) == [32, 8]
    assert values(space, host, known=({LIMIT: 32, "schedule-policy": "fcfs"},)) == [8]


def test_a_limit_that_a_closed_loop_never_reaches_is_not_offered() -> None:
    space = space_of({"int": [1, 1024]})

    assert max(values(space, {LIMIT: 512}, slo=CLOSED)) < 100
    assert max(values(space, {LIMIT: 512}, slo=OPEN)) > 100


def test_where_the_engine_chooses_the_limit_its_choice_is_the_bound() -> None:
    offered = values(space_of({"int": [1, 4096]}), {})

    assert offered
    assert max(offered) < 2048


def test_only_what_is_worth_a_trial_is_offered() -> None:
    assert values(space_of({"choices": [8, 16, 32, 64]}), {LIMIT: 64}, unworthy=(8, 32)) == [16]


@pytest.mark.parametrize(
    ("limit", "keys"),
    [
        (None, {}),
        (None, {"flags": {LIMIT: 64}}),
        ({"int": [64, 128]}, {}),
        ({"choices": [64]}, {}),
        ({"int": [8, 256]}, {"flags": {"pp-size": 2}}),
        ({"int": [8, 256], "when": "schedule_policy == 'lpm'"}, {"flags": {}}),
    ],
)
def test_nothing_is_offered_where_nothing_can_be_changed(
    limit: dict[str, Any] | None, keys: dict[str, Any]
) -> None:
    assert values(space_of(limit, **keys), {LIMIT: 64} if limit else {}) == []


def test_a_limit_that_decides_which_flags_take_part_is_left_alone() -> None:
    tune = {
        LIMIT: {"int": [8, 256]},
        "chunked-prefill-size": {"int": [512, 8192], "when": "max_running_requests > 64"},
    }
    space = SearchSpace.model_validate({**STUDY.space.model_dump(by_alias=True), "tune": tune})

    assert values(space, {LIMIT: 128, "chunked-prefill-size": 512}) == []


def test_each_rank_of_attention_data_parallelism_runs_one_request_at_least() -> None:
    space = space_of({"int": [1, 256]}, flags={"enable-dp-attention": True, "dp-size": 16, "tp-size": 16})

    assert min(values(space, {LIMIT: 64})) >= 16


@given(
    low=st.integers(1, 50),
    length=st.integers(0, 2000),
    step=st.integers(1, 16),
    launched=st.integers(1, 2000),
    known=st.sets(st.integers(1, 2000), max_size=5),
)
def test_whatever_is_offered_is_new_smaller_and_of_the_space(
    low: int, length: int, step: int, launched: int, known: set[int]
) -> None:
    high = (low + length) // step * step
    if high < low:
        return
    space = space_of({"int": [low, high], "multiple_of": step})

    offered = values(space, {LIMIT: launched}, known=tuple({LIMIT: each} for each in known))

    assert len(set(offered)) == len(offered) <= 6
    assert all(space.tune[LIMIT].contains(each) and each < launched for each in offered)
    assert known.isdisjoint(offered)


def launched_for(
    space: SearchSpace, proposal: dict[str, FlagValue], *, slo: Slo = OPEN, unworthy: tuple[int, ...] = ()
) -> list[FlagValue]:
    found = launches_for(
        space, slo, Candidate.of(proposal), is_worth=lambda each: each.to_dict()[LIMIT] not in unworthy
    )
    assert all(live_value(Candidate.of(proposal), each).value == proposal[LIMIT] for each in found)
    return [each.to_dict()[LIMIT] for each in found]


def test_for_a_candidate_the_highest_value_that_matters_may_be_launched_and_some_between() -> None:
    space = space_of({"choices": [8, 16, 32, 64, 128, 256]})

    assert launched_for(space, {LIMIT: 16}) == [256, 64, 32]
    assert launched_for(space, {LIMIT: 16}, slo=CLOSED) == [128, 64, 32]
    assert launched_for(space, {LIMIT: 16}, unworthy=(256,)) == [64, 32]
    assert launched_for(space, {LIMIT: 128}) == [256]


def test_nothing_is_launched_for_what_no_load_can_tell_from_a_higher_value() -> None:
    space = space_of({"choices": [8, 16, 32, 64, 128, 256]})

    assert launched_for(space, {LIMIT: 128}, slo=CLOSED) == []
    assert launched_for(space, {LIMIT: 256}) == []


def test_a_value_below_one_that_was_too_low_elsewhere_is_not_offered() -> None:
    space = space_of({"choices": [8, 16, 32, 64, 128]})
    lpm: dict[str, FlagValue] = {"schedule-policy": "lpm"}
    trials = numbered(
        measured(90.0, flags={**lpm, LIMIT: 16}),
        measured(100.0, flags={**lpm, LIMIT: 32}),
        measured(95.0, flags={**lpm, LIMIT: 64}),
        measured(200.0, flags={**lpm, LIMIT: 128}, ttft_s=3.0),
    )
    host = Candidate.of({LIMIT: 128})

    def offered(slo: Slo) -> set[int]:
        found = candidates_beside(space, slo, host, trials=trials, is_worth=lambda _: True)
        return {live_value(each, host).value for each in found}

    assert offered(OPEN) == {32, 64}
    assert 8 in offered(slo_of({"rate": 4, "requests": 300}, more=("minimise ttft p95 at rate 4",)))
