import asyncio
import resource
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.load.transport.framing import Limits
from autotune.request import RequestFailureKind, RequestPhase, RequestRecord
from tests.support.played import HEAD, Ending, chunked, event, events, play

CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
FIRST = event(1, 5)
VALID = chunked(events(5))
OPEN = HEAD + b"\r\n" + b"".join(events(5))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def facts(record: RequestRecord) -> tuple[object, ...]:
    return record.output_tokens, record.cached_tokens, record.chunk_tokens.sum(), record.failure


@settings(max_examples=60)
@given(st.lists(st.integers(0, len(VALID)), max_size=40), st.sampled_from([Ending.CLOSE, Ending.STAY]))
def test_any_split_of_a_valid_answer_gives_the_same_record(cuts: list[int], ending: Ending) -> None:
    places = sorted({*cuts, 0, len(VALID)})
    record = asyncio.run(play([VALID[left:right] for left, right in pairwise(places)], ending))
    assert facts(record) == (5, 1, 5, None)


def test_an_answer_byte_by_byte_is_the_same_answer() -> None:
    record = asyncio.run(play([VALID[place : place + 1] for place in range(len(VALID))]))
    assert facts(record) == (5, 1, 5, None)
    assert record.chunk_tokens.tolist() == [1] * 5


def test_an_answer_that_is_cut_at_any_byte_is_a_typed_failure_or_was_whole() -> None:
    async def cut_everywhere() -> list[RequestRecord]:
        endings = [Ending.CLOSE, Ending.RESET]
        return [await play([VALID[:place]], endings[place % 2]) for place in range(len(VALID))]

    whole_from = VALID.index(b"[DONE]") + len(b"[DONE]\n\n")
    head_bytes = VALID.index(b"\r\n\r\n") + 4
    for place, record in enumerate(asyncio.run(cut_everywhere())):
        if place >= whole_from:
            assert record.failure is None
            continue
        assert record.failure is not None
        kind = RequestFailureKind.CONNECTION if place < head_bytes else RequestFailureKind.CUT_STREAM
        assert record.failure.kind is kind
        assert len(record.chunk_times_s) <= record.output_tokens < 6


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000, RequestFailureKind.PROTOCOL, "headers are longer"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000, RequestFailureKind.PROTOCOL, "headers are longer"),
        (b"HTTP/1.1 200 OK" * 5000, RequestFailureKind.PROTOCOL, "line is longer"),
        (HEAD + b"x: " + b"a" * 20_000 + b"\r\n\r\n", RequestFailureKind.PROTOCOL, "header is longer"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", RequestFailureKind.PROTOCOL, "not the beginning of an HTTP/1.1"),
        (b"HTTP/2 200\r\n\r\n", RequestFailureKind.PROTOCOL, "not the beginning of an HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", RequestFailureKind.PROTOCOL, "is not a header"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", RequestFailureKind.PROTOCOL, "switched protocols"),
        (HEAD + b"content-length: 5, 6\r\n\r\n", RequestFailureKind.PROTOCOL, "not one number"),
        (HEAD + b"content-length: -5\r\n\r\n", RequestFailureKind.PROTOCOL, "not one number"),
        (HEAD + b"transfer-encoding: gzip\r\n\r\n", RequestFailureKind.PROTOCOL, "not chunked alone"),
        (HEAD + b"content-encoding: br\r\n\r\n", RequestFailureKind.PROTOCOL, "encoded (br)"),
        (
            CHUNKED + b"a00000\r\n" + b"x" * 10_485_760,
            RequestFailureKind.PROTOCOL,
            "a chunk of 10485760 bytes",
        ),
        (CHUNKED + b"-5\r\n", RequestFailureKind.PROTOCOL, "is not the size of a chunk"),
        (CHUNKED + b"5_0\r\n", RequestFailureKind.PROTOCOL, "is not the size of a chunk"),
        (CHUNKED + b"ffffffffffffffffff\r\n", RequestFailureKind.PROTOCOL, "is not the size of a chunk"),
        (CHUNKED + b"5" * 50_000, RequestFailureKind.PROTOCOL, "chunk's line is longer"),
        (CHUNKED + b"5;" + b"e" * 50_000, RequestFailureKind.PROTOCOL, "chunk's line is longer"),
        (CHUNKED + b"5\n", RequestFailureKind.PROTOCOL, "ends without CR"),
        (
            CHUNKED + b"3\r\n" + FIRST + b"\r\n",
            RequestFailureKind.PROTOCOL,
            "a chunk is longer than its size",
        ),
        (CHUNKED + b"0\r\n" + b"t: x\r\n" * 50_000, RequestFailureKind.PROTOCOL, "trailers are longer"),
        (VALID + b"HTTP/1.1 200 OK\r\n", RequestFailureKind.PROTOCOL, "bytes follow the end"),
        (HEAD + b"content-length: 3\r\n\r\nabcdef", RequestFailureKind.PROTOCOL, "bytes follow the end"),
        (CHUNKED + chunk(b'data: {"text": "\xff\xfe"}\n\n'), RequestFailureKind.PROTOCOL, "is not JSON"),
        (CHUNKED + chunk(b"data: [1]\n\n"), RequestFailureKind.PROTOCOL, "not an object"),
        (CHUNKED + chunk(b"data: " + b"[" * 100_000 + b"\n\n"), RequestFailureKind.PROTOCOL, "is not JSON"),
        (chunked([*events(5), b"data: [DONE]\n\n"]), RequestFailureKind.PROTOCOL, "follows [DONE]"),
        (chunked([*events(5), FIRST]), RequestFailureKind.PROTOCOL, "follows [DONE]"),
        (chunked([FIRST, b'data: {"error": "boom"}\n\n']), RequestFailureKind.IN_STREAM_ERROR, "boom"),
        (chunked([event(3, 5), event(2, 5)]), RequestFailureKind.PROTOCOL, "went down"),
        (
            b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nbusy",
            RequestFailureKind.HTTP_STATUS,
            "HTTP 503: busy (Retry-After: 7)",
        ),
        (
            b"HTTP/1.1 307 Moved\r\nlocation: http://other/\r\ncontent-length: 0\r\n\r\n",
            RequestFailureKind.HTTP_STATUS,
            "(Location: http://other/)",
        ),
    ],
    ids=range(32),
)
def test_a_hostile_answer_is_a_typed_failure(answer: bytes, kind: RequestFailureKind, message: str) -> None:
    record = asyncio.run(play([answer], timeout_s=20))
    assert record.failure is not None
    assert (record.failure.kind, message in record.failure.message) == (kind, True), record.failure
    assert len(record.failure.message) < 400


