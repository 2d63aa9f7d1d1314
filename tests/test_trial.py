from pathlib import Path

import pytest

from autotune.failure import FailureKind
from autotune.load.records_file import read_records
from autotune.record import Outcome, Role, TrialRecord
from autotune.request import ClientHealth
from autotune.slo import Decision, Slo
from autotune.space import Candidate
from autotune.study import Study
from autotune.trial import FindTwin, TrialOrder, run_trial
from tests.support.scripted import CRASH, NO_KV, Script, ScriptedLauncher
from tests.support.trials import STUDY

OVERLOADED = ClientHealth(loop_lag_p99_s=9.0, cpu_ratio=1.0, peak_in_flight=4)
ORDER = TrialOrder(7, Role.SEARCH, Candidate.of({"max-running-requests": 16}), None, measure_all=False)


def _run(
    launcher: ScriptedLauncher,
    folder: Path,
    *,
    study: Study = STUDY,
    order: TrialOrder = ORDER,
    find_twin: FindTwin = lambda _: None,
    phases: list[str] | None = None,
) -> TrialRecord:
    seen = [] if phases is None else phases
    return run_trial(study, order, launcher, folder, on_phase=seen.append, find_twin=find_twin)


def _study(slo: Slo) -> Study:
    return STUDY.model_copy(update={"slo": slo})


def _slo(*ceilings: str) -> Slo:
    return Slo.model_validate(
        {
            "workload": {"input_tokens": 8, "output_tokens": 4},
            "load": [{"concurrency": 2, "requests": 200}, {"concurrency": 4, "requests": 200}],
            "ceilings": list(ceilings),
            "objective": "maximise output_throughput at concurrency 2",
        }
    )


def test_a_trial_goes_through_its_phases_and_leaves_a_record_and_raw_files(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script(gap_s=0.5))
    phases: list[str] = []

    record = _run(launcher, tmp_path, phases=phases)

    assert phases == ["launch", "launch: weights", "load: concurrency 4", "teardown"]
    assert record.outcome is Outcome.MEASURED
    assert record.verdict is not None
    assert record.objectives == pytest.approx((4 * 32 / 1.0,), rel=0.1)
    assert record.durations_s["launch"] == 60.0
    assert record.durations_s["teardown"] == pytest.approx(5.0)
    assert record.duration_s == pytest.approx(launcher.clock.seconds)
    raw = read_records(tmp_path / record.points[0].file)
    assert len(raw.records) == record.points[0].summary.sent


def test_the_cache_is_emptied_before_every_load(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script())

    _run(launcher, tmp_path)

    assert launcher.log[:4] == ["launch", "load 4", "flush", "load 40"]
    assert launcher.log[-1] == "teardown"


def test_an_engine_that_does_not_start_is_a_failure_with_its_evidence(tmp_path: Path) -> None:
    record = _run(ScriptedLauncher(lambda *_: Script(start_failure=NO_KV)), tmp_path)

    assert record.outcome is Outcome.FAILED
    assert record.failure == NO_KV
    assert record.objectives is None
    assert record.durations_s["launch"] == pytest.approx(65.0)


def test_an_engine_that_dies_under_load_is_a_failure_and_its_records_are_kept(tmp_path: Path) -> None:
    slo = Slo.model_validate(
        STUDY.slo.model_dump() | {"load": [{"concurrency": 4, "requests": 40, "warm_up": 0}]}
    )

    record = _run(ScriptedLauncher(lambda *_: Script(dies=CRASH)), tmp_path, study=_study(slo))

    assert record.outcome is Outcome.FAILED
    assert record.failure is not None
    assert record.failure.kind is FailureKind.CRASHED
    assert (tmp_path / "trials/0007/concurrency-4-0.npz").exists()


def test_a_client_that_cannot_keep_up_makes_a_trial_invalid_not_slow(tmp_path: Path) -> None:
    record = _run(ScriptedLauncher(lambda *_: Script(client=OVERLOADED)), tmp_path)

    assert record.outcome is Outcome.INVALID
    assert record.reason is not None
    assert "concurrency 4" in record.reason
    assert record.objectives is None
    assert not record.points


def test_an_invalid_measurement_is_repeated_on_the_same_engine(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script(gap_s=0.5, client=OVERLOADED, overloaded_runs=2))
    phases: list[str] = []

    record = _run(launcher, tmp_path, phases=phases)

    assert record.outcome is Outcome.MEASURED
    assert launcher.log.count("launch") == 1
    assert phases[3].startswith("load: concurrency 4, again: ")
    assert [path.name for path in (tmp_path / "trials/0007").iterdir()] == ["concurrency-4.npz"]


def test_the_engine_is_torn_down_when_the_trial_is_interrupted(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script(raises=KeyboardInterrupt()))

    with pytest.raises(KeyboardInterrupt):
        _run(launcher, tmp_path)

    assert launcher.log[-1] == "teardown"


def test_a_load_point_is_measured_again_while_its_ceilings_are_undecided(tmp_path: Path) -> None:
    record = _run(ScriptedLauncher(lambda *_: Script(ttft_s=0.5)), tmp_path)

    # 36 requests a look, none over the limit: decided once the interval of 0 of n lies under 5 %
    assert record.points[0].summary.sent > 40
    assert record.points[0].summary.sent % 40 == 0


def test_a_missed_ceiling_saves_the_load_points_that_no_objective_needs(tmp_path: Path) -> None:
    study = _study(_slo("ttft p95 < 0.1s at concurrency 2", "ttft p95 < 0.1s at concurrency 4"))
    launcher = ScriptedLauncher(lambda *_: Script())

    short = _run(launcher, tmp_path, study=study)
    order = TrialOrder(8, Role.BASELINE, Candidate.of({}), None, measure_all=True)
    whole = _run(launcher, tmp_path, study=study, order=order)

    assert [point.load for point in short.points] == ["concurrency 2"]
    assert [point.load for point in whole.points] == ["concurrency 2", "concurrency 4"]
    assert short.verdict is not None
    assert short.verdict.decision is Decision.MISSED


def test_the_same_effective_flags_take_over_the_earlier_numbers_without_load(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script())
    first = _run(launcher, tmp_path)

    second = _run(launcher, tmp_path, find_twin=lambda _: (3, first))
    confirmation = TrialOrder(9, Role.CONFIRMATION, ORDER.candidate, 3, measure_all=True)
    third = _run(launcher, tmp_path, order=confirmation, find_twin=lambda _: (3, first))

    assert (second.same_as, second.objectives) == (3, first.objectives)
    assert "load" not in second.durations_s
    assert third.same_as is None


def test_a_trial_whose_requests_all_fail_has_no_value(tmp_path: Path) -> None:
    slo = Slo.model_validate(STUDY.slo.model_dump() | {"objective": "minimise ttft p95 at concurrency 4"})
    launcher = ScriptedLauncher(lambda *_: Script(failing=True))

    record = _run(launcher, tmp_path, study=_study(slo))

    assert record.outcome is Outcome.INVALID
    assert record.points[0].summary.error_ratio == 1.0
