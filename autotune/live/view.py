"""What `tune` shows while it runs: a page that fills a terminal, plain lines elsewhere.

In: the tuner's events, of any number of trials at once. Out: text on a rich console, which the CLI owns, and
the study's `status.json` for other terminals. Invariants: the terminal is as it was when `shown` ends,
however it ends, and what was said meanwhile stands on it; another controller's status is never touched.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from time import monotonic

from rich.console import Console
from rich.text import Text

from autotune.engine.launcher import Launcher
from autotune.errors import InfrastructureError
from autotune.events import Event, PhaseBegan, Quarantined, Recovered, SearchEnded, TrialEnded
from autotune.live.lines import trial_line, trial_text
from autotune.live.page import live_page
from autotune.live.progress import Progress, RunningTrial, Standing, stage_of
from autotune.live.status import Status, this_process, write_status
from autotune.report.search_end import search_end_lines
from autotune.report.units import printable
from autotune.search.budget import Budget, allowance_s
from autotune.search.confirmation import NumberedTrial
from autotune.search.ledger import AskedTrial
from autotune.search.study_history import StudyHistory
from autotune.study import Study

_TOLD_LINES = 100
_SIMULATED_STATUS_EVERY_S = 0.25
"""Virtual time passes so fast that a status for every event would cost more than it tells."""


@dataclass(frozen=True)
class _Begun:
    """A running trial: what it does, and when on the study's clock it, its stage and its phase began."""

    asked: AskedTrial
    phase: str
    trial_s: float
    stage_s: float
    phase_s: float


