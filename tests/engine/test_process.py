import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest

from autotune.engine.launch_watch import Patience
from autotune.engine.launcher import RunningEngine
from autotune.engine.plan import LaunchPlan, plan_launch
from autotune.engine.process import ProcessLauncher
from autotune.engine.process_launch import held_ports
from autotune.engine.process_tree import MARK_VARIABLE, Mark, kill_until_gone, living, marked
from autotune.errors import InfrastructureError
from autotune.failure import EngineError, EngineFailure, FailureKind, LiveRefusedError, StartPhase
from autotune.space import Candidate, SearchSpace
from tests.engine.launcher_contract import Arrange, LauncherContract, Phases, Situation
from tests.support import fake_engine
from tests.support.ports import free_port

_SHORT = Patience(
    poll_s=0.02, cause_s=0.2, settle_s=0.3, flush_s=0.3, stop_s=2, stop_loading_s=0.3, release_s=10
)
_STUDY = f"study-{os.getpid()}"


def plan_of(
    *behaviours: str,
    nodes: int = 1,
    ready_timeout_s: float = 20.0,
    address: str = "127.0.0.1",
    gpus: int = 0,
    command: tuple[str, ...] = (sys.executable, "-S", "-E", fake_engine.__file__),
    **keys: object,
) -> LaunchPlan:
    model = SearchSpace.model_validate(
        {
            "version": "0.5.23",
            "model": "/models/tiny",
            "launcher": "process",
            "command": command,
            "nodes": [{"name": f"node{rank}", "address": address, "gpus": gpus} for rank in range(nodes)],
            "flags": {"fake": ",".join(behaviours)} if behaviours else {},
            "tune": {"chunked-prefill-size": {"int": [64, 8192]}},
            "ready_timeout_s": ready_timeout_s,
            **keys,
        }
    )
    return plan_launch(
        model,
        Candidate.of({"chunked-prefill-size": 128}),
        study=_STUDY,
        trial="0007",
        port=free_port(nodes),
        rendezvous_port=free_port(),
    )


def processes_of(study: str = _STUDY) -> list[psutil.Process]:
    return living(marked(lambda mark: mark.study == study))


def failure_of(plan: LaunchPlan, folder: Path) -> EngineFailure:
    with (
        pytest.raises(EngineError) as caught,
        ProcessLauncher(_SHORT).launch(plan, folder, Phases()),
    ):
        pytest.fail("it must not become ready")
    assert_nothing_left(plan)
    return caught.value.failure


def assert_nothing_left(plan: LaunchPlan) -> None:
    assert processes_of() == []
    assert held_ports(plan) == []


def post(plan: LaunchPlan, path: str) -> None:
    with suppress(OSError):  # it died, as it was told
        urlopen(Request(f"{plan.base_url}{path}", method="POST"), timeout=5).close()  # noqa: S310 - own server


def killed_and_replaced(plan: LaunchPlan) -> socket.socket:
    post(plan, "/die?kill")
    while held_ports(plan):
        time.sleep(0.01)
    return socket.create_server(("127.0.0.1", plan.port))


def failure_soon(engine: RunningEngine) -> EngineFailure:
    for _ in range(200):
        failure = engine.failure()
        if failure is not None:
            return failure
        time.sleep(0.02)
    pytest.fail("no failure was noticed")


class TestProcessLauncher(LauncherContract):
    @pytest.fixture
    def launcher(self) -> ProcessLauncher:
        return ProcessLauncher(_SHORT)

    @pytest.fixture
    def arrange(self) -> Arrange:
        def plan(situation: Situation) -> LaunchPlan:
            match situation:
                case Situation.GOOD:
                    return plan_of()
                case Situation.NO_KV_MEMORY:
                    return plan_of("no-memory")
                case Situation.NEVER_READY:
                    return plan_of("never-ready", ready_timeout_s=0.5)

        return plan

    def assert_gone(self, plan: LaunchPlan) -> None:
        assert_nothing_left(plan)


def test_effective_flags_and_the_vocabulary_are_read_from_the_engine(tmp_path: Path) -> None:
    plan = plan_of()
    with ProcessLauncher(_SHORT).launch(plan, tmp_path, Phases()) as engine:
        assert engine.effective.flags["chunked-prefill-size"] == 128
        assert engine.effective.flags["max-running-requests"] == 2500
        assert engine.effective.running_limit == 2500
        assert engine.effective.version == "0.5.23"
        assert engine.address.vocabulary_size == fake_engine.VOCABULARY
        assert engine.address.base_url == plan.base_url


