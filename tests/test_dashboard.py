import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from wsgiref.util import setup_testing_defaults

import pytest

from autotune.dashboard import DashboardSite, serve_dashboard, trial_note
from autotune.errors import ConfigError, InfrastructureError, StudyError
from autotune.record import Role
from autotune.search.dashboard import NotedStudy
from autotune.search.ledger import HistoryReader, Ledger, read_history
from autotune.space import Candidate
from autotune.study import save_study
from tests.support.environment import without_coverage
from tests.support.histories import nothing_meets
from tests.support.trials import STUDY, failed, measured

LOG = "trials/0001/engine-rank0.log"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A study whose baseline was measured and whose second trial failed, and left a log."""
    folder = tmp_path / "s"
    save_study(STUDY, folder)
    ledger = Ledger(STUDY, folder)
    ledger.tell(ledger.ask_for(Candidate.of({}), Role.BASELINE, {}), measured(90.0, role=Role.BASELINE))
    ledger.tell(ledger.ask(ledger.propose()), failed())
    (folder / LOG).parent.mkdir(parents=True, exist_ok=True)
    (folder / LOG).write_text("ValueError: no memory\n")
    yield ledger
    ledger.close()


class Browser:
    """Asks a site, without a network."""

    def __init__(self, folder: Path) -> None:
        self.reader, self.study = HistoryReader(folder), NotedStudy(folder)
        self.site = DashboardSite(folder, self.reader, self.study)
        self.status = ""
        self.headers: dict[str, str] = {}

    def ask(self, path: str, method: str = "GET") -> bytes:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        environ |= {"PATH_INFO": path, "REQUEST_METHOD": method}
        return b"".join(self.site(environ, self._begin))

    def notes(self) -> dict[int, str]:
        detail = json.loads(self.ask("/api/studies/1"))
        return {trial["number"]: trial["note"]["body"] for trial in detail["trials"]}

    def _begin(self, status: str, headers: list[tuple[str, str]], *_: object) -> None:
        self.status, self.headers = status, dict(headers)


@pytest.fixture
def browser(ledger: Ledger) -> Iterator[Browser]:
    browser = Browser(ledger.folder)
    yield browser
    browser.reader.close()
    browser.study.close()


def test_the_trials_carry_their_verdict_their_evidence_and_their_raw_files(browser: Browser) -> None:
    notes = browser.notes()

    assert "**met** (baseline)" in notes[0]
    assert "ttft p95 < 1s at concurrency 4: measured 500 ms, room of 50.0 % of the limit (met)" in notes[0]
    assert "SIMULATED" in notes[0]
    assert "**no_kv_memory** (search)" in notes[1]
    assert "Not enough memory." in notes[1]
    assert f"[engine-rank0.log](/raw/{LOG})" in notes[1]
    assert "No answer yet" in json.loads(browser.ask("/api/studies/1"))["note"]["body"]


def test_a_trial_that_ends_meanwhile_gets_its_note_and_the_others_keep_theirs(
    browser: Browser, ledger: Ledger
) -> None:
    before = browser.notes()

    ledger.tell(ledger.ask(ledger.propose()), measured(120.0))
    browser.site._optuna = browser.study.application()  # the other one remembers trials for some seconds

    notes = browser.notes()
    assert notes.pop(2).startswith("**SIMULATED")
    assert notes == before


def test_notes_lie_beside_the_storage_which_is_only_read(browser: Browser, ledger: Ledger) -> None:
    browser.notes()

    with closing(sqlite3.connect(ledger.folder / "study.db")) as database:
        (count,) = database.execute("SELECT count(*) FROM study_system_attributes").fetchone()
    assert count == 0


def test_raw_files_are_given_and_nothing_else(browser: Browser, ledger: Ledger) -> None:
    assert browser.ask(f"/raw/{LOG}") == b"ValueError: no memory\n"
    assert browser.headers["Content-Type"].startswith("text/plain")
    (ledger.folder / "trials" / "x.npz").write_bytes(b"1")
    assert browser.ask("/raw/trials/x.npz") == b"1"
    assert browser.headers["Content-Type"] == "application/octet-stream"
    for path in ("study.db", "trials/../study.yaml", "/etc/passwd", "trials", "trials/0009/none.log"):
        browser.ask(f"/raw/{path}")
        assert browser.status == "404 Not Found", path


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_study_is_not_changed_from_a_browser(browser: Browser, ledger: Ledger, method: str) -> None:
    answer = browser.ask("/api/studies/1", method)

    assert browser.status == "403 Forbidden"
    assert b"does not let it be changed" in answer
    assert len(read_history(ledger.folder).trials) == 2


def test_no_log_can_end_the_code_that_shows_it() -> None:
    history = nothing_meets()
    trial = history.trials[0]
    record = failed(
        failure=failed().failure.model_copy(update={"line": "``` <script>", "log_tail": ("````",)})  # type: ignore[union-attr]
    )

    note = trial_note(history, type(trial)(trial.number, record))

    assert "\n`````\n``` <script>\n\n````\n`````" in note


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)

    with pytest.raises(ConfigError, match=r"pip install 'autotune\[dashboard\]'"):
        NotedStudy(ledger.folder)


def test_a_port_that_is_taken_is_said(ledger: Ledger) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(InfrastructureError, match="--port"):
        serve_dashboard(ledger.folder, host="127.0.0.1", port=other.getsockname()[1], tell=print)


def test_there_must_be_a_study(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no study"):
        serve_dashboard(tmp_path, host="127.0.0.1", port=0, tell=print)


def test_the_command_serves_optunas_page_until_ctrl_c(ledger: Ledger) -> None:
    program = "from autotune.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "dashboard", str(ledger.folder), "--port", "0"],
        env={**without_coverage(), "PYTHONPATH": str(Path.cwd())}, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        found = re.fullmatch(r"s: (http://127.0.0.1:\d+)(/dashboard/studies/1)\n", process.stdout.readline())
        assert found is not None
        page = urlopen(Request(found[1] + found[2])).read()  # noqa: S310 - our own server
        detail = json.loads(urlopen(Request(f"{found[1]}/api/studies/1")).read())  # noqa: S310 - as above
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "stopped\n"

    assert process.returncode == 0
    assert b"<title>Optuna Dashboard</title>" in page
    assert "no_kv_memory" in detail["trials"][1]["note"]["body"]
