import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotune.engine.installed import Installed, installed_engine
from tests.support.installed import installed_sglang


def script(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("version", ["0.5.16", "0.5.23+cu129", None])
def test_the_engine_is_found_whichever_way_it_is_started_and_never_imported(
    tmp_path: Path, version: str | None
) -> None:
    environment = os.environ | installed_sglang(tmp_path, version)
    (tmp_path / "bin").mkdir()
    sglang = script(tmp_path / "bin", "sglang", f"#!{sys.executable} -s\n".encode())

    for command in ([sys.executable, "-m", "sglang.launch_server", "--host"], [sglang, "serve"]):
        found = installed_engine("sglang", command, environment)
        assert found == Installed("sglang", sys.executable, is_importable=True, version=version)


def test_what_is_not_installed_is_told() -> None:
    found = installed_engine("sglang", [sys.executable, "-m", "no_such_engine.serve"], os.environ)
    assert found == Installed("no_such_engine", sys.executable, is_importable=False, version=None)


@pytest.mark.parametrize("content", [b"\x7fELF", b"", b"#!/bin/sh\npython\n", b"#!\n", b"python\n"], ids=repr)
def test_a_program_that_does_not_name_its_interpreter_is_not_asked(tmp_path: Path, content: bytes) -> None:
    assert installed_engine("sglang", [script(tmp_path, "sglang", content), "serve"], os.environ) is None


def test_a_program_of_another_name_or_that_is_not_there_is_not_asked(tmp_path: Path) -> None:
    mine = script(tmp_path, "mine", f"#!{sys.executable}\n".encode())
    for command in ([mine], [str(tmp_path / "sglang")], []):
        assert installed_engine("sglang", command, os.environ) is None


def test_an_interpreter_that_cannot_be_asked_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = script(tmp_path, "python3", b"#!/bin/sh\nexit 3\n")
    with pytest.raises(subprocess.CalledProcessError):
        installed_engine("sglang", [broken, "-m", "sglang.launch_server"], os.environ)
    with pytest.raises(OSError, match="nothing"):
        installed_engine("sglang", [str(tmp_path / "nothing"), "-m", "sglang"], os.environ)
    slow = script(tmp_path, "python4", b"#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr("autotune.engine.installed.PATIENCE_S", 0.05)
    with pytest.raises(subprocess.TimeoutExpired):
        installed_engine("sglang", [slow, "-m", "sglang.launch_server"], os.environ)
