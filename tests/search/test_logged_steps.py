from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from autotune.engine.dialect import DecodeStep
from autotune.engine.simulated import SimulatedLauncher
from autotune.failure import EngineFailure, FailureKind, StartPhase
from autotune.load.workload import offer
from autotune.metrics import Metric, measure
from autotune.record import TrialRecord
from autotune.request import OfferedLoad, Request
from autotune.search.budget import Budget
from autotune.search.calibration.calibrated import calibrated_profile, fit_table
from autotune.search.calibration.case import Case, Statistic, statistics
from autotune.search.calibration.evidence import Evidence, argv_of, evidence_of
from autotune.search.calibration.fit import Calibration, calibrate
from autotune.search.calibration.steps import LoggedSteps, StepGroup, grouped
from autotune.search.study_history import StudyHistory
from autotune.search.twin import Twin
from autotune.simulator.arguments import to_argv
from autotune.simulator.costs import PassLoad, StepCosts
from autotune.simulator.log_text import decode_batch
from autotune.simulator.profile import Profile, StepSeconds
from autotune.simulator.rehearsal import rehearse
from autotune.space import FlagValue
from autotune.tuner import tune
from tests.support.simulated import profile_without_noise
from tests.support.trials import STUDY, failed, measured, numbered

FACTORS = st.floats(1.3, 2.0) | st.floats(0.5, 0.77)
LEVELS = (1, 4, 16, 50, 128)
LENGTHS = (300, 1200, 2500)
DIED = EngineFailure(kind=FailureKind.OUT_OF_MEMORY_SERVING, phase=StartPhase.SERVING, line="out of memory")


def _off_by(factor: float) -> Profile:
    shipped = profile_without_noise().step
    names = ("decode_fixed_s", "decode_sequence_s", "decode_context_s", "decode_longest_s")
    return profile_without_noise(**{name: getattr(shipped, name) * factor for name in names})