def test_an_engine_that_does_not_tell_its_vocabulary_gets_prompts_of_few_tokens(tmp_path: Path) -> None:
    with ProcessLauncher(_SHORT).launch(plan_of("no-model-info"), tmp_path, Phases()) as engine:
        assert engine.address.vocabulary_size == 1000


def test_an_engine_that_dies_when_it_is_first_asked_has_failed(tmp_path: Path) -> None:
    failure = failure_of(plan_of("dies-early"), tmp_path)
    assert (failure.kind, failure.phase) == (FailureKind.CRASHED, StartPhase.SERVING)


def test_what_processes_measure_is_no_simulation() -> None:
    assert not ProcessLauncher().is_simulated


def test_the_phases_of_the_log_are_reported(tmp_path: Path) -> None:
    phases = Phases()
    with ProcessLauncher(_SHORT).launch(plan_of(), tmp_path, phases):
        skipped = (StartPhase.IMAGE, StartPhase.GRAPH_CAPTURE)
        assert phases == [phase for phase in StartPhase if phase not in skipped]


@pytest.mark.parametrize(
    ("behaviour", "expected", "words"),
    [
        ("bad-argument", (FailureKind.BAD_ARGUMENT, StartPhase.PROCESS, 2), "unrecognized arguments"),
        ("no-memory", (FailureKind.NO_KV_MEMORY, StartPhase.KV_POOL, -9), "leave no GPU memory"),
        ("crash", (FailureKind.CRASHED, StartPhase.KV_POOL, 1), "something that no table knows"),
        ("silent-exit", (FailureKind.CRASHED, StartPhase.PROCESS, 3), "exited with code 3"),
    ],
)
def test_an_engine_that_ends_at_start_is_classified_by_its_log(
    tmp_path: Path, behaviour: str, expected: tuple[FailureKind, StartPhase, int], words: str
) -> None:
    failure = failure_of(plan_of(behaviour), tmp_path)
    assert (failure.kind, failure.phase, failure.exit_code) == expected
    assert words in failure.line


def test_the_smallest_viable_fraction_is_part_of_the_failure(tmp_path: Path) -> None:
    assert failure_of(plan_of("no-memory"), tmp_path).minimum_mem_fraction == 0.1921


def test_a_logged_cause_ends_the_wait_although_the_process_stays(tmp_path: Path) -> None:
    failure = failure_of(plan_of("cause-then-hang"), tmp_path)
    assert failure.kind is FailureKind.OUT_OF_MEMORY_LOADING
    assert failure.exit_code is None


def test_a_wait_for_other_ranks_is_told_from_other_waits(tmp_path: Path) -> None:
    failure = failure_of(plan_of("no-rendezvous", ready_timeout_s=1.5), tmp_path)
    assert failure.kind is FailureKind.RENDEZVOUS_TIMEOUT


def test_an_engine_that_does_not_tell_its_flags_hangs(tmp_path: Path) -> None:
    assert failure_of(plan_of("no-info"), tmp_path).kind is FailureKind.HANG


def test_a_stubborn_engine_is_killed(tmp_path: Path) -> None:
    plan = plan_of("stubborn")
    patience = Patience(poll_s=0.02, stop_s=0.2)
    with ProcessLauncher(patience).launch(plan, tmp_path, Phases()):
        pass
    assert_nothing_left(plan)


def test_a_detached_grandchild_is_found_by_its_mark_and_killed(tmp_path: Path) -> None:
    plan = plan_of("grandchild")
    with ProcessLauncher(_SHORT).launch(plan, tmp_path, Phases()):
        assert len(processes_of()) == 2
    assert_nothing_left(plan)


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("kill", FailureKind.CRASHED, "killed by SIGKILL"),
        ("exit", FailureKind.CRASHED, "exited with code 1"),
        ("memory", FailureKind.OUT_OF_MEMORY_SERVING, "CUDA out of memory"),
    ],
)
def test_death_while_serving_is_noticed_and_classified(
    tmp_path: Path, how: str, kind: FailureKind, words: str
) -> None:
    plan = plan_of()
    with ProcessLauncher(_SHORT).launch(plan, tmp_path, Phases()) as engine:
        assert engine.failure() is None
        post(plan, f"/die?{how}")
        failure = failure_soon(engine)
        assert (failure.kind, failure.phase) == (kind, StartPhase.SERVING)
        assert words in failure.line
        assert engine.failure() == failure
    assert_nothing_left(plan)


