from pathlib import Path

import numpy as np
import pytest

from autotune.engine.dialects import dialect_of
from autotune.engine.launcher import Launcher
from autotune.engine.log_watch import LogWatch
from autotune.engine.plan import LaunchPlan, plan_launch
from autotune.engine.simulated import SimulatedLauncher
from autotune.failure import EngineError, EngineFailure, FailureKind, StartPhase
from autotune.request import LoadResult, OfferedLoad, Request
from autotune.simulator.profile import read_profile
from autotune.space import Candidate, FlagValue, SearchSpace
from tests.engine.launcher_contract import Arrange, LauncherContract, Situation

SPACE = SearchSpace.model_validate(
    {
        "version": "0.5.23",
        "model": "deepseek-ai/DeepSeek-R1",
        "launcher": "simulated",
        "profile": "deepseek-r1-2x8h100",
        "nodes": [{"name": "node0", "gpus": 8}, {"name": "node1", "gpus": 8}],
        "flags": {"tp-size": 16, "trust-remote-code": True},
        "tune": {
            "chunked-prefill-size": {"int": [64, 32768]},
            "mem-fraction-static": {"float": [0.1, 0.99]},
            "schedule-policy": {"choices": ["fcfs", "priority", "nosuch"]},
        },
    }
)
LOAD = OfferedLoad([Request(index, 1024, 32) for index in range(40)], 20)

FAILURES: list[tuple[dict[str, FlagValue], FailureKind, StartPhase, int]] = [
    ({"schedule-policy": "nosuch"}, FailureKind.BAD_ARGUMENT, StartPhase.PROCESS, 2),
    ({"schedule-policy": "priority"}, FailureKind.BAD_ARGUMENT, StartPhase.WARM_UP, -9),
    ({"mem-fraction-static": 0.4}, FailureKind.NO_KV_MEMORY, StartPhase.KV_POOL, -9),
    ({"mem-fraction-static": 0.97}, FailureKind.OUT_OF_MEMORY_LOADING, StartPhase.KV_POOL, -9),
    ({"mem-fraction-static": 0.87}, FailureKind.OUT_OF_MEMORY_CAPTURE, StartPhase.GRAPH_CAPTURE, -9),
]


def launcher_of(seed: int = 1) -> SimulatedLauncher:
    return SimulatedLauncher(read_profile("deepseek-r1-2x8h100"), seed)


def plan_of(
    flags: dict[str, FlagValue] | None = None, *, trial: str = "0001", timeout_s: float = 1800.0
) -> LaunchPlan:
    space = SPACE.model_copy(update={"ready_timeout_s": timeout_s})
    return plan_launch(space, Candidate.of(flags or {}), study="s", trial=trial)


def limited(running_requests: int) -> LaunchPlan:
    space = SPACE.model_copy(update={"flags": {**SPACE.flags, "max-running-requests": running_requests}})
    return plan_launch(space, Candidate.of({}), study="s", trial="0001")


def served(launcher: SimulatedLauncher, folder: Path, *, trial: str = "0001") -> LoadResult:
    with launcher.launch(plan_of(trial=trial), folder, lambda _phase: None) as engine:
        return engine.run(LOAD)


def failure_of(launcher: SimulatedLauncher, plan: LaunchPlan, folder: Path) -> EngineFailure:
    with pytest.raises(EngineError) as caught, launcher.launch(plan, folder, lambda _phase: None):
        pass
    return caught.value.failure


def ended_s(result: LoadResult) -> list[float]:
    return [record.ended_s for record in result.records]


class TestContract(LauncherContract):
    @pytest.fixture
    def launcher(self) -> Launcher:
        return launcher_of()

    @pytest.fixture
    def arrange(self) -> Arrange:
        plans = {
            Situation.GOOD: plan_of(),
            Situation.NO_KV_MEMORY: plan_of({"mem-fraction-static": 0.4}),
            Situation.NEVER_READY: plan_of(timeout_s=300.0),
        }
        return plans.__getitem__


