import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from autotune.engine.docker.tunnel_folder import _is_own_folder, make_folder, remove_stale

MAKE_AND_WAIT = """
from autotune.engine.docker.tunnel_folder import make_folder
print(make_folder(), flush=True)
input()
"""


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def of_a_killed_process(tmp_path: Path) -> Path:
    """The folder of a process that was killed, with what its ssh left in it."""
    with subprocess.Popen(
        [sys.executable, "-c", MAKE_AND_WAIT],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        (folder / "ssh.log").write_text("")
        remove_stale()
        assert folder.is_dir()  # its owner lives
        process.send_signal(signal.SIGKILL)
    return folder


def test_what_a_killed_process_left_is_removed_by_the_next_one(of_a_killed_process: Path) -> None:
    assert of_a_killed_process.is_dir()

    mine = make_folder()
    another = make_folder()

    assert not of_a_killed_process.exists()
    assert mine.is_dir()
    assert another.is_dir()


def test_nobody_else_may_enter_and_a_socket_fits_into_it() -> None:
    folder = make_folder()

    assert folder.stat().st_mode & 0o077 == 0
    assert len(f"/tmp/{folder.name}/docker.sock") < 100  # noqa: S108 - how long it would be


def test_a_folder_of_another_machine_stays(of_a_killed_process: Path) -> None:
    elsewhere = re.sub("-[0-9a-f]{8}-", "-00000000-", of_a_killed_process.name, count=1)
    moved = of_a_killed_process.rename(of_a_killed_process.with_name(elsewhere))

    remove_stale()

    assert moved.is_dir()


def test_what_is_no_folder_or_has_another_name_stays(of_a_killed_process: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    moved = of_a_killed_process.rename(target)
    of_a_killed_process.symlink_to(target)
    of_a_killed_process.with_name(of_a_killed_process.name + "x").write_text("a file")
    of_a_killed_process.with_name("autotune-notes").mkdir()
    before = sorted(tmp_path.iterdir())

    remove_stale()

    assert sorted(tmp_path.iterdir()) == before
    assert (moved / "ssh.log").exists()


def test_a_folder_of_another_user_stays(of_a_killed_process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: of_a_killed_process.stat().st_uid + 1)

    remove_stale()

    assert of_a_killed_process.is_dir()


def test_a_folder_that_another_run_removes_first_is_no_error(tmp_path: Path) -> None:
    assert not _is_own_folder(tmp_path / "gone")