def test_a_process_that_survives_is_named(tmp_path: Path) -> None:
    plan = plan_of("grandchild")
    with (
        pytest.raises(InfrastructureError, match=r"processes survived SIGKILL: pid \d+ \(.*fake_engine.py"),
        ProcessLauncher(Patience(poll_s=0.02, release_s=0)).launch(plan, tmp_path, Phases()),
    ):
        pass
    assert kill_until_gone(processes_of, patience_s=5) == []


def test_a_cache_that_stays_busy_is_an_engine_error(tmp_path: Path) -> None:
    with ProcessLauncher(_SHORT).launch(plan_of("busy"), tmp_path, Phases()) as engine:
        with pytest.raises(EngineError) as caught:
            engine.flush_cache()
        assert caught.value.failure.kind is FailureKind.HANG
        assert "HTTP 400" in caught.value.failure.line


def test_a_dead_engine_has_no_requests_to_drop(tmp_path: Path) -> None:
    plan = plan_of()
    with ProcessLauncher(_SHORT).launch(plan, tmp_path, Phases()) as engine:
        post(plan, "/die?memory")
        failure_soon(engine)
        with pytest.raises(EngineError):
            engine.abort_requests()


def test_a_flush_of_a_dead_engine_tells_why_it_died(tmp_path: Path) -> None:
    plan = plan_of()
    with ProcessLauncher(_SHORT).launch(plan, tmp_path, Phases()) as engine:
        post(plan, "/die?memory")
        failure_soon(engine)
        with pytest.raises(EngineError) as caught:
            engine.flush_cache()
        assert caught.value.failure.kind is FailureKind.OUT_OF_MEMORY_SERVING


@pytest.mark.parametrize(
    ("behaviour", "words"), [("not-live", r"\[false\]"), ("forgets-live", r"tells \[2500\]")]
)
def test_a_limit_that_is_not_set_live_is_no_failure_of_the_engine(
    tmp_path: Path, behaviour: str, words: str
) -> None:
    with ProcessLauncher(_SHORT).launch(plan_of(behaviour), tmp_path, Phases()) as engine:
        with pytest.raises(LiveRefusedError, match=words):
            engine.set_live("max-running-requests", 8)
        assert engine.failure() is None


def test_a_dead_engine_is_told_when_a_limit_is_to_be_set(tmp_path: Path) -> None:
    plan = plan_of()
    with ProcessLauncher(_SHORT).launch(plan, tmp_path, Phases()) as engine:
        post(plan, "/die?memory")
        failure_soon(engine)
        with pytest.raises(EngineError) as caught:
            engine.set_live("max-running-requests", 8)
        assert caught.value.failure.kind is FailureKind.OUT_OF_MEMORY_SERVING


def test_two_ranks_serve_as_one_engine_and_end_together(tmp_path: Path) -> None:
    plan = plan_of(nodes=2)
    with ProcessLauncher(_SHORT).launch(plan, tmp_path, Phases()) as engine:
        assert engine.failure() is None
        assert len(processes_of()) == 2
    assert_nothing_left(plan)
    assert {path.name for path in tmp_path.iterdir()} == {"engine-rank0.log", "engine-rank1.log"}


def test_the_death_of_another_rank_is_a_failure_that_names_the_rank(tmp_path: Path) -> None:
    plan = plan_of(nodes=2)
    with ProcessLauncher(_SHORT).launch(plan, tmp_path, Phases()) as engine:
        for process in processes_of():
            if "1" in process.cmdline()[process.cmdline().index("--node-rank") + 1]:
                process.kill()
        failure = failure_soon(engine)
        assert (failure.rank, failure.exit_code) == (1, -signal.SIGKILL)
    assert_nothing_left(plan)


def test_a_held_port_names_who_holds_it(tmp_path: Path) -> None:
    plan = plan_of()
    with (
        socket.create_server(("127.0.0.1", plan.port)),
        pytest.raises(InfrastructureError, match=rf"port {plan.port} is held by pid {os.getpid()} \("),
        ProcessLauncher(_SHORT).launch(plan, tmp_path, Phases()),
    ):
        pytest.fail("it must not start")


