import errno
import importlib.util
import socket
from collections.abc import Callable

import pytest

from autotune.errors import LoadError
from autotune.load import generator
from autotune.load.arrivals import LoadPoint
from autotune.load.client import HttpEndpoint
from autotune.load.transport.clock import ReceiveClock
from autotune.load.workload import Workload, offer
from autotune.request import LoadResult
from tests.support.played import chunked, events
from tests.support.raw_server import raw_server

OUTPUT_TOKENS = 40
WORKLOAD = Workload(input_tokens=4, output_tokens=OUTPUT_TOKENS)


def answering(count: int, *, again: bool = True) -> Callable[[socket.socket], bool]:
    def answer(sock: socket.socket) -> bool:
        sock.sendall(chunked(events(count)))
        return again

    return answer


def load(url: str, requests: int = 6) -> LoadResult:
    offered = offer(WORKLOAD, LoadPoint(concurrency=2, requests=requests), salt=1)
    return HttpEndpoint(url, WORKLOAD, model="m", vocabulary_size=100).run(offered)


@pytest.mark.parametrize("tokens", [OUTPUT_TOKENS, 3], ids=["long, read later", "short, read at once"])
def test_an_answer_is_read_into_its_record_whenever_that_is(tokens: int) -> None:
    with raw_server(answering(tokens)) as server:
        result = load(server.url)

    assert [record.index for record in result.records] == list(range(6))
    assert {record.output_tokens for record in result.records} == {tokens}
    assert {record.chunk_tokens.sum() for record in result.records} == {tokens}
    assert {record.failure is None for record in result.records} == {tokens == OUTPUT_TOKENS}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL])
def test_a_resource_that_runs_out_under_load_ends_the_load_and_is_no_failure_of_the_server(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    arm, armed = ReceiveClock.arm, []

    def arm_three(clock: ReceiveClock, sock: socket.socket) -> None:
        armed.append(sock)
        if len(armed) > 3:
            raise OSError(number, "none left")
        arm(clock, sock)

    monkeypatch.setattr(ReceiveClock, "arm", arm_three)
    with (
        raw_server(answering(OUTPUT_TOKENS, again=False)) as server,
        pytest.raises(LoadError, match=r"a resource of its own: .*none left"),
    ):
        load(server.url, requests=50)
    assert len(server.requests) < 6


def test_without_uvloop_the_loop_of_the_standard_library_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert generator._loop_factory() is None

    with raw_server(answering(OUTPUT_TOKENS)) as server:
        assert all(record.failure is None for record in load(server.url).records)
