from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.load.failure import StreamError
from autotune.load.stream import EventSplitter
from autotune.request import RequestFailureKind

payloads = st.binary(min_size=1, max_size=30).filter(lambda data: not set(data) & set(b"\r\n"))
fillers = st.sampled_from([b"", b": ping\n", b"event: message\n", b"id: 7\n\n", b"\n", b"retry: 3\r\n"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    data = b""
    events = draw(st.lists(st.lists(payloads, min_size=1, max_size=3), max_size=8))
    for lines in events:
        end = draw(st.sampled_from([b"\n", b"\r\n"]))
        space = draw(st.sampled_from([b" ", b""]))
        filler = draw(fillers)
        data += filler + b"".join(b"data:" + (space or _kept(line)) + line + end for line in lines) + end
    return data, [b"\n".join(lines) for lines in events]


def _kept(line: bytes) -> bytes:
    return b" " if line.startswith(b" ") else b""


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[left:right] for left, right in pairwise(places)]


@given(streams(), st.lists(st.integers(0, 10_000), max_size=20))
def test_any_split_of_a_stream_gives_the_same_events(
    stream: tuple[bytes, list[bytes]], cuts: list[int]
) -> None:
    data, expected = stream
    splitter = EventSplitter()
    assert [event for part in split(data, cuts) for event in splitter.feed(part)] == expected


@given(streams())
def test_an_event_is_out_as_soon_as_its_last_byte_is_in(stream: tuple[bytes, list[bytes]]) -> None:
    data, _ = stream
    by_byte = EventSplitter()
    counts = [len(by_byte.feed(data[place : place + 1])) for place in range(len(data))]
    for place, count in enumerate(counts):
        assert count == 0 or data[place : place + 1] == b"\n"


def test_an_unfinished_event_is_never_given() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: half\n") == []
    assert splitter.feed(b"data: a") == []


def test_a_field_without_a_value_is_an_empty_line_of_data() -> None:
    assert EventSplitter().feed(b"data\ndata: x\n\n") == [b"\nx"]


@pytest.mark.parametrize("data", [b"x" * 101, b"data: " + b"y" * 60 + b"\ndata: " + b"y" * 60])
def test_a_line_or_an_event_that_grows_without_end_is_refused(data: bytes) -> None:
    splitter = EventSplitter(longest_event_bytes=100)
    for place in range(100):
        splitter.feed(data[place : place + 1])
    with pytest.raises(StreamError) as caught:
        splitter.feed(data[100:])
    assert caught.value.kind is RequestFailureKind.PROTOCOL


def test_many_short_events_are_no_long_event() -> None:
    splitter = EventSplitter(longest_event_bytes=100)
    assert len(splitter.feed(b"data: 0123456789\n\n" * 500)) == 500
