"""The real SGLang for tests: skipped where AUTOTUNE_SGLANG_CPU names no folder made by setup.sh."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autotune.space import SearchSpace
from tests.real_engine import cpu

_HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def kit() -> Path:
    """The folder that setup.sh made."""
    if not os.environ.get(cpu.FOLDER_VARIABLE):
        pytest.skip(f"{cpu.FOLDER_VARIABLE} is unset: run tests/real_engine/setup.sh DIR and set it to DIR")
    return cpu.folder()


@pytest.fixture(scope="session")
def preloaded(kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a parent that forks servers."""
    folder = tmp_path_factory.mktemp("preload")
    path = folder / "socket"
    environment = {**os.environ, **cpu.environment(), cpu.MARK_VARIABLE: "x" * cpu.MARK_ROOM}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with (folder / "log").open("wb") as log:
        parent = subprocess.Popen(
            [str(kit / "venv/bin/python"), str(_HERE / "preload.py"), str(path)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        while not path.exists():
            assert parent.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield path
    finally:
        parent.send_signal(signal.SIGTERM)
        parent.wait()


@pytest.fixture
def cpu_space(kit: Path) -> Callable[..., SearchSpace]:
    """Give search spaces on the tiny model; keys given replace those here."""

    def space(**keys: object) -> SearchSpace:
        return SearchSpace.model_validate(
            {
                "version": "0.5.23",
                "model": str(kit / "model"),
                "launcher": "process",
                "command": [sys.executable, str(_HERE / "launch.py")],
                "tune": {"chunked-prefill-size": {"int": [64, 4096]}},
                "ready_timeout_s": 300,
                **keys,
            }
        )

    return space
