import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from autotune.engine.dialect import EffectiveFlags, LiveFlag
from autotune.engine.launcher import HttpAddress
from autotune.engine.launchers import open_launcher
from autotune.failure import EngineFailure, FailureKind, LiveRefusedError, StartPhase
from autotune.load.answers import read_sheet
from autotune.load.records_file import read_records
from autotune.order import TrialOrder
from autotune.record import AnswersRecord, Outcome, Role, TrialRecord
from autotune.request import ClientHealth
from autotune.slo import Ceiling, Course, Decision, Slo, StopKind
from autotune.space import Candidate
from autotune.study import Study
from autotune.trial import FindTwin, run_trial
from tests.support.scripted import CRASH, NO_KV, NOT_READY, Script, ScriptedLauncher
from tests.support.simulated_server import simulated_server
from tests.support.sse_server import Fault, serving
from tests.support.sse_server import Script as ServerScript
from tests.support.trials import STUDY

OVERLOADED = ClientHealth(loop_lag_p99_s=9.0, cpu_ratio=1.0, peak_in_flight=4)
ORDER = TrialOrder(7, Role.SEARCH, Candidate.of({"max-running-requests": 16}), None, measure_all=False)

OF_THE_NODE = {
    FailureKind.IMAGE_MISSING,
    FailureKind.BIND_SOURCE_MISSING,
    FailureKind.NAME_TAKEN,
    FailureKind.DRIVER_ERROR,
    FailureKind.NODE_LOST,
    FailureKind.DAEMON_UNREACHABLE,
    FailureKind.DISK_FULL,
}


def _run(
    launcher: ScriptedLauncher,
    folder: Path,
    *,
    study: Study = STUDY,
    order: TrialOrder = ORDER,
    find_twin: FindTwin = lambda _: None,
    phases: list[str] | None = None,
    deadline_s: float | None = None,
) -> TrialRecord:
    seen = [] if phases is None else phases
    (record,) = run_trial(
        study, order, launcher, folder, on_phase=seen.append, find_twin=find_twin, deadline_s=deadline_s
    )
    return record


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


@pytest.mark.parametrize("kind", FailureKind)
def test_only_the_failure_of_a_node_leaves_the_candidate_unjudged(tmp_path: Path, kind: FailureKind) -> None:
    failure = EngineFailure(kind=kind, phase=StartPhase.PROCESS, line="what it said")

    record = _run(ScriptedLauncher(lambda *_: Script(start_failure=failure)), tmp_path)

    assert record.failure == failure
    assert record.outcome is (Outcome.INVALID if kind in OF_THE_NODE else Outcome.FAILED)
    assert record.is_lost_to_node is (kind in OF_THE_NODE)
    assert record.reason == (f"{kind}: what it said" if kind in OF_THE_NODE else None)


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


@pytest.mark.parametrize(
    ("role", "requests", "looks"),
    [(Role.SEARCH, 40, 3), (Role.SEARCH, 20, 1), (Role.CONFIRMATION, 20, 3), (Role.CONFIRMATION, 10, 1)],
)
def test_a_load_point_is_not_measured_again_where_no_number_of_looks_would_decide(
    tmp_path: Path, role: Role, requests: int, looks: int
) -> None:
    # 0 of 93 requests decide p95, all but four of a look count, and two confirmations are pooled
    slo = STUDY.slo.model_dump() | {"load": [{"concurrency": 4, "requests": requests}]}
    order = TrialOrder(8, role, Candidate.of({}), None, measure_all=True)
    launcher = ScriptedLauncher(lambda *_: Script(ttft_s=0.5))

    record = _run(launcher, tmp_path, study=_study(Slo.model_validate(slo)), order=order)

    assert record.points[0].summary.sent == looks * requests
    assert record.verdict is not None
    assert record.verdict.decision is (Decision.MET if requests == 40 else Decision.UNDECIDED)


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


def test_an_engine_that_serves_nothing_from_the_warm_up_on_fails_before_any_look(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script(failing_from=0))

    record = _run(launcher, tmp_path)

    assert record.outcome is Outcome.FAILED
    assert record.failure is not None
    assert record.failure.kind is FailureKind.SERVES_NOTHING
    assert record.failure.line == "all 4 requests failed, the first with timeout: late"
    assert launcher.log == ["launch", "load 4", "teardown"]
    assert record.points == ()


def test_an_engine_that_stops_serving_fails_at_that_look_with_its_numbers_kept(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script(failing_from=1))

    record = _run(launcher, tmp_path)

    assert record.outcome is Outcome.FAILED
    assert record.failure is not None
    assert record.failure.kind is FailureKind.SERVES_NOTHING
    assert record.points[0].summary.error_ratio == 1.0
    assert launcher.log.count("load 40") == 1