def test_a_launch_passes_every_phase_and_charges_its_time(tmp_path: Path) -> None:
    launcher = launcher_of()
    phases: list[StartPhase] = []
    with launcher.launch(plan_of(), tmp_path, phases.append) as engine:
        started_s = launcher.clock.now_s()
        assert phases == list(StartPhase)[1:]  # it needs no image
        assert list(engine.phases_s) == phases[:-1]
        assert sum(engine.phases_s.values()) == pytest.approx(started_s)
        assert 11 * 60 < started_s < 16 * 60
    assert launcher.clock.now_s() == pytest.approx(started_s + 30.0)
    assert launcher.is_simulated
    assert launcher.remove_leftovers("s") == ()


def test_a_load_takes_as_much_virtual_time_as_its_records_say(tmp_path: Path) -> None:
    launcher = launcher_of()
    with launcher.launch(plan_of(), tmp_path, lambda _phase: None) as engine:
        before_s = launcher.clock.now_s()
        result = engine.run(LOAD)
        assert launcher.clock.now_s() - before_s == pytest.approx(max(ended_s(result)))
        assert engine.failure() is None
        assert len(result.records) == 40


def test_effective_flags_are_read_from_the_page_of_the_planned_version(tmp_path: Path) -> None:
    flags: dict[str, FlagValue] = {"chunked-prefill-size": 4096}
    with launcher_of().launch(plan_of(flags), tmp_path, lambda _phase: None) as engine:
        effective = engine.effective
    assert effective.version == "0.5.23"
    assert effective.kv_tokens == 394_021
    assert effective.running_limit == 2048
    assert effective.flags["chunked-prefill-size"] == 4096
    assert effective.flags["mem-fraction-static"] == 0.862
    assert effective.flags["max-running-requests"] == 2048
    assert effective.flags["schedule-policy"] == "fcfs"
    assert effective.flags["trust-remote-code"] is True
    assert "simulated" not in effective.flags


def test_noise_is_the_launchers_seed_and_the_trial(tmp_path: Path) -> None:
    first = ended_s(served(launcher_of(1), tmp_path))
    assert ended_s(served(launcher_of(1), tmp_path)) == first
    assert ended_s(served(launcher_of(2), tmp_path)) != first
    assert ended_s(served(launcher_of(1), tmp_path, trial="0002")) != first


def test_launches_differ_by_about_one_per_cent(tmp_path: Path) -> None:
    launcher = launcher_of()
    durations = [max(ended_s(served(launcher, tmp_path, trial=str(number)))) for number in range(30)]
    assert 0.004 < np.std(durations) / np.mean(durations) < 0.02


@pytest.mark.parametrize(("flags", "kind", "phase", "exit_code"), FAILURES, ids=str)
def test_a_failing_launch_is_typed_and_charged(
    tmp_path: Path, flags: dict[str, FlagValue], kind: FailureKind, phase: StartPhase, exit_code: int
) -> None:
    launcher = launcher_of()
    failure = failure_of(launcher, plan_of(flags), tmp_path)
    assert (failure.kind, failure.phase, failure.exit_code) == (kind, phase, exit_code)
    assert failure.waited_s == pytest.approx(launcher.clock.now_s())
    assert failure.waited_s > 25.0
    assert any(failure.line in line for line in failure.log_tail)


@pytest.mark.parametrize(("flags", "kind", "phase", "exit_code"), FAILURES, ids=str)
def test_the_log_of_a_failing_launch_says_the_same_to_who_only_reads_the_log(
    tmp_path: Path, flags: dict[str, FlagValue], kind: FailureKind, phase: StartPhase, exit_code: int
) -> None:
    known = failure_of(launcher_of(), plan_of(flags), tmp_path)
    dialect = dialect_of("sglang")
    watch = LogWatch(tmp_path / "engine-rank0.log", dialect.start_lines, dialect.failure_lines)
    watch.read(0.0)
    read = watch.failure(exit_code=exit_code, rank=0, waited_s=0.0)
    assert (read.kind, read.phase) == (kind, phase)
    assert read.minimum_mem_fraction == known.minimum_mem_fraction