def test_a_node_elsewhere_is_refused(tmp_path: Path) -> None:
    plan = plan_of(address="192.0.2.7")
    with (
        pytest.raises(InfrastructureError, match=r"node0 \(192\.0\.2\.7\) is not this machine"),
        ProcessLauncher(_SHORT).launch(plan, tmp_path, Phases()),
    ):
        pytest.fail("it must not start")


def test_a_missing_command_is_no_fault_of_the_candidate(tmp_path: Path) -> None:
    plan = plan_of(command=("no-such-program",))
    with (
        pytest.raises(InfrastructureError, match="'no-such-program' cannot be started"),
        ProcessLauncher(_SHORT).launch(plan, tmp_path, Phases()),
    ):
        pytest.fail("it must not start")


def test_a_port_that_a_stranger_takes_over_is_reported_after_the_engine_ended(tmp_path: Path) -> None:
    plan = plan_of()
    patience = Patience(poll_s=0.02, settle_s=0.05, stop_loading_s=0.3, release_s=0.2)
    with (
        ExitStack() as strangers,
        pytest.raises(InfrastructureError, match=f"after the engine ended, port {plan.port} is held by pid"),
        ProcessLauncher(patience).launch(plan, tmp_path, Phases()),
    ):
        strangers.enter_context(killed_and_replaced(plan))


def test_an_interrupt_during_the_clean_up_waits_for_its_end(tmp_path: Path) -> None:
    plan = plan_of("stubborn")
    patience = Patience(poll_s=0.02, stop_s=0.5)
    with (
        pytest.raises(KeyboardInterrupt),
        ProcessLauncher(patience).launch(plan, tmp_path, Phases()),
    ):
        threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
    assert_nothing_left(plan)


def test_a_launch_in_another_thread_cleans_up_as_well(tmp_path: Path) -> None:
    plan = plan_of()
    seen: list[bool] = []

    def launch() -> None:
        with ProcessLauncher(_SHORT).launch(plan, tmp_path, Phases()) as engine:
            seen.append(engine.failure() is None)

    thread = threading.Thread(target=launch)
    thread.start()
    thread.join()
    assert seen == [True]
    assert_nothing_left(plan)


_ORPHAN = """
import sys
from tests.engine.test_process import plan_of, Phases, _SHORT
from autotune.engine.process import ProcessLauncher
from dataclasses import replace
from pathlib import Path
labels = (("autotune.study", sys.argv[1]), ("autotune.trial", "1"))
plan = replace(plan_of("stubborn,grandchild"), labels=labels)
with ProcessLauncher(_SHORT).launch(plan, Path(sys.argv[2]), Phases()):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def killed_controller(tmp_path: Path) -> Callable[[str], None]:
    def launch_and_kill(study: str) -> None:
        controller = subprocess.Popen(
            [sys.executable, "-c", _ORPHAN, study, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        with controller:
            assert controller.stdout is not None
            assert controller.stdout.readline() == b"ready\n"
            assert ProcessLauncher(_SHORT).remove_leftovers(study) == ()  # its controller lives
            controller.kill()

    return launch_and_kill


def test_what_a_killed_controller_left_is_removed_at_the_next_start(
    killed_controller: Callable[[str], None],
) -> None:
    study = f"{_STUDY}-killed"
    killed_controller(study)
    assert len(processes_of(study)) == 2
    assert ProcessLauncher(_SHORT).remove_leftovers(f"{study}-other") == ()
    with pytest.raises(InfrastructureError, match=f"leftovers of {study} cannot be killed: pid"):
        ProcessLauncher(Patience(release_s=0)).remove_leftovers(study)
    removed = ProcessLauncher(_SHORT).remove_leftovers(study)
    assert len(removed) == 2
    assert all("fake_engine.py" in name for name in removed)
    assert processes_of(study) == []


@pytest.mark.parametrize("text", ["", "s/t", "s/t/1/x", "s/t/x/1"])
def test_what_is_no_mark_is_not_taken_for_one(text: str) -> None:
    assert Mark.parse(text) is None


def test_a_mark_can_be_read_back_from_what_a_process_inherits() -> None:
    mark = Mark.of("team/r1", "0007")
    assert Mark.parse(str(mark)) == mark
    assert not mark.is_orphaned
    assert MARK_VARIABLE not in os.environ
