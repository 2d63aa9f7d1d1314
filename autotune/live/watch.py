"""The view of a study that another process runs, or ran: `autotune report STUDY --watch`.

In: a study's folder. Out: the page, or plain lines, on a rich console. Talks to the storage and to
`status.json`, and only reads them.
"""

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from time import sleep

from rich.console import Console

from autotune.live.blocks import GONE
from autotune.live.lines import trial_line, trial_text
from autotune.live.page import live_page
from autotune.live.progress import Controller, Progress, Standing
from autotune.live.status import STATUS_FILE, read_status
from autotune.report.findings import is_simulated
from autotune.report.terminal import terminal_report
from autotune.search.ledger import HistoryReader

POLL_S = 1.0


def watch_study(folder: Path, console: Console, *, poll_s: float = POLL_S) -> None:
    """Show a study until nobody runs it any more, or until Ctrl-C; then print its report.

    Raises:
        StudyError: there is no study, it has no storage yet, or the storage is damaged.
    """
    with closing(HistoryReader(folder)) as reader:
        watcher = _Watcher(folder, reader)
        show = _show_page if console.is_terminal else _print_lines
        with suppress(KeyboardInterrupt):  # the way to leave: what is watched goes on
            show(watcher, console, poll_s)
        if watcher.controller is Controller.GONE:
            console.print(GONE, style="red")
        console.print(terminal_report(reader.read()))


class _Watcher:
    """A study's files, read again when they have changed."""

    def __init__(self, folder: Path, reader: HistoryReader) -> None:
        self._folder = folder
        self._reader = reader
        self._seen: int | None = None
        self.look()

    def look(self) -> None:
        """Take in what has changed; every event changes the status, if its writer had one."""
        path = self._folder / STATUS_FILE
        stamp_ns = path.stat().st_mtime_ns if path.exists() else None
        if stamp_ns is not None and stamp_ns == self._seen:
            return
        self._seen = stamp_ns
        self.history = self._reader.read()
        self._status = read_status(self._folder)
        self._standing = Standing(self.history, self._status.budget if self._status else None)

    @property
    def is_over(self) -> bool:
        """Whether nobody runs it; without a status, whether it has an answer."""
        if self.controller is Controller.UNKNOWN:
            return self.history.answer is not None
        return self.controller is not Controller.RUNNING

    @property
    def controller(self) -> Controller:
        """What is known of the process that runs it."""
        return Controller.UNKNOWN if self._status is None else self._status.controller()

    def progress(self) -> Progress:
        """Return the study as it is now."""
        status = self._status
        age_s = status.age_s() if status else 0.0
        left_s = status.left_s if status else None
        return Progress(
            standing=self._standing,
            running=tuple(trial.aged(age_s) for trial in status.running) if status else (),
            is_simulated=status.is_simulated if status else is_simulated(self.history),
            left_s=None if left_s is None else left_s - age_s,
            controller=self.controller,
            told=tuple(trial_line(trial, self.history.study.slo) for trial in self.history.trials[-100:]),
        )


def _show_page(watcher: _Watcher, console: Console, poll_s: float) -> None:
    if watcher.is_over:
        return
    with live_page(watcher.progress, console):
        _poll(watcher, poll_s)


def _print_lines(watcher: _Watcher, console: Console, poll_s: float) -> None:
    """Print every finished trial once."""
    printed = 0

    def print_new() -> None:
        nonlocal printed
        trials = watcher.history.trials
        for trial in trials[printed:]:
            console.print(trial_text(trial, watcher.history.study.slo), soft_wrap=True)
        printed = len(trials)

    print_new()
    _poll(watcher, poll_s, print_new)


def _poll(watcher: _Watcher, poll_s: float, then: Callable[[], None] = lambda: None) -> None:
    while not watcher.is_over:
        sleep(poll_s)
        watcher.look()
        then()