def _seconds(profile: Profile, running: int, tokens: int) -> float:
    """What a step takes, by the simulator's own costs rather than by what the fit replays."""
    costs = StepCosts(profile, decode_graph_max_batch=256, seed=0)
    load = PassLoad(0, 0.0, running, tokens, tokens // running)
    return costs.decode_ends_s(load, now_s=0.0, most_steps=1, until_s=1e9)[0]


def _steps(profile: Profile) -> list[DecodeStep]:
    return [
        DecodeStep(running, running * length, _seconds(profile, running, running * length))
        for running in LEVELS
        for length in LENGTHS
    ]


def _error(profile: Profile, truth: Profile) -> float:
    ratios = [_seconds(profile, each.running, int(each.tokens)) / each.seconds - 1 for each in _steps(truth)]
    return float(np.abs(ratios).mean())


def _spread(count: int) -> list[float]:
    return [1 + 0.05 * (each - count // 2) for each in range(count)]


def _constants() -> tuple[StepSeconds, None]:
    return profile_without_noise().step, None


def _losses(group: StepGroup) -> float:
    return float(LoggedSteps([group], least_noise=0.05).losses(profile_without_noise().step, None)[0])


LAUNCHES: list[dict[str, FlagValue]] = [{}, {"max-running-requests": 16}]


def _case(truth: Profile, trial: int, flags: dict[str, FlagValue]) -> Case:
    argv = tuple(to_argv({"model-path": "m", **flags}))
    requests = tuple(Request(index, 400 + 7 * index, 60 + index) for index in range(80))
    load = OfferedLoad(requests, 40)
    wanted: tuple[Statistic, ...] = (
        (Metric.OUTPUT_THROUGHPUT, ""),
        (Metric.TTFT, "p95"),
        (Metric.TPOT, "mean"),
    )
    rehearsal = rehearse(truth, argv, [load])
    assert rehearsal is not None
    values = statistics(rehearsal.schedules[0].replay(truth.step, truth.experts), wanted)
    return Case("c", trial, argv, load, dict(zip(wanted, values.tolist(), strict=True)))


def _unexplained(fit: Calibration, truth: Profile) -> float:
    """How far off a launch is that was not fitted to."""
    other = _case(truth, 9, {"chunked-prefill-size": 1024})
    rehearsal = rehearse(fit.profile, other.argv, [other.load])
    assert rehearsal is not None
    served = rehearsal.schedules[0].replay(fit.profile.step, fit.profile.experts)
    return float(np.abs(other.expected(served) - other.logs).max())


def _lines(profile: Profile, running: int) -> list[str]:
    """Five lines of the engine, 40 steps apart."""
    seconds = _seconds(profile, running, running * 1200)
    return [
        decode_batch(
            running=running,
            used=running * (1100 + 40 * each),
            capacity=10**6,
            queued=0,
            tokens_per_s=running / seconds,
            has_graph=True,
        )
        for each in range(5)
    ]


def _write_log(folder: Path, number: int, profile: Profile) -> Path:
    log = folder / "trials" / f"{number:04d}" / "engine-rank0.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("\n".join([*chain(*(_lines(profile, each) for each in LEVELS)), ""]), encoding="utf-8")
    return log


def _evidence(folder: Path | None, *records: TrialRecord) -> Evidence:
    return evidence_of(STUDY.space, STUDY.slo, numbered(*records), folder=folder)


def _frozen(number: int, record: TrialRecord) -> FrozenTrial:
    trial = create_trial(state=TrialState.FAIL, user_attrs={"record": record.model_dump_json()})
    trial.number = number
    return trial


def _seen(profile: Profile, flags: dict[str, FlagValue]) -> TrialRecord:
    """A record of what this profile does."""
    record = measured(1.0, flags=flags)
    argv = argv_of(STUDY.space, record.to_candidate())
    rehearsal = rehearse(profile, argv, [offer(STUDY.slo.workload, STUDY.slo.load[0], salt=0)])
    assert rehearsal is not None
    summary = measure(rehearsal.results[0].records, concurrency=4).summary()
    return record.model_copy(update={"points": (record.points[0].model_copy(update={"summary": summary}),)})


@settings(max_examples=15, deadline=None)
@given(FACTORS)
def test_lines_alone_pull_decode_steps_that_are_far_off_to_the_truth(factor: float) -> None:
    truth = _off_by(factor)
    lines = [group for trial in range(3) for group in grouped(trial, _steps(truth))]

    fit = calibrate(profile_without_noise(), (), lines)

    before = _error(profile_without_noise(), truth)
    assert _error(fit.profile, truth) < 0.25 * before
    assert fit.deviations["decode_fixed_s"] < 0.5
    assert fit.profile.step.extend_token_s == pytest.approx(profile_without_noise().step.extend_token_s)


def test_thousands_of_lines_weigh_as_much_as_a_few() -> None:
    steps = [replace(step, tokens=step.tokens + more) for step in _steps(_off_by(1.5)) for more in range(200)]

    few, many = grouped(0, _steps(_off_by(1.5))), grouped(0, steps)

    assert len(many) == len(few) == len(LEVELS)
    assert sum(group.lines for group in many) == 3000
    one, other = (LoggedSteps(each, least_noise=0.05).losses(*_constants()) for each in (few, many))
    assert np.square(other).sum() == pytest.approx(np.square(one).sum(), rel=0.1)


def test_the_lines_of_a_launch_count_less_the_more_loads_were_measured_on_it() -> None:
    groups = grouped(3, _steps(_off_by(1.5)))

    alone, beside_four, elsewhere = (
        np.square(LoggedSteps(groups, loads=loads, least_noise=0.05).losses(*_constants())).sum()
        for loads in ((), (3, 3, 3, 3), (1, None))
    )

    assert beside_four == pytest.approx(alone / 4)
    assert elsewhere == pytest.approx(alone)


def test_a_level_whose_lines_disagree_is_believed_less() -> None:
    calm = [DecodeStep(8, 1000, 0.01) for _ in range(9)]
    restless = [
        replace(step, seconds=step.seconds * factor) for step, factor in zip(calm, _spread(9), strict=True)
    ]

    (sure,), (unsure,) = grouped(0, calm), grouped(0, restless)

    assert sure.spread == 0
    assert unsure.spread > 0.1
    assert unsure.step == calm[0]
    assert abs(_losses(unsure)) < abs(_losses(sure))


def test_steps_without_a_graph_are_told_apart_from_those_with_one() -> None:
    steps = [replace(step, seconds=step.seconds * 1.67, has_graph=False) for step in _steps(_off_by(1))]
    groups = [group for trial in range(3) for group in grouped(trial, [*steps, *_steps(_off_by(1))])]

    fit = calibrate(profile_without_noise(), (), groups)

    assert len(groups) == 3 * 2 * len(LEVELS)
    assert fit.profile.step.eager_decode_ratio > 1.45
    assert _error(fit.profile, _off_by(1)) < 0.06


def test_records_and_lines_together_are_no_worse_than_records_alone() -> None:
    for factor in (0.6, 1.7):
        truth = _off_by(factor)
        cases = [_case(truth, trial, flags) for trial, flags in enumerate(LAUNCHES)]
        lines = [group for trial in range(len(LAUNCHES)) for group in grouped(trial, _steps(truth))]

        alone = calibrate(profile_without_noise(), cases)
        together = calibrate(profile_without_noise(), cases, lines)

        assert _error(together.profile, truth) <= _error(alone.profile, truth) + 0.002
        assert _unexplained(together, truth) <= _unexplained(alone, truth) + 0.002
        assert sum(together.deviations.values()) < sum(alone.deviations.values())


def test_an_engine_that_died_while_it_served_still_tells_its_steps(tmp_path: Path) -> None:
    _write_log(tmp_path, 0, _off_by(1.5))

    evidence = _evidence(tmp_path, failed(failure=DIED))

    assert evidence.cases == ()
    assert [(group.trial, group.step.running) for group in evidence.steps] == [(0, each) for each in LEVELS]
    assert [group.lines for group in evidence.steps] == [4] * len(LEVELS)
    assert _evidence(None, failed(failure=DIED)).steps == ()


def test_a_log_is_evidence_once_and_that_of_a_sick_node_is_none(tmp_path: Path) -> None:
    for number in range(4):
        _write_log(tmp_path, number, _off_by(1.5))
    sick = failed(failure=DIED.model_copy(update={"kind": FailureKind.NODE_LOST}))
    live = measured(900.0, measured_live_on=0)

    evidence = _evidence(tmp_path, measured(1000.0), live, measured(1000.0, same_as=0), sick)

    assert {group.trial for group in evidence.steps} == {0}


def test_a_log_is_read_again_once_live_values_made_it_longer(tmp_path: Path) -> None:
    log = _write_log(tmp_path, 0, _off_by(1.5))
    before = _evidence(tmp_path, measured(1000.0)).steps
    with log.open("a", encoding="utf-8") as more:
        more.write("\n".join(_lines(_off_by(1.5), 90)))

    after = _evidence(tmp_path, measured(1000.0)).steps

    assert _evidence(tmp_path, measured(1000.0)).steps is not before
    assert {group.step.running for group in after} - {group.step.running for group in before} == {90}


def test_the_twin_learns_from_the_log_of_an_engine_that_died(tmp_path: Path) -> None:
    for number in range(3):
        _write_log(tmp_path, number, _off_by(1.5))
    blind, twin = (
        Twin(profile_without_noise(), STUDY.space, STUDY.slo, folder=folder) for folder in (None, tmp_path)
    )
    trials = [_frozen(number, failed(failure=DIED)) for number in range(3)]

    blind.learn(trials)
    twin.learn(trials)
    learnt = twin.calibration
    twin.learn(trials)

    assert blind.calibration.profile == profile_without_noise()
    assert _error(learnt.profile, _off_by(1.5)) < 0.1
    assert twin.calibration is learnt


def test_after_many_launches_only_lines_that_contradict_move_the_twin(tmp_path: Path) -> None:
    twin = Twin(profile_without_noise(), STUDY.space, STUDY.slo, folder=tmp_path)
    records = [_seen(profile_without_noise(), {"max-running-requests": 8 * number}) for number in range(1, 9)]
    twin.learn([_frozen(number, record) for number, record in enumerate(records)])
    settled = twin.calibration

    _write_log(tmp_path, 8, profile_without_noise())
    twin.learn([_frozen(8, failed(failure=DIED))])
    assert twin.calibration is settled

    _write_log(tmp_path, 9, _off_by(2.0))
    twin.learn([_frozen(9, failed(failure=DIED))])
    assert {group.trial for group in twin.calibration.steps} == {8, 9}


def test_a_calibrated_profile_says_how_many_lines_it_used_and_how_far_off_they_are(tmp_path: Path) -> None:
    launcher = SimulatedLauncher(_off_by(1.6), 0)
    history = tune(STUDY, launcher, Budget(launches=2, finalists=1), tmp_path, observe=lambda _: None)
    _write_log(tmp_path, 0, _off_by(1.6))

    profile = calibrated_profile(history)

    assert profile.fit is not None
    assert profile.fit.log_lines == 4 * len(LEVELS)
    assert profile.fit.decode_step is not None
    assert 0 <= profile.fit.decode_step < 0.05
    assert f"and {profile.fit.log_lines} lines of their logs" in profile.provenance.source
    assert f"decode steps by {profile.fit.log_lines} lines of the engines' logs" in fit_table(profile)


def test_a_study_whose_engines_all_died_is_calibrated_by_their_logs(tmp_path: Path) -> None:
    _write_log(tmp_path, 0, _off_by(1.5))
    history = StudyHistory(STUDY, tmp_path, numbered(failed(failure=DIED)), 0, None)

    profile = calibrated_profile(history)

    assert "trials 0: " in profile.provenance.source
    assert profile.fit is not None
    assert profile.fit.loads == ()
