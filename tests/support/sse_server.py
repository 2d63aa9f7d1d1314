"""A small streaming server that answers as SGLang does, keeps the true times, and fails on request."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Fault(StrEnum):
    NONE = "none"
    STATUS = "status"
    REDIRECT = "redirect"
    NOT_A_STREAM = "not_a_stream"
    LONG_ERROR_PAGE = "long_error_page"
    DROPPED = "dropped"
    SLOW_HEADERS = "slow_headers"
    HANG_AT_FIRST = "hang_at_first"
    HANG_IN_STREAM = "hang_in_stream"
    HANG_AFTER_DONE = "hang_after_done"
    CUT = "cut"
    CUT_AFTER_DONE = "cut_after_done"
    CLEAN_CUT = "clean_cut"
    IN_STREAM_ERROR = "in_stream_error"
    ABORT = "abort"
    SHORT = "short"
    SHORT_CUT_AFTER_DONE = "short_cut_after_done"
    CLOSE = "close"


@dataclass(frozen=True)
class Script:
    ttft_s: float = 0.0
    itl_s: float = 0.0
    faults: Sequence[Fault] = (Fault.NONE,)


@dataclass
class Seen:
    path: str
    body: dict[str, Any]
    connection: int
    arrived_s: float
    token_times_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Peer:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def hang(self) -> None:
        """Say nothing until the other side is gone."""
        while await self.reader.read(1024):
            pass
        raise ConnectionResetError


@dataclass
class SseServer:
    script: Script
    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    open_connections: int = 0
    transports: list[asyncio.WriteTransport] = field(default_factory=list)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open_connections += 1
        self.transports.append(writer.transport)
        peer = Peer(reader, writer, self.connections)
        try:
            while await self._one_request(peer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_connections -= 1
            writer.close()

    async def _one_request(self, peer: Peer) -> bool:
        head = await peer.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = json.loads(await peer.reader.readexactly(int(headers["content-length"])))
        seen = Seen(first.split()[1], body, peer.number, time.perf_counter())
        fault = self.script.faults[len(self.seen) % len(self.script.faults)]
        self.seen.append(seen)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            return await self._answer(peer, seen, fault)
        finally:
            self.in_flight -= 1

    async def _answer(self, peer: Peer, seen: Seen, fault: Fault) -> bool:
        match fault:
            case Fault.STATUS:
                return await _plain(peer.writer, "500 Internal Server Error", b'{"error": "out of memory"}')
            case Fault.REDIRECT:
                return await _plain(
                    peer.writer, "302 Found", b"elsewhere", "location: http://127.0.0.1:1/\r\n"
                )
            case Fault.NOT_A_STREAM:
                return await _plain(peer.writer, "200 OK", b'{"text": "all at once"}')
            case Fault.LONG_ERROR_PAGE:
                return await _plain(peer.writer, "404 Not Found", b"<p>nothing here</p>" * 10_000)
            case Fault.DROPPED:
                return False
            case Fault.SLOW_HEADERS:
                await peer.hang()
            case _:
                pass
        return await self._stream(peer, seen, fault)

    async def _stream(self, peer: Peer, seen: Seen, fault: Fault) -> bool:
        close = "connection: close\r\n" if fault is Fault.CLOSE else ""
        peer.writer.write(
            f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{close}"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )
        await peer.writer.drain()
        if fault is Fault.HANG_AT_FIRST:
            await peer.hang()
        events = events_of(seen.path, seen.body, short=fault in {Fault.SHORT, Fault.SHORT_CUT_AFTER_DONE})
        for number, event in enumerate(events):
            if number == len(events) // 2 and not await _survives(peer, event, fault):
                return False
            await asyncio.sleep(self.script.itl_s if number else self.script.ttft_s)
            seen.token_times_s.append(time.perf_counter())
            await _chunk(peer.writer, event)
        if fault in {Fault.CUT_AFTER_DONE, Fault.SHORT_CUT_AFTER_DONE}:
            return False
        if fault is Fault.HANG_AFTER_DONE:
            await peer.hang()
        peer.writer.write(b"0\r\n\r\n")
        await peer.writer.drain()
        return fault is not Fault.CLOSE


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@contextmanager
def serving(script: Script | None = None) -> Iterator[SseServer]:
    """Run a server in a thread until the context ends."""
    server = SseServer(script or Script())
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        listener = await asyncio.start_server(server.connected, "127.0.0.1", 0, backlog=512)
        host, port = listener.sockets[0].getsockname()
        server.url = f"http://{host}:{port}"
        ready.set()
        await stop.wait()
        # A connection that is accepted while its server closes is lost with its socket open (CPython 3.11,
        # asyncio's Server._attach): first nothing more is accepted, then what was becomes a connection.
        loop.remove_reader(listener.sockets[0])
        await _turns(10)
        listener.close()
        handlers = asyncio.all_tasks() - {asyncio.current_task()}
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        for transport in server.transports:  # what is not sent by now would keep the socket open
            transport.abort()
        await _turns(3)  # a transport closes its socket in a later turn of the loop

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def events_of(path: str, body: dict[str, Any], *, short: bool = False) -> list[bytes]:
    """Return every event of an answer of one token per event, [DONE] included."""
    match path:
        case "/generate":
            asked, prompt = body["sampling_params"]["max_new_tokens"], body.get("input_ids") or body["text"]
        case "/v1/completions":
            asked, prompt = body["max_tokens"], body["prompt"]
        case _:
            asked, prompt = body["max_tokens"], body["messages"][0]["content"]
    count = max(1, asked // 2) if short else asked
    data = _DATA[path](len(prompt), count)
    return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in data] + [b"data: [DONE]\n\n"]


def _generate_data(prompt_tokens: int, count: int) -> list[dict[str, Any]]:
    return [
        {
            "text": "word " * total,
            "output_ids": list(range(total)),
            "meta_info": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": total,
                "cached_tokens": min(3, prompt_tokens),
                "finish_reason": {"type": "length", "length": count} if total == count else None,
            },
        }
        for total in range(1, count + 1)
    ]


def _completions_data(prompt_tokens: int, count: int) -> list[dict[str, Any]]:
    return [
        {
            "choices": [{"index": 0, "text": "word ", "finish_reason": "length" if total == count else None}],
            "usage": _usage(prompt_tokens, total),
        }
        for total in range(1, count + 1)
    ] + [{"choices": [], "usage": _usage(prompt_tokens, count)}]


def _chat_data(prompt_tokens: int, count: int) -> list[dict[str, Any]]:
    role = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    words = [
        {
            "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}],
            "usage": _usage(prompt_tokens, total),
        }
        for total in range(1, count + 1)
    ]
    finish = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    return [role, *words, finish, {"choices": [], "usage": _usage(prompt_tokens, count)}]


def _usage(prompt_tokens: int, total: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": total,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


_DATA = {
    "/generate": _generate_data,
    "/v1/completions": _completions_data,
    "/v1/chat/completions": _chat_data,
}


async def _survives(peer: Peer, event: bytes, fault: Fault) -> bool:
    """Do what a fault does in the middle of a stream; False ends the connection."""
    match fault:
        case Fault.HANG_IN_STREAM:
            await peer.hang()
        case Fault.CUT:
            peer.writer.write(f"{len(event):x}\r\n".encode() + event[: len(event) // 2])
            await peer.writer.drain()
            return False
        case Fault.CLEAN_CUT:
            peer.writer.write(b"0\r\n\r\n")
            await peer.writer.drain()
            return False
        case Fault.IN_STREAM_ERROR:
            await _chunk(peer.writer, b'data: {"error": {"message": "CUDA error", "code": 500}}\n\n')
        case Fault.ABORT:
            reason = {"type": "abort", "message": "the request was aborted"}
            about = {"completion_tokens": 0, "finish_reason": reason}
            await _chunk(
                peer.writer, b"data: " + json.dumps({"text": "", "meta_info": about}).encode() + b"\n\n"
            )
        case _:
            pass
    return True


async def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()


async def _plain(writer: asyncio.StreamWriter, status: str, body: bytes, more: str = "") -> bool:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{more}content-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return True
