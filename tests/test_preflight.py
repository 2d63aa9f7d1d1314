import socket
import sys
from pathlib import Path
from typing import Any

from autotune.preflight import preflight
from autotune.space import SearchSpace
from autotune.study import Study
from tests.support.trials import STUDY


def _study(**changes: Any) -> Study:
    data = STUDY.space.model_dump(by_alias=True) | {
        "launcher": "process",
        "command": [sys.executable, "-m", "pytest"],
        "port": _free_port(),
        "rendezvous_port": _free_port(),
    }
    return STUDY.model_copy(update={"space": SearchSpace.model_validate(data | changes)})


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


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


def test_a_baseline_that_the_engine_would_refuse_is_named() -> None:
    problems = _problems(flags={"page-size": 64, "chunked-prefill-size": 100}, tune={
        "max-running-requests": {"int": [1, 2]}
    })  # fmt: skip

    assert len(problems) == 1
    assert "the engine would refuse the baseline" in problems[0]


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


def _script(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def _install(folder: Path, version: str) -> dict[str, str]:
    """An engine that python finds, as an environment."""
    (folder / "sglang").mkdir()
    (folder / "sglang" / "__init__.py").write_text("raise SystemExit('must not be imported')")
    (folder / "sglang.dist-info").mkdir()
    (folder / "sglang.dist-info" / "METADATA").write_text(f"Name: sglang\nVersion: {version}\n")
    return {"PYTHONPATH": str(folder)}


def test_an_engine_that_is_not_installed_is_named() -> None:
    problems = _problems(command=[sys.executable, "-m", "no_such_engine.serve"])

    assert len(problems) == 1
    assert "has no package 'no_such_engine'" in problems[0]


def test_an_engine_of_another_version_is_named_whichever_way_it_is_started(tmp_path: Path) -> None:
    environment = _install(tmp_path, "0.5.16")
    (tmp_path / "bin").mkdir()
    script = _script(tmp_path / "bin", "sglang", f"#!{sys.executable}\n")

    for command in ([sys.executable, "-m", "sglang.launch_server"], [script, "serve"]):
        problems = _problems(command=command, environment=environment)
        assert len(problems) == 1
        assert "has sglang 0.5.16, not 0.5.23" in problems[0]
        assert 'version: "0.5.16"' in problems[0]


def test_the_engine_of_the_right_version_is_no_problem(tmp_path: Path) -> None:
    environment = _install(tmp_path, "0.5.23+cu129")

    assert _problems(command=[sys.executable, "-m", "sglang.launch_server"], environment=environment) == []


def test_what_does_not_tell_its_interpreter_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "sglang").write_bytes(b"\x7fELF")
    (tmp_path / "sglang").chmod(0o755)

    assert _problems(command=[str(tmp_path / "sglang"), "serve"]) == []
    assert _problems(command=[_script(tmp_path, "mine", "#!/bin/sh\n")]) == []


def test_an_interpreter_that_fails_is_named(tmp_path: Path) -> None:
    broken = _script(tmp_path, "python3", "#!/bin/sh\nexit 3\n")

    assert "does not run" in _problems(command=[broken, "-m", "sglang.launch_server"])[0]
