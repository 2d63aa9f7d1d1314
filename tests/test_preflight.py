import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from autotune.preflight import preflight
from autotune.space import SearchSpace
from autotune.study import Study
from tests.support.installed import installed_sglang
from tests.support.ports import free_port
from tests.support.trials import STUDY


def _study(**changes: Any) -> Study:
    data = STUDY.space.model_dump(by_alias=True) | {
        "launcher": "process",
        "command": [sys.executable, "-m", "pytest"],
        "port": free_port(),
        "rendezvous_port": free_port(),
    }
    return STUDY.model_copy(update={"space": SearchSpace.model_validate(data | changes)})


def _problems(**changes: Any) -> list[str]:
    return [str(problem) for problem in preflight(_study(**changes), Path())]


def test_a_machine_that_can_run_the_study_has_no_problem() -> None:
    assert _problems() == []


def test_every_problem_is_told_at_once_with_its_remedy(tmp_path: Path) -> None:
    problems = _problems(
        command=["no-such-program"], model=str(tmp_path / "nothing"), environment_from=["NOT_SET_ANYWHERE"]
    )

    assert len(problems) == 3
    assert "no program 'no-such-program'" in problems[0]
    assert "no folder" in problems[1]
    assert "export NOT_SET_ANYWHERE" in problems[2]


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("", 0)) as server:
        problems = _problems(port=server.getsockname()[1])

    assert len(problems) == 1
    assert "is taken" in problems[0]


def test_a_space_in_which_no_candidate_can_run_is_named() -> None:
    problems = _problems(
        tune={"max-running-requests": {"int": [4, 64]}}, require=["max_running_requests > 100"]
    )

    assert len(problems) == 1
    assert "none of 200 random candidates can run" in problems[0]
    assert "max_running_requests > 100" in problems[0]
    assert "Loosen 'require'" in problems[0]


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("autotune.preflight.DISK_NEEDED_BYTES", 1 << 80)

    problem = str(preflight(STUDY, tmp_path / "not" / "made" / "yet")[0])

    assert f"MiB free in {tmp_path}, where the results go" in problem


def test_processes_on_other_machines_are_named_with_a_remedy() -> None:
    nodes = [{"name": "here", "gpus": 1}, {"name": "there", "address": "192.0.2.7", "gpus": 1}]

    problems = _problems(nodes=nodes, flags={"tp-size": 2})

    assert len(problems) == 1
    assert "nodes.1.address: 192.0.2.7 is no address of this machine" in problems[0]
    assert "launcher docker" in problems[0]


def test_a_taken_rendezvous_port_matters_only_to_several_nodes() -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        two = [{"name": "a", "gpus": 1}, {"name": "b", "gpus": 1}]

        assert _problems(rendezvous_port=port) == []
        assert any("rendezvous_port" in each for each in _problems(rendezvous_port=port, nodes=two))


def test_secrets_that_are_set_and_simulated_studies_need_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET_HERE", "1")

    assert _problems(environment_from=["SET_HERE"]) == []
    assert _problems(launcher="simulated", environment_from=["NOT_SET_ANYWHERE"], command=["no-such"]) == []


def test_the_nodes_of_the_docker_launcher_are_asked_and_this_machine_is_not() -> None:
    node = {"name": "node7", "gpus": 1, "docker": "unix:///no/such/docker.sock"}

    problems = _problems(launcher="docker", image="i", nodes=[node], command=["no-such-program"])

    assert problems
    assert "node7" in problems[0]
    assert not any("no-such-program" in problem for problem in problems)


def test_an_engine_that_is_not_installed_is_named() -> None:
    problems = _problems(command=[sys.executable, "-m", "no_such_engine.serve"])

    assert len(problems) == 1
    assert "has no package 'no_such_engine'" in problems[0]


def test_an_engine_of_another_version_is_named_with_its_remedy(tmp_path: Path) -> None:
    environment = installed_sglang(tmp_path, "0.5.16")

    problems = _problems(command=[sys.executable, "-m", "sglang.launch_server"], environment=environment)

    assert len(problems) == 1
    assert "has sglang 0.5.16, not 0.5.23" in problems[0]
    assert 'version: "0.5.16"' in problems[0]


@pytest.mark.parametrize("version", ["0.5.23", "0.5.23+cu129"])
def test_the_engine_of_the_right_version_is_no_problem(tmp_path: Path, version: str) -> None:
    environment = installed_sglang(tmp_path, version)

    assert _problems(command=[sys.executable, "-m", "sglang.launch_server"], environment=environment) == []


def test_a_program_that_does_not_tell_its_engine_is_no_problem(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)

    assert _problems(command=[str(mine)]) == []


def test_an_interpreter_that_fails_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)

    assert "does not run" in _problems(command=[str(broken), "-m", "sglang.launch_server"])[0]