def test_failures_that_an_overloaded_client_may_have_caused_do_not_blame_the_engine(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script(failing_from=0, client=OVERLOADED))

    record = _run(launcher, tmp_path)

    assert record.outcome is Outcome.INVALID


def test_a_trial_without_a_value_for_its_objective_is_invalid_and_says_which(tmp_path: Path) -> None:
    changes = {
        "workload": {"input_tokens": 8, "output_tokens": 1},
        "objective": "minimise tpot p95 at concurrency 4",
    }
    slo = Slo.model_validate(STUDY.slo.model_dump() | changes)

    record = _run(ScriptedLauncher(lambda *_: Script()), tmp_path, study=_study(slo))

    assert record.outcome is Outcome.INVALID
    assert record.reason == "nothing was measured for 'minimise tpot p95 at concurrency 4'"


def test_an_engine_that_falls_silent_under_load_hangs(tmp_path: Path) -> None:
    slo = Slo.model_validate(
        STUDY.slo.model_dump() | {"load": [{"concurrency": 4, "requests": 40, "warm_up": 0}]}
    )
    for study in (STUDY, _study(slo)):
        record = _run(ScriptedLauncher(lambda *_: Script(silent_s=120.0)), tmp_path, study=study)

        assert record.outcome is Outcome.FAILED
        assert record.failure is not None
        assert (record.failure.kind, record.failure.phase) == (FailureKind.HANG, StartPhase.SERVING)
        assert record.failure.line == "no byte of any answer for 120 s with 0 requests in flight"
        assert record.failure.waited_s == 120.0
    assert (tmp_path / "trials/0007/concurrency-4-0.npz").exists()


def test_a_silent_engine_that_is_dead_is_a_crash(tmp_path: Path) -> None:
    record = _run(ScriptedLauncher(lambda *_: Script(silent_s=120.0, dies=CRASH)), tmp_path)

    assert record.failure == CRASH


def _assert_interrupted(record: TrialRecord, launcher: ScriptedLauncher) -> None:
    assert record.outcome is Outcome.INTERRUPTED
    assert record.reason == "the study's time was up"
    assert record.failure is None
    assert record.objectives is None
    assert record.verdict is None
    assert record.duration_s == pytest.approx(launcher.clock.seconds)
    assert launcher.log[-1:] in ([], ["teardown"])


def test_past_its_deadline_a_trial_launches_nothing(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script())

    record = _run(launcher, tmp_path, deadline_s=0.0)

    _assert_interrupted(record, launcher)
    assert launcher.log == []


def test_a_start_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script(start_s=600.0))

    record = _run(launcher, tmp_path, deadline_s=45.0)

    _assert_interrupted(record, launcher)
    assert record.durations_s["launch"] == pytest.approx(50.0)


def test_a_simulated_start_is_given_up_at_the_deadline_to_the_second(tmp_path: Path) -> None:
    launcher = open_launcher(STUDY.space, seed=0)

    (record,) = run_trial(
        STUDY, ORDER, launcher, tmp_path, on_phase=lambda _: None, find_twin=lambda _: None, deadline_s=7.3
    )

    assert record.outcome is Outcome.INTERRUPTED
    assert record.durations_s["launch"] == pytest.approx(7.3)


def test_an_engine_that_is_never_ready_or_fails_before_the_deadline_has_failed(tmp_path: Path) -> None:
    late = _run(ScriptedLauncher(lambda *_: Script(start_s=9e9)), tmp_path, deadline_s=1801.0)
    failing = _run(ScriptedLauncher(lambda *_: Script(start_failure=NO_KV)), tmp_path, deadline_s=61.0)

    assert late.failure == NOT_READY
    assert failing.failure == NO_KV


def test_no_load_begins_after_the_deadline(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script(start_s=60.0))

    record = _run(launcher, tmp_path, deadline_s=60.0)

    _assert_interrupted(record, launcher)
    assert record.durations_s["launch"] == 60.0
    assert launcher.log == ["launch", "teardown"]


def test_a_load_that_the_deadline_falls_into_is_not_used(tmp_path: Path) -> None:
    whole = ScriptedLauncher(lambda *_: Script())
    looks = _run(whole, tmp_path / "whole").points[0].summary.sent // 40
    launcher = ScriptedLauncher(lambda *_: Script())

    record = _run(launcher, tmp_path, deadline_s=whole.clock.seconds - 5.5)

    _assert_interrupted(record, launcher)
    assert looks > 1
    assert record.points[0].summary.sent == 40 * (looks - 1)


