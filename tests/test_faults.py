"""A controller that is killed, stopped or runs out of disk: nothing is lost, nothing is run twice."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.record import Outcome, Role
from autotune.search.ledger import read_history
from autotune.search.study_history import StudyHistory
from tests.support.environment import without_coverage

ROOT = Path(__file__).parents[1]
INPUTS = ("search_spaces/llama-8b-1xh100.yaml", "slo/ttft-p95-10s-at-50.yaml")
ENVIRONMENT = without_coverage() | {"PYTHONPATH": str(ROOT)}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def _study(folder: Path, role: str, phase: str) -> int:
    command = [sys.executable, "-m", "tests.support.killed_study", str(folder), role, phase]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True).returncode


def _tune(runs: Path, *options: str) -> list[str]:
    program = "from autotune.cli import main; main()"
    return [
        sys.executable, "-c", program, "tune", *INPUTS,
        "--launcher", "simulated", "--runs", str(runs), *options,
    ]  # fmt: skip


def _assert_whole(history: StudyHistory) -> None:
    """Every trial of the plan was measured exactly once, whatever happened on the way."""
    launched = [
        trial.record
        for trial in history.trials
        if trial.record.outcome is not Outcome.INTERRUPTED and trial.record.durations_s
    ]
    roles = Counter(record.role for record in launched)
    assert roles == {Role.BASELINE: 1, Role.SEARCH: 3, Role.CONFIRMATION: 4}
    searched = [record.to_candidate() for record in launched if record.role is Role.SEARCH]
    assert len(set(searched)) == 3
    assert history.running == 0
    assert history.answer is not None
    for record in launched:
        for point in record.points:
            assert (history.folder / point.file).exists()


@pytest.mark.parametrize(
    ("role", "phase"),
    [
        ("baseline", "asked"),
        ("baseline", "load: concurrency 4"),
        ("search", "asked"),
        ("search", "launch"),
        ("search", "launch: weights"),
        ("search", "load: concurrency 4"),
        ("search", "teardown"),
        ("search", "record"),
        ("search", "told"),
        ("confirmation", "launch"),
        ("confirmation", "told"),
    ],
)
def test_a_study_killed_at_any_phase_ends_with_the_same_set_of_trials(
    tmp_path: Path, role: str, phase: str
) -> None:
    killed = _study(tmp_path, role, phase)
    resumed = _study(tmp_path, "nobody", "never")

    assert (killed, resumed) == (-signal.SIGKILL, 0)
    _assert_whole(read_history(tmp_path))


@pytest.fixture
def hang_up_is_not_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is, and children inherit that
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_up_is_not_ignored")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_ends_with_a_message_and_the_same_command_goes_on(
    tmp_path: Path, stop: signal.Signals
) -> None:
    command = _tune(tmp_path, "--trials", "200")
    with subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if re.match(r"trial +3 ", line):
                process.send_signal(stop)
                break
        _, errors = process.communicate()

    assert process.returncode == 130
    assert "Everything is kept" in errors
    assert "Traceback" not in errors
    resumed = subprocess.run(
        _tune(tmp_path, "--trials", "8"), cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True
    )
    assert resumed.returncode in (0, 1)
    history = read_history(next(tmp_path.iterdir()))
    assert history.running == 0
    assert history.answer is not None


def test_a_second_autotune_on_the_same_study_is_refused(tmp_path: Path) -> None:
    with subprocess.Popen(
        _tune(tmp_path, "--trials", "200"),
        cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as first:  # fmt: skip
        assert first.stdout is not None
        first.stdout.readline()
        second = subprocess.run(
            _tune(tmp_path), cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True, text=True
        )
        first.send_signal(signal.SIGINT)
        first.communicate()

    assert second.returncode == 4
    assert "another autotune process works on" in second.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a size-limited file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_the_study_and_room_lets_it_go_on(small_disk: Path) -> None:
    full = subprocess.run(
        _tune(small_disk, "--trials", "30"),
        cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True, text=True,
    )  # fmt: skip
    subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
    resumed = subprocess.run(
        _tune(small_disk, "--trials", "30"),
        cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True, text=True,
    )  # fmt: skip

    assert full.returncode == 3, full.stderr
    assert "run the same command again" in full.stderr
    assert "Traceback" not in full.stderr
    assert resumed.returncode in (0, 1), resumed.stderr
    history = read_history(next(small_disk.iterdir()))
    searched = [
        trial.record
        for trial in history.trials
        if trial.record.role is not Role.CONFIRMATION and trial.record.outcome is not Outcome.INTERRUPTED
    ]
    assert sum(record.is_launch for record in searched) == 30
    assert not list(small_disk.rglob("*.part"))
