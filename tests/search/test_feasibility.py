import pytest

from autotune.engine.dialect import EffectiveFlags
from autotune.failure import EngineFailure, FailureKind, StartPhase
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.feasibility import MemoryLessons, infeasible_reason, same_candidate, same_effect
from autotune.space import Candidate, FlagValue, SearchSpace
from tests.support.trials import STUDY, failed, measured, numbered

FLAGS: dict[str, FlagValue] = {"max-running-requests": 16, "chunked-prefill-size": 512}


def test_a_requirement_rejects_with_its_text() -> None:
    data = STUDY.space.model_dump(by_alias=True) | {"require": ["max_running_requests > 16"]}
    space = SearchSpace.model_validate(data)

    assert infeasible_reason(space, Candidate.of(FLAGS)) == "contradicts 'require: max_running_requests > 16'"
    assert infeasible_reason(STUDY.space, Candidate.of(FLAGS)) is None


def test_an_equal_candidate_is_found_whether_it_was_measured_or_failed() -> None:
    trials = numbered(
        measured(1.0, flags=FLAGS, outcome=Outcome.INTERRUPTED),
        measured(1.0, flags=FLAGS, role=Role.CONFIRMATION),
        measured(1.0, flags=FLAGS),
        failed(),
    )

    found = same_candidate(Candidate.of(FLAGS), trials)
    crashed = same_candidate(Candidate.of({"mem-fraction-static": 0.7}), trials)

    assert found is not None
    assert found[0] == 2
    assert crashed is not None
    assert crashed[0] == 3
    assert same_candidate(Candidate.of({}), trials) is None


def test_flags_that_resolve_to_the_same_values_are_the_same_whatever_the_pool() -> None:
    flags = {"max-running-requests": 400, "schedule-policy": "fcfs"}
    trials = numbered(
        failed(),
        measured(1.0, effective=EffectiveFlags(flags=flags, running_limit=256, kv_tokens=1000)),
    )
    clamped = EffectiveFlags(flags=flags | {"max-running-requests": 300}, running_limit=256, kv_tokens=999)

    found = same_effect(Candidate.of({}), clamped, STUDY.space, trials)

    assert found is not None
    assert found[0] == 1
    other = EffectiveFlags(flags=flags | {"schedule-policy": "lpm"}, running_limit=256)
    assert same_effect(Candidate.of({}), other, STUDY.space, trials) is None


def test_flags_that_the_engine_does_not_tell_are_as_they_were_asked() -> None:
    silent = EffectiveFlags(flags={"schedule-policy": None})
    trials = numbered(measured(1.0, flags={"chunked-prefill-size": 512}, effective=silent))

    same = same_effect(Candidate.of({"chunked-prefill-size": 512}), silent, STUDY.space, trials)

    assert same is not None
    assert same_effect(Candidate.of({"chunked-prefill-size": 1024}), silent, STUDY.space, trials) is None
    assert same_effect(Candidate.of({}), silent, STUDY.space, trials) is None


CRASHED: dict[str, FlagValue] = {
    "chunked-prefill-size": 4096,
    "max-running-requests": 64,
    "mem-fraction-static": 0.85,
    "schedule-policy": "fcfs",
}


def _out_of_memory(flags: dict[str, FlagValue], minimum: float | None = None) -> TrialRecord:
    kind = FailureKind.OUT_OF_MEMORY_SERVING if minimum is None else FailureKind.NO_KV_MEMORY
    failure = EngineFailure(kind=kind, phase=StartPhase.SERVING, line="oom", minimum_mem_fraction=minimum)
    return failed(candidate=flags, failure=failure)


def _lessons(*records: TrialRecord, space: SearchSpace = STUDY.space) -> MemoryLessons:
    return MemoryLessons(space, numbered(*records))


