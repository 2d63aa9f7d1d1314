from autotune.engine.dialect import EffectiveFlags
from autotune.record import Outcome, Role
from autotune.search.feasibility import infeasible_reason, same_candidate, same_effect
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
