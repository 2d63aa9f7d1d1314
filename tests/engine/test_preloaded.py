import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from autotune.engine.dialects import dialect_of
from autotune.engine.plan import LaunchPlan
from autotune.engine.preloaded import PRELOAD
from autotune.engine.process import ProcessLauncher
from autotune.engine.process_launch import held_ports
from autotune.engine.process_tree import MARK_VARIABLE, living, marked
from autotune.errors import InfrastructureError
from autotune.failure import EngineError, FailureKind, StartPhase
from tests.engine.launcher_contract import Arrange, LauncherContract, Phases, Situation
from tests.engine.test_process import _SHORT, _STUDY, failure_soon, plan_of, post

_FAKE = Path(__file__).parents[1] / "support" / "fake_sglang"
_COMMAND = (sys.executable, "-m", "sglang.launch_server")


def preloadable(*behaviours: str, **keys: object) -> LaunchPlan:
    environment = {"PYTHONPATH": str(_FAKE), **dict(keys.pop("environment", ()))}  # type: ignore[call-overload]
    return plan_of(*behaviours, command=_COMMAND, environment=environment, **keys)  # type: ignore[arg-type]


def preloading_launcher() -> ProcessLauncher:
    return ProcessLauncher(_SHORT, preload_program=dialect_of("sglang").preload_program)


def servers(study: str = _STUDY) -> list[psutil.Process]:
    return living(marked(lambda mark: mark.study == study and mark.trial != PRELOAD))


def programs(study: str = _STUDY) -> list[psutil.Process]:
    return living(marked(lambda mark: mark.study == study and mark.trial == PRELOAD))


def until(is_so: Callable[[], bool]) -> None:
    for _ in range(1000):
        if is_so():
            return
        time.sleep(0.01)
    pytest.fail("it never became so")


@pytest.fixture(scope="module")
def launcher() -> ProcessLauncher:
    return preloading_launcher()


class TestPreloadingLauncher(LauncherContract):
    @pytest.fixture
    def arrange(self) -> Arrange:
        def plan(situation: Situation) -> LaunchPlan:
            match situation:
                case Situation.GOOD:
                    return preloadable()
                case Situation.NO_KV_MEMORY:
                    return preloadable("no-memory")
                case Situation.NEVER_READY:
                    return preloadable("never-ready", ready_timeout_s=1.5)

        return plan

    def assert_gone(self, plan: LaunchPlan) -> None:
        assert servers() == []
        assert held_ports(plan) == []


def test_every_launch_is_a_fork_of_one_program(launcher: ProcessLauncher, tmp_path: Path) -> None:
    seen = []
    for number in range(2):
        with launcher.launch(preloadable(), tmp_path / str(number), Phases()):
            (server,) = servers()
            (program,) = programs()
            assert server.ppid() == program.pid
            seen.append((server.pid, program.pid))
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] == seen[1][1]


def test_each_launch_has_its_own_log_and_session(launcher: ProcessLauncher, tmp_path: Path) -> None:
    for number in range(2):
        with launcher.launch(preloadable(), tmp_path / str(number), Phases()):
            (server,) = servers()
            assert os.getsid(server.pid) == server.pid
            assert Path(f"/proc/{server.pid}/fd/1").readlink() == tmp_path / str(number) / "engine-rank0.log"
    logs = [(tmp_path / name / "engine-rank0.log").read_text() for name in "01"]
    assert [log.count("ready to roll") for log in logs] == [1, 1]


