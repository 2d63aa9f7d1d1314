from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from autotune.load.workload import offer
from autotune.metrics import measure
from autotune.record import TrialRecord
from autotune.search.calibration.evidence import argv_of
from autotune.search.twin import Twin, twin_of
from autotune.simulator.profile import Profile, read_profile
from autotune.simulator.rehearsal import rehearse
from autotune.slo import Slo, parse_ceiling
from autotune.space import Candidate, LauncherKind
from autotune.study import Study
from tests.support.trials import STUDY, measured

FLAGS: dict[str, Any] = {
    "chunked-prefill-size": 4096,
    "max-running-requests": 64,
    "mem-fraction-static": 0.8,
    "schedule-policy": "fcfs",
}


def _study(**changes: Any) -> Study:
    return STUDY.model_copy(update={"space": STUDY.space.model_copy(update=changes)})


def _twin() -> Twin:
    twin = twin_of(_study(launcher=LauncherKind.PROCESS))
    assert twin is not None
    return twin


def test_only_a_launcher_that_is_not_the_simulator_has_a_twin() -> None:
    assert twin_of(STUDY) is None
    assert twin_of(_study(launcher=LauncherKind.DOCKER, profile=None)) is None


def test_it_tells_objectives_and_ceilings_in_the_units_of_a_trial() -> None:
    prediction = _twin().predict(FLAGS)

    assert prediction.values is not None
    assert 100 < prediction.values[0] < 10_000
    assert list(prediction.constraints) == [parse_ceiling("ttft p95 < 1s at concurrency 4")["text"]]
    assert -1 <= prediction.constraints["ttft p95 < 1s at concurrency 4"] < 0
    assert prediction.room > 1


def test_a_candidate_is_predicted_once() -> None:
    twin = _twin()

    assert twin.predict(FLAGS) is twin.predict(dict(reversed(FLAGS.items())))


def test_more_memory_for_the_pool_leaves_less_room_and_hides_no_value() -> None:
    twin = _twin()
    tight = twin.predict({**FLAGS, "mem-fraction-static": 0.999})

    assert tight.room < 0 < twin.predict(FLAGS).room
    assert tight.values is not None


@pytest.mark.parametrize("flags", [{"mem-fraction-static": 0.1}, {"chunked-prefill-size": "many"}])
def test_what_cannot_start_has_no_value_and_no_room(flags: dict[str, Any]) -> None:
    prediction = _twin().predict({**FLAGS, **flags})

    assert prediction.values is None
    assert prediction.room < 0


