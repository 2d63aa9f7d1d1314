import io
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from autotune.errors import StudyError
from autotune.live import watch
from autotune.live.progress import Controller, RunningTrial
from autotune.live.status import STATUS_FILE, Process, Status, read_status, this_process, write_status
from autotune.live.watch import watch_study
from autotune.record import Role
from autotune.search.budget import Budget
from autotune.search.ledger import Ledger
from autotune.space import Candidate
from autotune.study import save_study
from tests.support.trials import STUDY, measured

RUNNING = RunningTrial(number=1, role=Role.SEARCH, candidate={}, phase="launch", trial_s=5.0)
STATUS = Status(
    process=this_process(),
    written=datetime.now(UTC),
    has_ended=False,
    is_simulated=False,
    budget=Budget(launches=9),
    left_s=100.0,
    running=(RUNNING,),
)


def _gone() -> Process:
    """A process that has been."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return this_process().model_copy(update={"pid": process.pid})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A study with one trial."""
    save_study(STUDY, tmp_path)
    ledger = Ledger(STUDY, tmp_path)
    ledger.tell(ledger.ask_for(Candidate.of({}), Role.BASELINE, {}), measured(90.0, role=Role.BASELINE))
    return ledger


def _console(*, is_terminal: bool = False) -> tuple[Console, io.StringIO]:
    output = io.StringIO()
    return Console(file=output, force_terminal=is_terminal, width=100, height=30, color_system=None), output


def _meanwhile(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], None]) -> None:
    """Let something happen each time the watcher waits."""
    left = list(steps)
    monkeypatch.setattr(watch, "sleep", lambda _: left.pop(0)())


def test_new_trials_are_printed_until_the_study_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ledger: Ledger
) -> None:
    write_status(tmp_path, STATUS)
    console, output = _console()
    _meanwhile(
        monkeypatch,
        lambda: ledger.tell(ledger.ask(ledger.propose()), measured(120.0)),
        lambda: None,
        lambda: write_status(tmp_path, STATUS.model_copy(update={"has_ended": True})),
    )

    watch_study(tmp_path, console)

    assert output.getvalue().count("trial   0  met") == 1
    assert output.getvalue().count("trial   1  met") == 1


def test_a_terminal_shows_the_same_page_and_is_given_back_at_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ledger: Ledger
) -> None:
    write_status(tmp_path, STATUS)
    console, output = _console(is_terminal=True)

    def stop(_: float) -> None:
        time.sleep(0.6)
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "sleep", stop)

    watch_study(tmp_path, console)

    assert ledger.study.name in output.getvalue()
    assert "trial 1 (search) launch" in output.getvalue()
    report = output.getvalue().split("\x1b[?1049l")[1]
    assert "No answer yet" in report


def test_a_study_whose_process_is_gone_says_so_and_is_not_waited_for(tmp_path: Path, ledger: Ledger) -> None:
    write_status(tmp_path, STATUS.model_copy(update={"process": _gone()}))
    for is_terminal in (False, True):
        console, output = _console(is_terminal=is_terminal)
        watch_study(ledger.folder, console)
        assert "the same tune command goes on from here" in output.getvalue().replace("\n", " ")


def test_what_another_version_wrote_is_not_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ledger: Ledger
) -> None:
    (ledger.folder / STATUS_FILE).write_text('{"pid": 1}')
    console, output = _console()
    _meanwhile(monkeypatch, lambda: write_status(tmp_path, STATUS.model_copy(update={"has_ended": True})))

    watch_study(tmp_path, console)

    assert "trial   0  met" in output.getvalue()


def test_there_must_be_a_study(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no study"):
        watch_study(tmp_path, _console()[0])


def test_ages_go_on_after_the_status_was_written_unless_time_is_virtual(tmp_path: Path) -> None:
    earlier = datetime.now(UTC) - timedelta(seconds=60)
    write_status(tmp_path, STATUS.model_copy(update={"written": earlier}))

    status = read_status(tmp_path)

    assert status is not None
    assert status.age_s() >= 60
    assert status.running[0].aged(60.0).trial_s == 65.0
    assert status.model_copy(update={"is_simulated": True}).age_s() == 0.0


def test_a_controller_on_another_host_is_unknown() -> None:
    elsewhere = STATUS.process.model_copy(update={"host": "elsewhere"})

    assert STATUS.model_copy(update={"process": elsewhere}).controller() is Controller.UNKNOWN
    assert STATUS.controller() is Controller.RUNNING
