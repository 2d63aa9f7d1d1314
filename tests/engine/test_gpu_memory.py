import os
from dataclasses import replace
from pathlib import Path

import pytest

from autotune.engine.gpu_memory import driver_of, held_gpus
from autotune.engine.launch_watch import Patience
from autotune.engine.plan import LaunchPlan
from autotune.engine.process import ProcessLauncher
from autotune.errors import InfrastructureError
from autotune.space import Node
from tests.engine.launcher_contract import Phases
from tests.engine.test_process import _SHORT, plan_of, processes_of

# Prints what the file `used` holds, as `index, MiB` rows, and its own parent as the only process on a GPU.
_NVIDIA_SMI = """#!/bin/sh
case "$1" in
  --query-gpu*) cat {folder}/used ;;
  *) echo {pid} ;;
esac
"""


def plan_on(node: dict[str, object]) -> LaunchPlan:
    plan = plan_of(gpus=1)
    (rank,) = plan.ranks
    return replace(plan, ranks=(replace(rank, node=Node.model_validate(node)),))


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A driver's program that says what is in the file that is returned."""
    program = tmp_path / "nvidia-smi"
    program.write_text(_NVIDIA_SMI.format(folder=tmp_path, pid=os.getpid()))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "used"


def test_memory_in_use_is_told_with_its_holder(driver: Path) -> None:
    driver.write_text("0, 3\n1, 70000\n")
    (held,) = held_gpus(plan_of(gpus=2))
    assert held.startswith(f"70000 MiB of GPU 1 are in use, by pid {os.getpid()} (")


def test_gpus_that_the_plan_does_not_use_are_not_its_business(driver: Path) -> None:
    driver.write_text("0, 3\n1, 70000\n")
    assert held_gpus(plan_of(gpus=1)) == []
    assert held_gpus(plan_of(gpus=1, environment={"CUDA_VISIBLE_DEVICES": "1"})) != []
    assert held_gpus(plan_of(gpus=2, environment={"CUDA_VISIBLE_DEVICES": "0, 2"})) == []


def test_an_engine_keeps_to_the_gpus_that_its_node_names(driver: Path, tmp_path: Path) -> None:
    driver.write_text("0, 70000\n4, 3\n5, 70000\n")
    node = {"name": "node0", "gpus": 8, "gpu_ids": ["4", "5"]}
    held = plan_on(node)
    assert [line.partition(" are")[0] for line in held_gpus(held)] == ["70000 MiB of GPU 5"]
    driver.write_text("0, 70000\n4, 3\n5, 3\n")
    with ProcessLauncher(_SHORT).launch(plan_on(node), tmp_path / "trial", Phases()):
        (process,) = processes_of()
        assert process.environ()["CUDA_VISIBLE_DEVICES"] == "4,5"


def test_the_driver_that_tells_its_version_is_recorded_with_the_engine(driver: Path, tmp_path: Path) -> None:
    driver.write_text("0, 3, 580.159.04\n")
    with ProcessLauncher(_SHORT).launch(plan_of(gpus=1), tmp_path / "trial", Phases()) as engine:
        assert engine.effective.driver == "580.159.04"
    driver.write_text("0, 3\n")
    assert driver_of(plan_of(gpus=1)) is None
    assert driver_of(plan_of()) is None


def test_a_plan_without_gpus_asks_nobody(driver: Path) -> None:
    driver.write_text("0, 70000\n")
    assert held_gpus(plan_of()) == []


def test_where_no_driver_answers_nothing_is_said(driver: Path) -> None:
    driver.unlink(missing_ok=True)
    assert held_gpus(plan_of(gpus=1)) == []


def test_a_launch_is_refused_while_its_gpu_is_held(driver: Path, tmp_path: Path) -> None:
    driver.write_text("0, 70000\n")
    with (
        pytest.raises(InfrastructureError, match="before the launch, 70000 MiB of GPU 0 are in use, by pid"),
        ProcessLauncher(_SHORT).launch(plan_of(gpus=1), tmp_path / "trial", Phases()),
    ):
        pytest.fail("it must not start")


def test_memory_that_stays_is_told_after_the_engine_ended(driver: Path, tmp_path: Path) -> None:
    driver.write_text("0, 3\n")
    patience = Patience(poll_s=0.02, stop_loading_s=0.3, release_s=0.2)
    with (
        pytest.raises(InfrastructureError, match="after the engine ended, 70000 MiB of GPU 0 are in use"),
        ProcessLauncher(patience).launch(plan_of(gpus=1), tmp_path / "trial", Phases()),
    ):
        driver.write_text("0, 70000\n")
