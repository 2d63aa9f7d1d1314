"""Studies whose trials are in a real PostgreSQL."""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from autotune.errors import InfrastructureError, StudyError
from autotune.record import Outcome, Role
from autotune.search.ledger import Ledger, read_history
from autotune.search.place import DATABASE_FILE, settle_place
from autotune.search.storage import only_writer, storage_errors
from autotune.search.study_history import StudyHistory
from autotune.space import Candidate
from autotune.study import save_study
from tests.support.environment import without_coverage
from tests.support.postgresql import Server, reason_against_postgresql, server
from tests.support.trials import STUDY, measured

pytestmark = [pytest.mark.postgresql, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
INPUTS = ("search_spaces/llama-8b-1xh100.yaml", "slo/ttft-p95-10s-at-50.yaml")
PROGRAM = "from autotune.cli import main; main()"
ENVIRONMENT = without_coverage() | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    reason = reason_against_postgresql()
    if reason is not None:
        pytest.skip(f"no PostgreSQL can be had on this machine: {reason}")
    with tempfile.TemporaryDirectory(prefix="autotune-pg") as folder, server(Path(folder)) as made:
        yield made


def command(runs: Path, *options: str) -> list[str]:
    return [
        sys.executable, "-c", PROGRAM, "tune", *INPUTS, "--launcher", "simulated", "--runs", str(runs),
        "--trials", "5", "--finalists", "1", *options,
    ]  # fmt: skip


def run(*argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def told(history: StudyHistory) -> list[tuple[object, ...]]:
    return [(trial.record.role, trial.record.candidate, trial.record.objectives) for trial in history.trials]


def test_a_study_in_a_server_is_the_same_as_one_in_a_file(postgresql: Server, tmp_path: Path) -> None:
    in_file = run(*command(tmp_path / "a", "--study", "same"))
    in_server = run(*command(tmp_path / "b", "--study", "same", "--storage", postgresql.address))

    assert in_server.returncode == in_file.returncode == 0, in_server.stdout + in_server.stderr
    assert not (tmp_path / "b/same" / DATABASE_FILE).exists()
    history = read_history(tmp_path / "b/same")
    assert told(history) == told(read_history(tmp_path / "a/same"))
    assert history.answer is not None
    reported = run(sys.executable, "-c", PROGRAM, "report", str(tmp_path / "b/same"))
    assert reported.returncode == 0, reported.stderr


def test_a_study_killed_in_a_trial_goes_on_in_the_server(postgresql: Server, tmp_path: Path) -> None:
    argv = command(tmp_path, "--study", "killed", "--storage", postgresql.address)
    with subprocess.Popen(argv, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        while "trial   1" not in killed.stdout.readline():
            assert killed.poll() is None
        killed.send_signal(signal.SIGKILL)

    resumed = run(*command(tmp_path, "--study", "killed"))

    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    history = read_history(tmp_path / "killed")
    assert history.running == 0
    launched = [trial for trial in history.trials if trial.record.outcome is Outcome.MEASURED]
    assert len({trial.number for trial in launched}) == len(launched) >= 5


def test_a_server_that_goes_away_stops_the_study_and_its_return_lets_it_go_on(
    postgresql: Server, tmp_path: Path
) -> None:
    argv = command(tmp_path, "--study", "away", "--storage", postgresql.address)
    with subprocess.Popen(
        argv, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as study:
        assert study.stdout is not None
        while "trial   1" not in study.stdout.readline():
            assert study.poll() is None
        postgresql.stop()
        _, errors = study.communicate()
    try:
        assert study.returncode == 3, errors
        assert "Look at the database server of postgresql+psycopg://postgres@127.0.0.1" in errors
        assert "Traceback" not in errors
        gone = run(sys.executable, "-c", PROGRAM, "report", str(tmp_path / "away"))
        assert gone.returncode == 3, gone.stderr
    finally:
        postgresql.start()
    assert run(*argv).returncode == 0
    assert read_history(tmp_path / "away").running == 0


def test_a_launch_that_ends_while_the_server_is_away_is_not_launched_again(
    postgresql: Server, tmp_path: Path
) -> None:
    save_study(STUDY, tmp_path)
    settle_place(tmp_path, postgresql.address)
    record = measured(100.0, role=Role.BASELINE, flags={})
    with closing(Ledger(STUDY, tmp_path)) as ledger:
        baseline = ledger.ask_for(Candidate.of({}), Role.BASELINE, {})
        postgresql.stop()
        try:
            with pytest.raises(InfrastructureError), storage_errors(tmp_path):
                ledger.tell(baseline, record)
        finally:
            postgresql.start()

    with closing(Ledger(STUDY, tmp_path)) as again:
        assert again.recover() == ()
        assert [trial.record for trial in again.trials()] == [record]


@contextmanager
def silence(port: int) -> Iterator[None]:
    """Nothing that is sent to this port arrives, as when a machine loses its power."""
    rule = ["INPUT", "-p", "tcp", "--dport", str(port), "-j", "DROP"]
    added = subprocess.run(["iptables", "-w", "-I", *rule], capture_output=True, text=True, check=False)
    if added.returncode:
        pytest.skip(f"packets cannot be dropped here: {added.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["iptables", "-w", "-D", *rule], check=True)


@pytest.mark.skipif(shutil.which("iptables") is None, reason="there is no iptables to drop packets with")
def test_a_server_that_falls_silent_is_not_waited_for_long(postgresql: Server, tmp_path: Path) -> None:
    save_study(STUDY, tmp_path)
    settle_place(tmp_path, f"{postgresql.address}?tcp_user_timeout=2000&connect_timeout=2")
    with closing(Ledger(STUDY, tmp_path)) as ledger:
        baseline = ledger.ask_for(Candidate.of({}), Role.BASELINE, {})
        port = make_url(postgresql.address).port
        assert port is not None
        with (
            silence(port),
            pytest.raises(InfrastructureError, match="Look at the database server"),
            storage_errors(tmp_path),
        ):
            ledger.tell(baseline, measured(100.0, role=Role.BASELINE, flags={}))

    with closing(Ledger(STUDY, tmp_path)) as again:
        assert again.recover() == ()


def test_two_run_folders_cannot_work_on_one_study_in_a_server(postgresql: Server, tmp_path: Path) -> None:
    for name in "ab":
        settle_place(tmp_path / name, postgresql.address)
    with (
        only_writer(STUDY, tmp_path / "a"),
        pytest.raises(StudyError, match="another autotune process works on"),
        only_writer(STUDY, tmp_path / "b"),
    ):
        pass
    with only_writer(STUDY, tmp_path / "b"):
        pass


def test_a_study_of_that_name_with_other_inputs_is_left_alone(postgresql: Server, tmp_path: Path) -> None:
    other = STUDY.model_copy(update={"seed": STUDY.seed + 1})
    for study, name in ((STUDY, "a"), (other, "b")):
        save_study(study, tmp_path / name)
        settle_place(tmp_path / name, postgresql.address)
    Ledger(STUDY, tmp_path / "a").close()
    with pytest.raises(StudyError, match="has other inputs"):
        Ledger(other, tmp_path / "b")
