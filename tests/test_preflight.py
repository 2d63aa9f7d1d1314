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
        "command": [sys.executable, "-m", "engine"],
        "port": _free_port(),
        "rendezvous_port": _free_port(),
    }
    return STUDY.model_copy(update={"space": SearchSpace.model_validate(data | changes)})


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def _problems(**changes: Any) -> list[str]:
    return [str(problem) for problem in preflight(_study(**changes))]


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

    assert "MiB free" in str(preflight(STUDY, tmp_path)[0])
