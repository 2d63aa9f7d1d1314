"""Reads an engine's log while it is written: the phase the launch is in, and the line that decides a failure.

In: a log file that grows, and a dialect's line tables. Out: phases, and an `EngineFailure` with its evidence.
Memory is bounded however long the log is: a cause is kept when it is seen, of the rest only the tail.
"""

import re
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autotune.engine.dialect import FailureLine, StartLine
from autotune.failure import EngineFailure, FailureKind, StartPhase

_LINE_CHARACTERS = 4000
_TAIL_LINES = 100
_BYTES_PER_READ = 1 << 20
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LINE_END = re.compile(rb"[\r\n]+")
_ORDER = {phase: number for number, phase in enumerate(StartPhase)}


@dataclass(frozen=True)
class Verdict:
    """A line of the failure table that was found in a log, and what it means there."""

    line: str
    kind: FailureKind
    minimum_mem_fraction: float | None = None


def is_later(phase: StartPhase, than: StartPhase) -> bool:
    """Whether a phase comes after another; phases that a launch skips count all the same."""
    return _ORDER[phase] > _ORDER[than]


def classify(
    lines: Iterable[str],
    *,
    phase: StartPhase,
    exit_code: int | None,
    patterns: tuple[FailureLine, ...],
) -> EngineFailure:
    """Return the failure that a log's last lines and the exit code tell of.

    The first cause decides; without one the line highest in the table does, and without any known line
    the kind is CRASHED.
    """
    lines = tuple(lines)
    causes = (verdict_of(line, phase, _causes(patterns)) for line in lines)
    cause = next(filter(None, causes), None)
    verdict = cause or _best_follower(lines, phase, patterns)
    if verdict is None:
        verdict = Verdict(_how_it_ended(exit_code, lines), FailureKind.CRASHED)
    return EngineFailure(
        kind=verdict.kind,
        phase=phase,
        line=verdict.line,
        exit_code=exit_code,
        log_tail=lines[-_TAIL_LINES:],
        minimum_mem_fraction=verdict.minimum_mem_fraction,
    )


def verdict_of(line: str, phase: StartPhase, patterns: Iterable[FailureLine]) -> Verdict | None:
    """Return what the first pattern that the line matches says of it in this phase."""
    for pattern in patterns:
        match = pattern.pattern.search(line)
        if match:
            minimum = match.groupdict().get("minimum")
            kind = pattern.by_phase.get(phase, pattern.kind)
            return Verdict(line, kind, None if minimum is None else float(minimum))
    return None


class LogWatch:
    """One rank's log. `cause` is the first line that alone explains a failure, `cause_seen_s` when."""

    def __init__(
        self, path: Path, start_lines: tuple[StartLine, ...], failure_lines: tuple[FailureLine, ...]
    ) -> None:
        self.phase = StartPhase.PROCESS
        self.cause: Verdict | None = None
        self.cause_seen_s: float | None = None
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._path = path
        self._start_lines = start_lines
        self._failure_lines = failure_lines
        self._causes = tuple(_causes(failure_lines))
        self._offset = 0
        self._unfinished = b""

    def read(self, now_s: float) -> list[StartPhase]:
        """Take in what was written since the last call; return the phases that began, in order."""
        began = []
        for line in self._new_lines():
            before = self.phase
            self._take(line, now_s)
            if self.phase is not before:
                began.append(self.phase)
        return began

    def advance(self, phase: StartPhase) -> None:
        """Enter a phase that became known by other means than the log."""
        if is_later(phase, self.phase):
            self.phase = phase

    def failure(
        self, *, exit_code: int | None, rank: int, waited_s: float, outer_cause: Verdict | None = None
    ) -> EngineFailure:
        """Return the failure as far as this log tells it, unless something outside it decides."""
        failure = classify(self.tail, phase=self.phase, exit_code=exit_code, patterns=self._failure_lines)
        known = {"rank": rank, "waited_s": waited_s}
        cause = outer_cause or self.cause
        if cause is None:
            return failure.model_copy(update=known)
        decided = {
            "kind": cause.kind,
            "line": cause.line,
            "minimum_mem_fraction": cause.minimum_mem_fraction,
        }
        return failure.model_copy(update=known | decided)

    def _take(self, line: str, now_s: float) -> None:
        self.tail.append(line)
        for start in self._start_lines:
            if start.pattern.search(line):
                self.advance(start.phase)
        if self.cause is None:
            self.cause = verdict_of(line, self.phase, self._causes)
            self.cause_seen_s = None if self.cause is None else now_s

    def _new_lines(self) -> Iterator[str]:
        with self._path.open("rb") as log:
            log.seek(self._offset)
            while block := log.read(_BYTES_PER_READ):
                self._offset += len(block)
                yield from self._finished_lines(block)

    def _finished_lines(self, block: bytes) -> list[str]:
        *finished, rest = _LINE_END.split(self._unfinished + block)
        self._unfinished = rest[:_LINE_CHARACTERS]
        return [_text(line) for line in finished if line]


def _text(line: bytes) -> str:
    return _COLOUR.sub("", line[:_LINE_CHARACTERS].decode(errors="replace")).rstrip()


def _causes(patterns: Iterable[FailureLine]) -> Iterator[FailureLine]:
    return (pattern for pattern in patterns if pattern.is_cause)


def _best_follower(
    lines: tuple[str, ...], phase: StartPhase, patterns: Iterable[FailureLine]
) -> Verdict | None:
    """Return the verdict of the highest line of the table that is found, the earliest if several are."""
    followers = (pattern for pattern in patterns if not pattern.is_cause)
    found = (verdict_of(line, phase, (pattern,)) for pattern in followers for line in lines)
    return next(filter(None, found), None)


def _how_it_ended(exit_code: int | None, lines: tuple[str, ...]) -> str:
    last = f", its last line: {lines[-1]}" if lines else ", nothing was logged"
    if exit_code is None:
        return f"still running{last}"
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}{last}"
    return f"exited with code {exit_code}{last}"
