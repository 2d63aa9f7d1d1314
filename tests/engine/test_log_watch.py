import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.engine.dialect import FailureLine, StartLine
from autotune.engine.log_watch import LogWatch, classify, is_later
from autotune.failure import FailureKind, StartPhase

_STARTS = (
    StartLine(re.compile(r"^load"), StartPhase.WEIGHTS),
    StartLine(re.compile(r"^pool"), StartPhase.KV_POOL),
)
_FAILURES = (
    FailureLine(
        re.compile(r"memory(?: above (?P<minimum>[\d.]+))?"),
        FailureKind.OUT_OF_MEMORY_SERVING,
        {StartPhase.WEIGHTS: FailureKind.OUT_OF_MEMORY_LOADING},
    ),
    FailureLine(re.compile(r"^port"), FailureKind.PORT_BUSY, {}),
    FailureLine(re.compile(r"Error"), FailureKind.WARM_UP_FAILED, {}, is_cause=False),
    FailureLine(re.compile(r"died"), FailureKind.HANG, {}, is_cause=False),
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "engine-rank0.log"
    path.write_bytes(b"")
    return path


@pytest.fixture
def watch(log: Path) -> LogWatch:
    return LogWatch(log, _STARTS, _FAILURES)


def append(log: Path, text: bytes) -> None:
    with log.open("ab") as file:
        file.write(text)


def test_phases_are_told_once_and_in_order(log: Path, watch: LogWatch) -> None:
    append(log, b"hello\nload 1\nload 2\npool\nload 3\n")
    assert watch.read(1.0) == [StartPhase.WEIGHTS, StartPhase.KV_POOL]
    assert watch.read(2.0) == []
    assert watch.phase is StartPhase.KV_POOL


def test_a_line_counts_when_it_is_finished(log: Path, watch: LogWatch) -> None:
    append(log, b"hello\nlo")
    assert watch.read(1.0) == []
    append(log, b"ad\n")
    assert watch.read(2.0) == [StartPhase.WEIGHTS]
    assert list(watch.tail) == ["hello", "load"]


def test_progress_bars_and_colours_are_taken_apart(log: Path, watch: LogWatch) -> None:
    append(log, b" 10%\r 20%\r\x1b[1;33mload\x1b[0m it\n\n\xff\n")
    watch.read(1.0)
    assert list(watch.tail) == [" 10%", " 20%", "load it", "\ufffd"]


def test_the_first_cause_is_kept_with_its_time_and_phase(log: Path, watch: LogWatch) -> None:
    append(log, b"load\nout of memory above 0.25\n")
    watch.read(1.0)
    append(log, b"port taken\n" + 300 * b"noise\n" + b"a child died\n")
    watch.read(2.0)
    assert watch.cause_seen_s == 1.0
    failure = watch.failure(exit_code=-9, rank=1, waited_s=3.5)
    assert failure.kind is FailureKind.OUT_OF_MEMORY_LOADING
    assert failure.line == "out of memory above 0.25"
    assert failure.minimum_mem_fraction == 0.25
    assert (failure.rank, failure.waited_s, failure.exit_code) == (1, 3.5, -9)


def test_memory_stays_bounded_on_a_log_without_end(log: Path, watch: LogWatch) -> None:
    append(log, b"x" * 3_000_000)
    watch.read(1.0)
    append(log, b"y" * 3_000_000 + b"\n" + b"load\n" * 10_000)
    watch.read(2.0)
    assert watch.phase is StartPhase.WEIGHTS
    assert len(watch.tail) <= 100
    assert max(map(len, watch.tail)) <= 4000


def test_a_phase_known_by_other_means_does_not_go_back(watch: LogWatch) -> None:
    watch.advance(StartPhase.SERVING)
    watch.advance(StartPhase.WEIGHTS)
    assert watch.phase is StartPhase.SERVING


def test_followers_decide_by_their_place_in_the_table_when_there_is_no_cause() -> None:
    lines = ["a child died", "SomeError: first", "OtherError: second"]
    failure = classify(lines, phase=StartPhase.PROCESS, exit_code=1, patterns=_FAILURES)
    assert (failure.kind, failure.line) == (FailureKind.WARM_UP_FAILED, "SomeError: first")


@pytest.mark.parametrize(
    ("exit_code", "lines", "line"),
    [
        (-9, ["last words"], "killed by SIGKILL, its last line: last words"),
        (3, [], "exited with code 3, nothing was logged"),
        (None, ["busy"], "still running, its last line: busy"),
    ],
)
def test_what_no_line_explains_is_crashed_with_how_it_ended(
    exit_code: int | None, lines: list[str], line: str
) -> None:
    failure = classify(lines, phase=StartPhase.SERVING, exit_code=exit_code, patterns=_FAILURES)
    assert (failure.kind, failure.line) == (FailureKind.CRASHED, line)
    assert failure.log_tail == tuple(lines)


@given(st.lists(st.sampled_from(["load", "pool", "out of memory", "died", "noise"])), st.data())
def test_reading_in_pieces_tells_the_same_as_reading_at_once(lines: list[str], data: st.DataObject) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    at_once, in_pieces = watched([text]), watched(pieces)
    assert (at_once.phase, at_once.cause, at_once.tail) == (
        in_pieces.phase,
        in_pieces.cause,
        in_pieces.tail,
    )


def watched(pieces: list[bytes]) -> LogWatch:
    watch = LogWatch(Path("unused"), _STARTS, _FAILURES)
    for piece in pieces:
        for line in watch._finished_lines(piece):
            watch._take(line, 0.0)
    return watch


def test_phases_have_an_order() -> None:
    phases = list(StartPhase)
    assert all(is_later(late, early) for early, late in pairwise(phases))
    assert not is_later(StartPhase.WEIGHTS, StartPhase.WEIGHTS)