def test_a_deadline_that_is_not_reached_changes_nothing(tmp_path: Path) -> None:
    free = _run(ScriptedLauncher(lambda *_: Script()), tmp_path)
    bound = _run(ScriptedLauncher(lambda *_: Script()), tmp_path, deadline_s=1e6)

    assert bound == free


class RealClock:
    def now_s(self) -> float:
        return time.monotonic()

    def idle_until(self, moment_s: float) -> None:
        assert moment_s < 0  # nobody asks for it


class ServedEngine:
    """An engine whose answers come over HTTP, from a server that runs already."""

    effective = EffectiveFlags(flags={}, kv_tokens=1000)
    phases_s: ClassVar[dict[StartPhase, float]] = {}
    live_flags: ClassVar[dict[str, LiveFlag]] = {}

    def __init__(self, url: str) -> None:
        self.address = HttpAddress(url, vocabulary_size=5000)

    def flush_cache(self) -> None:
        pass

    def abort_requests(self) -> None:
        pass

    def set_live(self, name: str, value: int) -> EffectiveFlags:
        raise LiveRefusedError(f"{name} {value}")

    def failure(self) -> EngineFailure | None:
        return None


class ServedLauncher:
    is_simulated = False
    clock = RealClock()

    def __init__(self, url: str) -> None:
        self._url = url

    def remove_leftovers(self, study: str) -> tuple[str, ...]:
        return (study,)

    @contextmanager
    def launch(self, *_: object) -> Iterator[ServedEngine]:
        yield ServedEngine(self._url)


def _run_over_http(
    url: str,
    folder: Path,
    deadline_s: float | None = None,
    order: TrialOrder = ORDER,
    study: Study = STUDY,
) -> TrialRecord:
    (record,) = run_trial(
        study,
        order,
        ServedLauncher(url),
        folder,
        on_phase=lambda _: None,
        find_twin=lambda _: None,
        deadline_s=deadline_s,
    )
    return record


def test_a_load_over_http_is_stopped_at_the_deadline(tmp_path: Path) -> None:
    with serving(ServerScript(faults=[Fault.HANG_IN_STREAM])) as server:
        record = _run_over_http(server.url, tmp_path, deadline_s=time.monotonic() + 2.0)

    assert server.seen
    assert record.outcome is Outcome.INTERRUPTED
    assert record.durations_s["load"] > 0


def test_an_engine_that_falls_silent_over_http_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.measuring.SILENCE_LIMIT_S", 0.3)
    with serving(ServerScript(faults=[Fault.HANG_IN_STREAM])) as server:
        record = _run_over_http(server.url, tmp_path)

    assert record.failure is not None
    assert record.failure.kind is FailureKind.HANG
    assert record.failure.line.endswith("with 4 requests in flight")


def test_an_engine_whose_every_answer_is_an_error_fails_in_the_warm_up(tmp_path: Path) -> None:
    with serving(ServerScript(faults=[Fault.STATUS])) as server:
        record = _run_over_http(server.url, tmp_path)

    assert record.failure is not None
    assert record.failure.kind is FailureKind.SERVES_NOTHING
    assert "HTTP 500" in record.failure.line
    assert record.points == ()


STOPPING = replace(ORDER, stops_early=True)


def test_a_load_point_that_misses_its_ceiling_is_stopped_and_its_requests_are_dropped(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script(ttft_s=3.0))
    record = _run(launcher, tmp_path, order=STOPPING, study=_study(_slo("ttft p95 < 1s at concurrency 2")))

    (point,) = record.points
    assert point.stopped is not None
    assert str(point.stopped).startswith(
        "stopped after 25 of 200 requests: ttft p95 < 1s at concurrency 2 is"
    )
    assert launcher.log[-5:] == ["load 2", "flush", "load 200", "abort", "teardown"]
    assert record.outcome is Outcome.MEASURED
    assert record.verdict is not None
    assert record.verdict.decision is Decision.MISSED
    assert record.objectives == (point.summary.output_throughput_tps,)
    assert point.summary.sent == 25
    assert record.point(point.load) is point
    assert record.whole_point(point.load) is None
    assert record.stops == record.points


def test_where_the_slo_is_missed_already_the_objective_is_only_looked_at(tmp_path: Path) -> None:
    slo = _slo("ttft p95 < 1s at concurrency 4")
    slo = slo.model_copy(update={"load": slo.load[::-1]})
    record = _run(
        ScriptedLauncher(lambda *_: Script(ttft_s=3.0)), tmp_path, order=STOPPING, study=_study(slo)
    )

    assert [point.load for point in record.stops] == ["concurrency 4", "concurrency 2"]
    assert record.points[1].stopped is not None
    assert record.points[1].stopped.kind is StopKind.LOST


