"""`preload: true` on the real SGLang: it is imported once, and each launch is a fork of that."""

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from autotune.engine.launcher import Launcher
from autotune.engine.launchers import open_launcher
from autotune.engine.plan import LaunchPlan, plan_launch
from autotune.engine.process_launch import held_ports
from autotune.engine.process_tree import living, marked
from autotune.failure import EngineError, FailureKind
from autotune.space import Candidate, FlagValue, SearchSpace
from tests.engine.launcher_contract import Phases
from tests.real_engine import cpu
from tests.support.ports import free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

_STUDY = f"preload-{os.getpid()}"


@pytest.fixture(scope="module")
def space(kit: Path) -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "version": "0.5.23",
            "model": str(kit / "model"),
            "launcher": "process",
            "command": [cpu.python(), "-m", "sglang.launch_server"],
            "preload": True,
            "environment": cpu.environment(),
            "flags": cpu.flags(),
            "tune": {"chunked-prefill-size": {"int": [64, 4096]}},
        }
    )


@pytest.fixture(scope="module")
def launcher(space: SearchSpace) -> Launcher:
    return open_launcher(space, seed=0)


@pytest.fixture
def plan_of(space: SearchSpace) -> Callable[[dict[str, FlagValue]], LaunchPlan]:
    def plan(flags: dict[str, FlagValue]) -> LaunchPlan:
        return plan_launch(space, Candidate.of(flags), study=_STUDY, trial="0001", port=free_port())

    return plan


def servers() -> list[psutil.Process]:
    return living(marked(lambda mark: (mark.study, mark.trial) == (_STUDY, "0001")))


def test_relaunches_have_their_own_flags_and_every_process_its_mark(
    launcher: Launcher, plan_of: Callable[[dict[str, FlagValue]], LaunchPlan], tmp_path: Path
) -> None:
    parents = set()
    for chunk in (128, 2048):
        plan = plan_of({"chunked-prefill-size": chunk})
        with launcher.launch(plan, tmp_path / str(chunk), Phases()) as engine:
            assert engine.effective.flags["chunked-prefill-size"] == chunk
            server = psutil.Process(min(each.pid for each in servers()))
            family = {server.pid, *(child.pid for child in server.children(recursive=True))}
            assert {each.pid for each in servers()} == family
            assert len(family) >= 3
            parents.add(server.ppid())
        assert servers() == []
        assert held_ports(plan) == []
    assert len(parents) == 1


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"schedule-policy": "nonsense"}, (FailureKind.BAD_ARGUMENT, 2)),
        ({"schedule-policy": "priority"}, (FailureKind.BAD_ARGUMENT, -9)),
        # below zero: memory that others free meanwhile would make room with a little above it
        ({"mem-fraction-static": -0.5}, (FailureKind.NO_KV_MEMORY, -9)),
    ],
)
def test_a_start_that_fails_is_classified_and_gone(
    launcher: Launcher,
    plan_of: Callable[[dict[str, FlagValue]], LaunchPlan],
    tmp_path: Path,
    flags: dict[str, FlagValue],
    expected: tuple[FailureKind, int],
) -> None:
    with pytest.raises(EngineError) as caught, launcher.launch(plan_of(flags), tmp_path, Phases()):
        pytest.fail("it must not become ready")
    assert (caught.value.failure.kind, caught.value.failure.exit_code) == expected
    assert servers() == []


def test_a_program_that_dies_takes_its_server_along(
    launcher: Launcher, plan_of: Callable[[dict[str, FlagValue]], LaunchPlan], tmp_path: Path
) -> None:
    with launcher.launch(plan_of({}), tmp_path, Phases()) as engine:
        psutil.Process(min(each.pid for each in servers())).parent().kill()  # type: ignore[union-attr]
        failure = engine.failure()
        while failure is None:
            failure = engine.failure()
        assert failure.kind is FailureKind.CRASHED
    assert servers() == []