def test_the_minimum_fraction_of_a_failure_is_one_that_a_launch_survives(tmp_path: Path) -> None:
    minimum = failure_of(launcher_of(), plan_of({"mem-fraction-static": 0.4}), tmp_path).minimum_mem_fraction
    assert minimum is not None
    above: dict[str, FlagValue] = {"mem-fraction-static": round(minimum + 0.01, 3)}
    with launcher_of().launch(plan_of(above), tmp_path, lambda _phase: None) as engine:
        assert engine.effective.kv_tokens


def test_a_launch_that_takes_too_long_is_not_ready(tmp_path: Path) -> None:
    launcher = launcher_of()
    failure = failure_of(launcher, plan_of(timeout_s=300.0), tmp_path)
    assert (failure.kind, failure.phase) == (FailureKind.NOT_READY, StartPhase.WEIGHTS)
    assert failure.waited_s == launcher.clock.now_s() == 300.0


def test_an_engine_near_the_edge_dies_under_load_and_says_so(tmp_path: Path) -> None:
    launcher = launcher_of()
    with launcher.launch(plan_of({"mem-fraction-static": 0.84}), tmp_path, lambda _phase: None) as engine:
        result = engine.run(LOAD)
        failure = engine.failure()
        with pytest.raises(EngineError):
            engine.flush_cache()
        died_s = launcher.clock.now_s()
    assert failure is not None
    assert (failure.kind, failure.phase) == (FailureKind.OUT_OF_MEMORY_SERVING, StartPhase.SERVING)
    assert all(record.failure for record in result.records)
    assert launcher.clock.now_s() == died_s


def test_flushing_makes_a_prefix_cold_again(tmp_path: Path) -> None:
    load = OfferedLoad([Request(0, 2000, 2, prefix_group=1, prefix_tokens=1900)], 1)
    with launcher_of().launch(plan_of(), tmp_path, lambda _phase: None) as engine:
        cached = [engine.run(load).records[0].cached_tokens for _ in range(2)]
        engine.flush_cache()
        cached.append(engine.run(load).records[0].cached_tokens)
    assert cached == [0, 1900, 0]


def test_a_limit_set_live_serves_as_a_launch_with_it(tmp_path: Path) -> None:
    with launcher_of().launch(limited(8), tmp_path / "launched", lambda _phase: None) as engine:
        launched = engine.run(LOAD)
    with launcher_of().launch(limited(32), tmp_path / "live", lambda _phase: None) as engine:
        assert engine.set_live("max-running-requests", 8).running_limit == 8
        live = engine.run(LOAD)
    assert ended_s(live) == pytest.approx(ended_s(launched))


def test_a_limit_is_not_set_on_an_engine_that_died(tmp_path: Path) -> None:
    plan = plan_of({"mem-fraction-static": 0.84})
    with launcher_of().launch(plan, tmp_path, lambda _phase: None) as engine:
        engine.run(LOAD)
        with pytest.raises(EngineError):
            engine.set_live("max-running-requests", 8)


def test_logs_of_all_ranks_are_marked_as_simulated(tmp_path: Path) -> None:
    served(launcher_of(), tmp_path / "trial")
    for rank in (0, 1):
        log = (tmp_path / "trial" / f"engine-rank{rank}.log").read_text()
        assert log.startswith("[simulated 00:00:00] SIMULATED ENGINE")
    log = (tmp_path / "trial" / "engine-rank0.log").read_text()
    assert "The server is fired up and ready to roll!" in log
    assert "Prefill batch, #new-seq: 8, #new-token: 8192" in log
    assert "Decode batch, #running-req: 20" in log


def test_the_engine_stops_its_clock_and_files_when_the_trial_breaks(tmp_path: Path) -> None:
    launcher = launcher_of()
    with (
        pytest.raises(KeyError),
        launcher.launch(plan_of(), tmp_path, lambda _phase: None),
    ):
        raise KeyError
    assert launcher.clock.now_s() > 700.0