class StudyView:
    """A study in progress, as its own process sees it."""

    def __init__(
        self, study: Study, folder: Path, budget: Budget, launcher: Launcher, console: Console
    ) -> None:
        self._console = console
        self._budget = budget
        self._clock = launcher.clock
        self._is_simulated = launcher.is_simulated
        self._lock = RLock()
        self._running: dict[int, _Begun] = {}
        self._log: list[Text] = []
        self._told: list[Text] = []
        self._is_page = False
        self._written_s: float | None = None
        self._hold(StudyHistory(study, folder, (), 0, None))
        self._deadline_s = self._deadline(allowance_s(budget, ()))

    def catch_up(self, trials: Iterable[NumberedTrial]) -> None:
        """Take in what earlier calls of the same study did, without telling it again."""
        self._hold(replace(self._standing.history, trials=tuple(trials)))
        self._told = [trial_line(each, self._study.slo) for each in self._trials][-_TOLD_LINES:]
        self._deadline_s = self._deadline(allowance_s(self._budget, self._trials))

    @contextmanager
    def shown(self) -> Iterator["StudyView"]:
        """Show the view while the context lasts; on a terminal it takes the whole of it."""
        try:
            if self._console.is_terminal:
                with self._page():
                    yield self
            else:
                yield self
        finally:
            if self._written_s is not None:
                with suppress(InfrastructureError):  # what ended the study is told instead
                    self._write(has_ended=True)

    def observe(self, event: Event) -> None:
        """Take in one event of the tuner.

        Raises:
            InfrastructureError: the status cannot be written.
        """
        with self._lock:
            match event:
                case PhaseBegan(trial=asked, phase=phase):
                    self._begin(asked, phase)
                case TrialEnded(trial=asked, record=record, left_s=left_s):
                    self._end(asked.ended(record), left_s)
                case SearchEnded(end=end, expected_gain=expected_gain):
                    self._hold(replace(self._standing.history, search_end=end, expected_gain=expected_gain))
                    self.say(" ".join(search_end_lines(self._standing.history)))
                case Quarantined(nodes=nodes, reason=reason):
                    self.say(f"{' '.join(nodes)} is not used any more: {' '.join(reason.split())}")
                case Recovered(run_again=again, removed=removed):
                    self._tell_recovered(again, removed)
            now_s = monotonic()
            if self._is_status_due(now_s):
                self._written_s = now_s
                self._write(has_ended=False)

    def say(self, line: str) -> None:
        """Tell something that is no trial: a line of the log."""
        self._tell(Text(printable(line)), Text(printable(line)))

    def progress(self) -> Progress:
        """Return the study as it is now."""
        with self._lock:
            now_s = self._clock.now_s()
            return Progress(
                standing=self._standing,
                running=tuple(_running(begun, now_s) for begun in self._running.values()),
                is_simulated=self._is_simulated,
                left_s=None if self._deadline_s is None else self._deadline_s - now_s,
                told=tuple(self._told),
            )

    @contextmanager
    def _page(self) -> Iterator[None]:
        """Fill the terminal; afterwards, put on it what was told meanwhile."""
        self._is_page = True
        try:
            with redirect_stderr(_Lines(self.say)), live_page(self.progress, self._console):
                yield
        finally:
            self._is_page = False
            for text in self._log:
                self._print(text)
            self._log.clear()

    def _begin(self, asked: AskedTrial, phase: str) -> None:
        now_s = self._clock.now_s()
        begun = self._running.get(asked.number, _Begun(asked, phase, now_s, now_s, now_s))
        stage_s = begun.stage_s if stage_of(begun.phase) == stage_of(phase) else now_s
        self._running[asked.number] = replace(begun, phase=phase, stage_s=stage_s, phase_s=now_s)

    def _end(self, trial: NumberedTrial, left_s: float | None) -> None:
        self._running.pop(trial.number, None)
        self._deadline_s = self._deadline(left_s)
        self._hold(replace(self._standing.history, trials=(*self._trials, trial)))
        self._tell(trial_text(trial, self._study.slo), trial_line(trial, self._study.slo))

    def _tell_recovered(self, again: tuple[int, ...], removed: tuple[str, ...]) -> None:
        if removed:
            self.say(f"removed what an earlier run left behind: {', '.join(removed)}")
        if again:
            numbers = ", ".join(str(number) for number in again)
            self.say(f"cut off by an earlier stop, run again: trial {numbers}")

    def _tell(self, text: Text, line: Text) -> None:
        """Print a text of the log, or keep it until the page is gone; the page shows its one line."""
        with self._lock:
            self._told = [*self._told, line][-_TOLD_LINES:]
            if self._is_page:
                self._log.append(text)
            else:
                self._print(text)

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=not self._console.is_terminal)

    def _hold(self, history: StudyHistory) -> None:
        self._standing = Standing(history, self._budget)

    @property
    def _study(self) -> Study:
        return self._standing.history.study

    @property
    def _trials(self) -> tuple[NumberedTrial, ...]:
        return self._standing.history.trials

    def _deadline(self, left_s: float | None) -> float | None:
        return None if left_s is None else self._clock.now_s() + left_s

    def _is_status_due(self, now_s: float) -> bool:
        if self._written_s is None or not self._is_simulated:
            return True
        return now_s - self._written_s >= _SIMULATED_STATUS_EVERY_S

    def _write(self, *, has_ended: bool) -> None:
        progress = self.progress()
        status = Status(
            process=this_process(),
            written=datetime.now(UTC),
            has_ended=has_ended,
            is_simulated=self._is_simulated,
            budget=self._budget,
            left_s=progress.left_s,
            running=() if has_ended else progress.running,
        )
        write_status(self._standing.history.folder, status)


class _Lines(io.TextIOBase):
    """A stream that gives every whole line away."""

    def __init__(self, give: Callable[[str], None]) -> None:
        self._give = give
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._give(line)
        return len(text)


def _running(begun: _Begun, now_s: float) -> RunningTrial:
    return RunningTrial(
        number=begun.asked.number,
        role=begun.asked.role,
        candidate=begun.asked.candidate.to_dict(),
        phase=begun.phase,
        trial_s=max(now_s - begun.trial_s, 0.0),  # a simulated slot may be ahead of this clock
        stage_s=max(now_s - begun.stage_s, 0.0),
        phase_s=max(now_s - begun.phase_s, 0.0),
    )