def test_a_server_carries_its_own_mark_and_so_do_its_children(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    with launcher.launch(preloadable("grandchild"), tmp_path, Phases()):
        until(lambda: len(servers()) == 2)  # the process between them ends meanwhile
        marks = {each.environ()[MARK_VARIABLE].rstrip() for each in servers()}
        assert {mark.rsplit("/", 3)[1] for mark in marks} == {"0007"}
    assert servers() == []


def test_two_ranks_are_forked_and_end_together(launcher: ProcessLauncher, tmp_path: Path) -> None:
    with launcher.launch(preloadable(nodes=2), tmp_path, Phases()) as engine:
        assert engine.failure() is None
        assert len(servers()) == 2
    assert servers() == []


@pytest.mark.parametrize(
    ("behaviour", "kind", "exit_code"),
    [
        ("bad-argument", FailureKind.BAD_ARGUMENT, 2),
        ("no-memory", FailureKind.NO_KV_MEMORY, -9),
        ("silent-exit", FailureKind.CRASHED, 3),
        ("exits-with-words", FailureKind.CRASHED, 1),
        ("raises", FailureKind.CRASHED, 1),
    ],
)
def test_a_server_that_ends_at_start_is_classified_with_its_exit_code(
    launcher: ProcessLauncher, tmp_path: Path, behaviour: str, kind: FailureKind, exit_code: int
) -> None:
    with (
        pytest.raises(EngineError) as caught,
        launcher.launch(preloadable(behaviour), tmp_path, Phases()),
    ):
        pytest.fail("it must not become ready")
    assert (caught.value.failure.kind, caught.value.failure.exit_code) == (kind, exit_code)


def test_a_server_that_dies_leaves_no_zombie(launcher: ProcessLauncher, tmp_path: Path) -> None:
    plan = preloadable()
    with launcher.launch(plan, tmp_path, Phases()) as engine:
        (server,) = servers()
        post(plan, "/die?kill")
        failure = failure_soon(engine)
        assert (failure.kind, failure.exit_code) == (FailureKind.CRASHED, -9)
        until(lambda: not psutil.pid_exists(server.pid))


def test_a_stubborn_server_is_killed(launcher: ProcessLauncher, tmp_path: Path) -> None:
    plan = preloadable("stubborn")
    with launcher.launch(plan, tmp_path, Phases()):
        pass
    assert servers() == []
    assert held_ports(plan) == []


def test_a_launch_dies_with_the_program_and_the_next_one_has_a_new_one(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    with launcher.launch(preloadable("stubborn"), tmp_path / "first", Phases()) as engine:
        (program,) = programs()
        program.kill()
        failure = failure_soon(engine)
        assert (failure.kind, failure.exit_code) == (FailureKind.CRASHED, -signal.SIGKILL)
        until(lambda: servers() == [])
    with launcher.launch(preloadable(), tmp_path / "second", Phases()) as engine:
        assert engine.failure() is None
        assert [each.pid for each in programs()] != [program.pid]


def test_another_environment_needs_another_program(launcher: ProcessLauncher, tmp_path: Path) -> None:
    plan = preloadable(environment={"SOMETHING": "else"})
    with launcher.launch(preloadable(), tmp_path / "first", Phases()):
        (before,) = programs()
    with launcher.launch(plan, tmp_path / "second", Phases()):
        (after,) = programs()
        assert after.pid != before.pid
        assert servers()[0].environ()["SOMETHING"] == "else"


def test_what_cannot_be_imported_is_told_in_the_launchs_log(tmp_path: Path) -> None:
    plan = preloadable(environment={"FAKE_IMPORT_FAILS": "1"})
    with (
        pytest.raises(EngineError) as caught,
        preloading_launcher().launch(plan, tmp_path, Phases()),
    ):
        pytest.fail("it must not become ready")
    failure = caught.value.failure
    assert (failure.kind, failure.phase, failure.exit_code) == (FailureKind.CRASHED, StartPhase.PROCESS, 1)
    assert "RuntimeError: the engine cannot be imported here" in failure.line


def test_an_interrupt_while_it_imports_leaves_nothing(tmp_path: Path) -> None:
    plan = preloadable(environment={"FAKE_IMPORT_S": "60"}, ready_timeout_s=0.5)
    launcher = preloading_launcher()
    with pytest.raises(EngineError) as caught, launcher.launch(plan, tmp_path, Phases()):
        pytest.fail("it must not become ready")
    assert caught.value.failure.kind is FailureKind.NOT_READY
    assert servers() == []
    assert not any(each.environ().get("FAKE_IMPORT_S") for each in programs())


def test_the_program_ends_with_its_launcher(tmp_path: Path) -> None:
    launcher = preloading_launcher()
    labels = (("autotune.study", f"{_STUDY}-own"), ("autotune.trial", "1"))
    with launcher.launch(replace(preloadable(), labels=labels), tmp_path, Phases()):
        assert len(programs(f"{_STUDY}-own")) == 1
    assert len(programs(f"{_STUDY}-own")) == 1
    del launcher
    assert programs(f"{_STUDY}-own") == []


def test_a_command_that_is_no_module_cannot_be_preloaded(launcher: ProcessLauncher, tmp_path: Path) -> None:
    with (
        pytest.raises(InfrastructureError, match="'sglang serve --model-path' cannot be preloaded"),
        launcher.launch(plan_of(command=("sglang", "serve")), tmp_path, Phases()),
    ):
        pytest.fail("it must not start")


def test_a_missing_interpreter_is_no_fault_of_the_candidate(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    with (
        pytest.raises(InfrastructureError, match="'no-such-python' cannot be started"),
        launcher.launch(plan_of(command=("no-such-python", "-m", "x")), tmp_path, Phases()),
    ):
        pytest.fail("it must not start")


_CONTROLLER = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.engine.test_preloaded import Phases, preloadable, preloading_launcher
labels = (("autotune.study", sys.argv[1]), ("autotune.trial", "1"))
plan = replace(preloadable("stubborn,grandchild", environment={"FAKE_IMPORT_S": sys.argv[3]}), labels=labels)
print("begins", flush=True)
with preloading_launcher().launch(plan, Path(sys.argv[2]), Phases()):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Callable[[str, float], subprocess.Popen[str]]]:
    started = []

    def start(study: str, import_s: float) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _CONTROLLER, study, str(tmp_path), str(import_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_killed_controllers_program_and_server_die_and_what_detached_itself_is_removed(
    controller: Callable[[str, float], subprocess.Popen[str]],
) -> None:
    study = f"{_STUDY}-killed"
    process = controller(study, 0)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in "12"] == ["begins\n", "ready\n"]
    process.kill()
    process.wait()
    until(lambda: len(programs(study)) + len(servers(study)) == 1)  # the grandchild that left its session
    assert len(ProcessLauncher(_SHORT).remove_leftovers(study)) == 1
    assert programs(study) + servers(study) == []


def test_a_program_whose_controller_is_killed_while_it_imports_is_a_leftover(
    controller: Callable[[str, float], subprocess.Popen[str]],
) -> None:
    study = f"{_STUDY}-early"
    process = controller(study, 60)
    until(lambda: len(programs(study)) == 1)
    process.kill()
    process.wait()
    (removed,) = ProcessLauncher(_SHORT).remove_leftovers(study)
    assert "preload.py" in removed
    assert programs(study) + servers(study) == []
