from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from autotune.engine.docker.log_copy import Progress

_BEGAN = datetime(2026, 11, 24, 11, 52, tzinfo=UTC)


def message(number: int, after_s: float) -> bytes:
    moment = _BEGAN + timedelta(seconds=after_s)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}000Z line {number}\n".encode()


def since(messages: list[bytes], second: int | None) -> list[bytes]:
    """What a Docker engine answers: its messages from a second on, in the order of the log."""
    if second is None:
        return messages
    start = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}".encode()
    return [each for each in messages if each[:19] >= start]


@given(
    gaps=st.lists(st.floats(-0.4, 5.0), min_size=1, max_size=60),
    breaks=st.lists(st.integers(0, 60), max_size=6),
)
def test_whatever_breaks_every_message_is_written_once_and_in_order(
    gaps: list[float], breaks: list[int]
) -> None:
    times, now_s = [], 0.0
    for gap in gaps:
        now_s = max(now_s + gap, 0.0)  # two streams may log a little out of order
        times.append(now_s)
    log = [message(number, after_s) for number, after_s in enumerate(times)]
    progress, written = Progress(), b""
    for read in [*breaks, len(log)]:
        for each in (
            since(log, progress.resume())[:read] if read < len(log) else since(log, progress.resume())
        ):
            written += progress.take(each)
    assert written == b"".join(each.partition(b" ")[2] for each in log)


def test_a_message_without_an_end_of_line_is_written_as_it_is() -> None:
    progress = Progress()
    first = progress.take(b"2026-11-24T11:52:46.000000001Z a long li")
    assert first + progress.take(b"2026-11-24T11:52:46.000000002Z ne\n") == b"a long line\n"
