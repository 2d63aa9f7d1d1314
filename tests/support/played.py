"""Answers played to the client over a pair of sockets, in pieces of the test's choice."""

import asyncio
import json
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum

from autotune.load.attempt import Attempt
from autotune.load.clock import LoadClock
from autotune.load.exchange import Exchange, Timeouts
from autotune.load.transcript import Transcript
from autotune.load.transport.clock import ReceiveClock
from autotune.load.transport.connection import Connection
from autotune.load.transport.framing import Limits
from autotune.load.transport.recording import Recording
from autotune.load.transport.stamped import StampedTransport
from autotune.load.workload import Wire
from autotune.request import Request, RequestRecord

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


class Ending(StrEnum):
    """What the server does after its last piece."""

    CLOSE = "close"
    RESET = "reset"
    STAY = "stay"


def event(total: int, count: int) -> bytes:
    finish = {"type": "length", "length": count} if total == count else None
    about = {"prompt_tokens": 9, "completion_tokens": total, "cached_tokens": 1, "finish_reason": finish}
    return (
        b"data: "
        + json.dumps({"text": "wörd " * total, "meta_info": about}, ensure_ascii=False).encode()
        + b"\n\n"
    )


def events(count: int) -> list[bytes]:
    return [event(total, count) for total in range(1, count + 1)] + [b"data: [DONE]\n\n"]


def chunked(parts: Sequence[bytes]) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


class _OneConnection:
    """A pool whose only connection is one end of a pair of sockets."""

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self.connection = Connection(sock, None, ReceiveClock(), limits, lambda _: None)

    async def take(self, timeout_s: float | None) -> Connection:
        del timeout_s
        return self.connection

    def close(self) -> None:
        self.connection.close()


class _PlayedTransport(StampedTransport):
    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self.pool = _OneConnection(sock, limits)  # type: ignore[assignment]  # it only takes and closes


async def play(
    parts: Sequence[bytes],
    ending: Ending = Ending.CLOSE,
    *,
    output_tokens: int = 5,
    limits: Limits | None = None,
    timeout_s: float = 10.0,
) -> RequestRecord:
    """Let the client ask, give it these bytes, and return its record."""
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        transport = _PlayedTransport(ours, limits or Limits())
        attempt = Attempt(Request(0, 9, output_tokens), Wire.GENERATE, 0.0, ignore_eos=True)
        transcript = Transcript(attempt, Recording(), LoadClock(0))
        exchange = Exchange("http://played/generate", transport, Timeouts(whole_s=timeout_s))
        asking = asyncio.create_task(exchange.run(b"{}", transcript))
        await asyncio.sleep(0)
        await _send(theirs, parts)
        _end(theirs, ending)
        error = await asking
        await transport.aclose()
    return transcript.record(error)


async def _send(sock: socket.socket, parts: Sequence[bytes]) -> None:
    with suppress(ConnectionError):
        for part in parts:
            await asyncio.get_running_loop().sock_sendall(sock, part)
            await asyncio.sleep(0)


def _end(sock: socket.socket, ending: Ending) -> None:
    match ending:
        case Ending.CLOSE:
            sock.close()
        case Ending.RESET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        case Ending.STAY:
            pass