@pytest.mark.parametrize("ending", Ending)
def test_a_malformed_chunk_that_looks_like_an_event_is_found_when_it_is_looked_into(ending: Ending) -> None:
    looks_good = b"zz\r\n" + event(2, 5) + b"\r\n"
    record = asyncio.run(play([CHUNKED, chunk(FIRST), looks_good, chunk(event(3, 5))], ending, timeout_s=1.0))
    assert record.failure is not None
    assert record.failure.kind is RequestFailureKind.PROTOCOL
    assert "is not the size of a chunk" in record.failure.message


@pytest.mark.parametrize("pieces", [[CHUNKED], [CHUNKED, b"5", b"\r"], [CHUNKED + chunk(FIRST)]])
def test_a_server_that_dribbles_ends_by_the_time_out(pieces: list[bytes]) -> None:
    record = asyncio.run(play(pieces, Ending.STAY, timeout_s=0.1))
    assert record.failure is not None
    assert record.failure.kind is RequestFailureKind.TIMEOUT
    assert record.failure.phase is (
        RequestPhase.STREAM if len(record.chunk_times_s) else RequestPhase.FIRST_TOKEN
    )


def test_an_endless_line_takes_no_more_memory_than_its_limit() -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pieces = [CHUNKED, *[chunk(b"x" * 65_536)] * 2000]
    record = asyncio.run(play(pieces, timeout_s=60))
    assert record.failure is not None
    assert record.failure.kind is RequestFailureKind.PROTOCOL
    assert "longer than" in record.failure.message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024


def test_an_answer_above_its_limit_is_refused() -> None:
    record = asyncio.run(play([VALID], limits=Limits(answer_bytes=len(VALID) // 2)))
    assert record.failure is not None
    assert "the answer is longer than" in record.failure.message


@pytest.mark.parametrize(
    "answer",
    [
        OPEN,
        HEAD + b"content-length: %d\r\n\r\n" % len(b"".join(events(5))) + b"".join(events(5)),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + VALID,
        VALID.replace(b"HTTP/1.1", b"HTTP/1.0"),
        VALID.replace(b"0\r\n\r\n", b"0\r\nserver-timing: x\r\n\r\n"),
        VALID.replace(b"transfer-encoding: chunked", b"Transfer-Encoding:Chunked"),
        chunked([b"".join(events(5))]),
        chunked([bytes([byte]) for byte in b"".join(events(5))]),
        chunked([b": comment\n\n", *events(5), b": after\n\n"]),
    ],
    ids=range(9),
)
def test_every_lawful_form_of_an_answer_is_understood(answer: bytes) -> None:
    assert facts(asyncio.run(play([answer]))) == (5, 1, 5, None)
