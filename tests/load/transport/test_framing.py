from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.load.transport.framing import ChunkedBody, Limits, MalformedAnswer

PAYLOADS = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6)


def split(data: bytes, places: list[int]) -> list[bytes]:
    cuts = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[left:right] for left, right in pairwise(cuts)]


def fed(reads: list[bytes], limits: Limits) -> tuple[list[bytes], str | None, bool]:
    body, payloads = ChunkedBody(limits), []
    try:
        for read in reads:
            payloads += [body.feed(read)]
    except MalformedAnswer as error:
        return payloads, str(error), body.is_ended
    return payloads, None, body.is_ended


def fed_each(reads: list[bytes], limits: Limits) -> tuple[list[bytes], str | None, bool]:
    body = ChunkedBody(limits)
    payloads: list[bytes] = []
    try:
        body.feed_each(reads, payloads)
    except MalformedAnswer as error:
        return payloads, str(error), body.is_ended
    return payloads, None, body.is_ended


@given(PAYLOADS, st.lists(st.integers(0, 500), max_size=8), st.booleans(), st.integers(0, 400), st.booleans())
def test_several_reads_at_once_give_what_each_alone_does(
    payloads: list[bytes], places: list[int], ends: bool, spoilt: int, is_spoilt: bool
) -> None:
    data = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in payloads) + b"0\r\n\r\n" * ends
    if is_spoilt:
        place = spoilt % len(data)
        data = data[:place] + b"z" + data[place + 1 :]
    reads = split(data, places)
    assert fed_each(reads, Limits()) == fed(reads, Limits())


def test_a_chunk_in_one_read_is_held_to_its_limit() -> None:
    payloads: list[bytes] = []
    with pytest.raises(MalformedAnswer, match="longer than 3"):
        ChunkedBody(Limits(chunk_bytes=3)).feed_each([b"2\r\nab\r\n", b"4\r\nabcd\r\n"], payloads)
    assert payloads == [b"ab"]
