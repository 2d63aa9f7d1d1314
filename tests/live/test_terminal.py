"""The whole command in a terminal of its own: it fills it, survives a resize, and gives it back."""

import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from pathlib import Path

import pytest

from tests.support.environment import without_coverage

INPUTS = ("search_spaces/llama-8b-1xh100.yaml", "slo/ttft-p95-10s-at-50.yaml")
PROGRAM = "from autotune.cli import main; main()"
PAGE, BACK = b"\x1b[?1049h", b"\x1b[?1049l"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Terminal:
    """A command in a terminal of 60 columns and 20 rows."""

    def __init__(self, *arguments: str) -> None:
        self.output = b""
        self.process, self._terminal = pty.fork()
        if self.process == 0:
            environment = {**without_coverage(), "TERM": "xterm-256color", "PYTHONPATH": str(Path.cwd())}
            os.execve(sys.executable, [sys.executable, "-c", PROGRAM, *arguments], environment)  # noqa: S606
        self.resize(60, 20)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, what: bytes) -> None:
        before = len(self.output)
        while what not in self.output[before:]:
            self.output += os.read(self._terminal, 65536)

    def end(self) -> int:
        """Return the exit code, everything read."""
        try:
            while data := os.read(self._terminal, 65536):
                self.output += data
        except OSError:  # Linux's way to say that the other end is closed
            pass
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def _tune(runs: Path, trials: int) -> Terminal:
    options = ["--launcher", "simulated", "--trials", str(trials), "--finalists", "1", "--runs", str(runs)]
    return Terminal("tune", *INPUTS, *options)


def test_a_study_fills_its_terminal_and_leaves_its_log_and_its_answer_on_it(tmp_path: Path) -> None:
    terminal = _tune(tmp_path, 6)
    terminal.read_until(b"SIMULATED")
    terminal.resize(120, 40)

    assert terminal.end() in (0, 1)

    page, after = terminal.output.split(BACK)
    assert page.count(PAGE) == 1
    assert "── ceilings".encode() in page
    assert b"trial   0  " in after
    assert b"answer" in after


def test_ctrl_c_gives_the_terminal_back(tmp_path: Path) -> None:
    terminal = _tune(tmp_path, 500)
    terminal.read_until(b"trial 3")

    os.kill(terminal.process, signal.SIGINT)

    assert terminal.end() == 130
    after = terminal.output.split(BACK)[1]
    assert b"the same command goes on from here" in after
    assert terminal.output.count(b"\x1b[?25h") == terminal.output.count(b"\x1b[?25l")