def test_a_stopped_load_point_that_the_generator_spoilt_is_measured_again(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script(ttft_s=3.0, client=OVERLOADED, overloaded_runs=2))
    record = _run(launcher, tmp_path, order=STOPPING, study=_study(_slo("ttft p95 < 1s at concurrency 2")))

    assert launcher.log.count("load 200") == 2
    assert [point.load for point in record.stops] == ["concurrency 2"]


def test_a_load_point_that_is_met_or_asked_for_whole_runs_to_its_end(tmp_path: Path) -> None:
    slo = _slo("ttft p95 < 1s at concurrency 2")
    good = _run(ScriptedLauncher(lambda *_: Script()), tmp_path / "a", order=STOPPING, study=_study(slo))
    whole = _run(ScriptedLauncher(lambda *_: Script(ttft_s=3.0)), tmp_path / "b", study=_study(slo))

    assert not good.stops
    assert not whole.stops


def test_a_load_over_http_is_stopped_while_it_runs_and_all_that_was_sent_is_kept(tmp_path: Path) -> None:
    slo = STUDY.slo.model_copy(
        update={"ceilings": (Ceiling.model_validate("ttft p95 < 1ms at concurrency 4"),)}
    )
    with serving(ServerScript(ttft_s=0.05)) as server:
        record = _run_over_http(server.url, tmp_path, order=STOPPING, study=_study(slo))

    (point,) = record.points
    assert point.stopped is not None
    assert record.verdict is not None
    assert record.verdict.decision is Decision.MISSED
    sent = read_records(tmp_path / point.file).records
    assert point.summary.sent == point.stopped.requests <= len(sent) < 40


def test_a_candidate_that_cannot_win_is_given_up_and_measured_no_further(tmp_path: Path) -> None:
    slo = _slo("ttft p95 < 1s at concurrency 2", "ttft p95 < 1s at concurrency 4")
    course = Course(np.arange(200) / 10, worth=40.0, to_beat=1000.0, noise_ratio=0.02)
    order = replace(STOPPING, courses={"concurrency 2": course})
    launcher = ScriptedLauncher(lambda *_: Script())
    record = _run(launcher, tmp_path, order=order, study=_study(slo))

    (point,) = record.points
    assert point.stopped is not None
    assert (point.load, point.stopped.kind) == ("concurrency 2", StopKind.NO_CHANCE)
    assert record.outcome is Outcome.MEASURED
    assert record.verdict is not None
    assert record.verdict.decision is Decision.UNDECIDED
    assert launcher.log.count("load 200") == 1
    assert _run(launcher, tmp_path, order=replace(order, stops_early=False), study=_study(slo)).stops == ()


CONFIRMATION = replace(ORDER, role=Role.CONFIRMATION, confirms=3, measure_all=True)


def test_a_confirmation_keeps_what_the_engine_answers_to_fixed_prompts(tmp_path: Path) -> None:
    with simulated_server() as url:
        records = [_run_over_http(url, tmp_path / name, order=CONFIRMATION) for name in ("a", "b")]
        searched = _run_over_http(url, tmp_path / "c")

    sheets = []
    for name, record in zip(("a", "b"), records, strict=True):
        assert record.outcome is Outcome.MEASURED
        assert record.durations_s["answers"] > 0
        assert record.answers is not None
        assert record.answers.file == "trials/0007/answers.json"
        path = tmp_path / name / record.answers.file
        assert hashlib.sha256(path.read_bytes()).hexdigest() == record.answers.sha256
        sheets.append(read_sheet(path))
    assert sheets[0] == sheets[1]
    assert (searched.answers, "answers" in searched.durations_s) == (None, False)


def test_a_simulated_confirmation_says_that_it_has_no_model_to_answer(tmp_path: Path) -> None:
    record = _run(ScriptedLauncher(lambda *_: Script()), tmp_path, order=CONFIRMATION)

    assert record.outcome is Outcome.MEASURED
    assert record.answers == AnswersRecord(reason="a simulated engine has no model that could answer")


def test_an_engine_that_streams_only_is_measured_all_the_same(tmp_path: Path) -> None:
    with serving(ServerScript()) as server:
        record = _run_over_http(server.url, tmp_path, order=CONFIRMATION)

    assert record.outcome is Outcome.MEASURED
    assert record.answers is not None
    assert record.answers.file is None
    assert record.answers.reason == "/generate answered something else than an answer"