@pytest.mark.parametrize(
    ("changes", "is_doubted"),
    [
        ({}, True),
        ({"chunked-prefill-size": 8192, "mem-fraction-static": 0.9}, True),
        ({"schedule-policy": "lpm"}, True),
        ({"chunked-prefill-size": 2048}, False),
        ({"chunked-prefill-size": 8192, "mem-fraction-static": 0.8}, False),
    ],
)
def test_what_is_as_heavy_in_everything_as_a_crash_is_doubted(
    changes: dict[str, FlagValue], is_doubted: bool
) -> None:
    doubt = _lessons(measured(1.0), _out_of_memory(CRASHED)).doubt(Candidate.of(CRASHED | changes))

    assert (doubt is not None) == is_doubted
    if doubt:
        assert "trial 1 ran out of memory" in doubt
        assert "against 4096" in doubt


def test_a_launch_that_was_as_heavy_and_ran_refutes_the_lesson() -> None:
    lessons = _lessons(_out_of_memory(CRASHED), measured(1.0, flags=CRASHED | {"mem-fraction-static": 0.9}))

    assert lessons.doubt(Candidate.of(CRASHED)) is None


def test_another_value_of_a_flag_that_may_do_anything_is_not_compared() -> None:
    data = STUDY.space.model_dump(by_alias=True)
    data["tune"] = data["tune"] | {"kv-cache-dtype": {"choices": ["auto", "fp8_e5m2"]}}
    space = SearchSpace.model_validate(data)
    lessons = _lessons(_out_of_memory(CRASHED | {"kv-cache-dtype": "auto"}), space=space)

    assert lessons.doubt(Candidate.of(CRASHED | {"kv-cache-dtype": "auto"})) is not None
    assert lessons.doubt(Candidate.of(CRASHED | {"kv-cache-dtype": "fp8_e5m2"})) is None


def test_a_failure_that_is_not_of_memory_teaches_nothing_about_it() -> None:
    failure = EngineFailure(kind=FailureKind.CRASHED, phase=StartPhase.SERVING, line="segmentation fault")

    assert _lessons(failed(candidate=CRASHED, failure=failure)).doubt(Candidate.of(CRASHED)) is None


def test_the_engines_own_minimum_is_a_fact() -> None:
    lessons = _lessons(_out_of_memory(CRASHED | {"mem-fraction-static": 0.7}, minimum=0.75))

    reason = lessons.refusal(Candidate.of({"mem-fraction-static": 0.75, "chunked-prefill-size": 512}))

    assert reason == "mem-fraction-static 0.75 is not above 0.75, the least that trial 0's engine asked for"
    assert lessons.refusal(Candidate.of({"mem-fraction-static": 0.8})) is None


def test_a_launch_does_not_take_over_what_was_measured_live_but_a_mere_candidate_does() -> None:
    effective = EffectiveFlags(flags=FLAGS, running_limit=16)
    live = measured(1.0, flags=FLAGS, effective=effective, measured_live_on=0)

    found = same_candidate(Candidate.of(FLAGS), numbered(live))

    assert same_effect(Candidate.of(FLAGS), effective, STUDY.space, numbered(live)) is None
    assert found is not None
    taken = TrialRecord(
        outcome=Outcome.INFEASIBLE, role=Role.SEARCH, candidate=FLAGS, is_simulated=True, began_s=0.0
    ).take_over(*found)
    assert (taken.measured_live_on, taken.is_launch) == (0, False)


def test_a_load_that_was_survived_live_does_not_refute_a_crash_at_launch() -> None:
    heavier: dict[str, FlagValue] = {"mem-fraction-static": 0.8, "max-running-requests": 64}
    crash = EngineFailure(kind=FailureKind.OUT_OF_MEMORY_LOADING, phase=StartPhase.WEIGHTS, line="boom")
    crashed = failed(candidate=heavier, failure=crash)
    live = measured(1.0, flags=heavier, measured_live_on=0)

    lessons = MemoryLessons(STUDY.space, numbered(crashed, live))

    assert lessons.doubt(Candidate.of(heavier)) is not None