def _frozen(number: int, record: TrialRecord, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    trial = create_trial(
        state=state,
        value=1.0 if state is TrialState.COMPLETE else None,
        user_attrs={"record": record.model_dump_json()},
    )
    trial.number = number
    return trial


def _seen(flags: dict[str, Any], profile: Profile) -> TrialRecord:
    """A measured trial whose engine was really that of another profile."""
    (point,) = STUDY.slo.load
    rehearsal = rehearse(
        profile, argv_of(STUDY.space, Candidate.of(flags)), [offer(STUDY.slo.workload, point, salt=0)]
    )
    assert rehearsal is not None
    summary = measure(rehearsal.results[0].records, concurrency=4).summary()
    record = measured(100.0, flags=flags)
    points = (record.points[0].model_copy(update={"summary": summary}),)
    return record.model_copy(update={"points": points})


def test_what_launches_showed_moves_its_predictions_and_makes_it_surer() -> None:
    slow = read_profile("llama-8b-1xh100")
    slow = slow.model_copy(update={"step": slow.step.model_copy(update={"decode_fixed_s": 0.012})})
    other = {**FLAGS, "chunked-prefill-size": 1024}
    twin, truth = _twin(), Twin(slow, STUDY.space, STUDY.slo)
    before = twin.predict(other)

    twin.learn([_frozen(0, _seen(FLAGS, slow))])

    after, true = twin.predict(other), truth.predict(other)
    assert before.values is not None
    assert after.values is not None
    assert true.values is not None
    assert before.values[0] > 1.2 * true.values[0]
    assert after.values == pytest.approx(true.values, rel=0.05)
    assert after.error < before.error
    assert [case.trial for case in twin.calibration.cases] == [0]


def test_a_trial_teaches_once_and_one_without_a_record_nothing() -> None:
    twin = _twin()
    trial = _frozen(0, measured(100.0, flags=FLAGS))
    twin.learn([trial, create_trial(state=TrialState.RUNNING)])
    calibration = twin.calibration

    twin.learn([trial])

    assert twin.calibration is calibration


def test_many_launches_that_are_explained_need_no_new_fit() -> None:
    twin, profile = _twin(), read_profile("llama-8b-1xh100")
    chunks = [{**FLAGS, "chunked-prefill-size": 512 * each} for each in range(1, 12)]
    records = [_seen(flags, profile) for flags in chunks]
    twin.learn([_frozen(number, record) for number, record in enumerate(records[:9])])
    calibration = twin.calibration

    twin.learn([_frozen(9, records[9])])
    assert twin.calibration is calibration

    slow = profile.model_copy(
        update={"step": profile.step.model_copy(update={"decode_fixed_s": 0.03, "request_s": 0.1})}
    )
    twin.learn([_frozen(10, _seen(chunks[10], slow))])
    assert twin.calibration is not calibration


def test_every_kind_of_promise_moves_with_the_constants() -> None:
    slo = STUDY.slo.model_validate(
        {
            "workload": {"input_tokens": 256, "output_tokens": 32},
            "load": [{"concurrency": 4, "requests": 40}],
            "ceilings": [
                "itl p99 < 1s at concurrency 4",
                "error_ratio < 1% at concurrency 4",
                "output_throughput > 10tok/s at concurrency 4",
                "e2e mean < 10s at concurrency 4",
            ],
            "objective": "maximise goodput at concurrency 4",
        }
    )
    fast = read_profile("llama-8b-1xh100")
    slow = fast.model_copy(update={"step": fast.step.model_copy(update={"decode_fixed_s": 0.02})})
    twin = Twin(fast, STUDY.space, slo)
    before = twin.predict(FLAGS)

    twin.learn([_frozen(0, _seen(FLAGS, slow))])

    after = twin.predict(FLAGS)
    assert before.values is not None
    assert after.values is not None
    assert after.values[0] < before.values[0]
    unmoved = "error_ratio < 1% at concurrency 4"
    assert after.constraints[unmoved] == before.constraints[unmoved]
    for text in before.constraints.keys() - {unmoved}:
        assert after.constraints[text] > before.constraints[text]


def test_it_has_no_noise_of_its_own() -> None:
    profile = read_profile("llama-8b-1xh100")

    one, other = (Twin(profile, STUDY.space, STUDY.slo).predict(FLAGS) for _ in range(2))

    assert one == other


def _twin_for(*goals: str, load: str = "concurrency 4") -> Twin:
    point = {"concurrency": 4} if load == "concurrency 4" else {"rate": 2}
    slo = Slo.model_validate(
        STUDY.slo.model_dump(exclude={"objective", "ceilings"})
        | {"load": [{**point, "requests": 40}], "objectives": [f"{goal} at {load}" for goal in goals]}
    )
    return Twin(read_profile("llama-8b-1xh100"), STUDY.space, slo)


def test_it_tells_the_course_of_a_throughput_under_a_closed_loop_and_of_nothing_else() -> None:
    twin, candidate = _twin_for("maximise output_throughput"), Candidate.of(FLAGS)

    courses = twin.courses(candidate, 500.0)

    assert list(courses) == ["concurrency 4"]
    course = courses["concurrency 4"]
    prediction = twin.predict(FLAGS)
    assert prediction.values is not None
    assert course.worth == pytest.approx(prediction.values[0])
    assert course.to_beat == 500.0
    assert len(course.sent_s) == 40
    assert list(course.sent_s) == sorted(course.sent_s)
    assert twin.courses(Candidate.of({**FLAGS, "mem-fraction-static": 0.05}), 500.0) == {}
    for goals, load in (
        (("minimise ttft p95",), "concurrency 4"),
        (("maximise goodput",), "concurrency 4"),
        (("maximise output_throughput",), "rate 2"),
        (("maximise output_throughput", "minimise ttft p95"), "concurrency 4"),
    ):
        assert _twin_for(*goals, load=load).courses(candidate, 500.0) == {}
