"""The httpx transport: one request out, its answer recorded with the kernel's receive times.

In: an `httpx.Request`. Out: an `httpx.Response` whose stream can be read as of any transport, and whose
`Recording` is under `extensions["recording"]`. Talks to one server.
httpx's `timeout` extension is kept for `connect` and, as the time to the answer's first byte, for `read`.
Who sends many like requests writes their bytes himself (`head_of`) and gives them to `send`: to make httpx's
two objects takes longer than to send and read everything else of a request.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx

from autotune.load.transport.clock import ReceiveClock
from autotune.load.transport.connection import Connection
from autotune.load.transport.framing import Head, Limits
from autotune.load.transport.pool import Pool
from autotune.load.transport.recording import Recording

_DEFAULT_PORTS = {"http": 80, "https": 443}


class StampedTransport(httpx.AsyncBaseTransport):
    """Connections to the server of `base_url`, which may be `http` or `https`."""

    def __init__(
        self,
        base_url: str,
        clock: ReceiveClock,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        url = httpx.URL(base_url)
        if url.scheme == "https" and tls is None:
            tls = httpx.create_ssl_context(trust_env=False)
        port = url.port or _DEFAULT_PORTS[url.scheme]
        self.pool = Pool(url.host, port, tls if url.scheme == "https" else None, clock, limits or Limits())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return when the head of its answer is there.

        A recording of the caller's own may be given as `request.extensions["recording"]`.

        Raises:
            httpx.TransportError: by its type, how far the exchange came.
        """
        recording = request.extensions.get("recording") or Recording()
        timeouts = request.extensions.get("timeout", {})
        answered = _answered(recording)
        data = head_of(request) + await request.aread()
        connection = await self.send(data, recording, timeouts.get("connect"), timeouts.get("read"))
        stream = _Stream(connection, recording)
        async with AsyncExitStack() as unless_answered:
            unless_answered.push_async_callback(stream.aclose)
            head = await answered
            unless_answered.pop_all()
        return httpx.Response(
            head.status, headers=head.fields, stream=stream, extensions={"recording": recording}
        )

    async def send(
        self,
        data: bytes,
        recording: Recording,
        connect_timeout_s: float | None = None,
        first_byte_timeout_s: float | None = None,
    ) -> Connection:
        """Send a request's bytes and return the connection that its answer is recorded from.

        Raises:
            httpx.TransportError: there is no connection; what goes wrong later ends the recording.
        """
        recording.asked_ns = time.monotonic_ns()
        connection = await self.pool.take(connect_timeout_s)
        connection.begin(data, recording, first_byte_timeout_s)
        return connection

    async def aclose(self) -> None:
        """Close every connection."""
        self.pool.close()


class _Stream(httpx.AsyncByteStream):
    """The body of an answer, as httpx reads it; closing it early closes the connection."""

    def __init__(self, connection: Connection, recording: Recording) -> None:
        self._connection = connection
        self._recording = recording

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._recording.parts:
                yield self._recording.take()[1]
            if self._recording.end.done():
                self._recording.end.result()
                return
            await self._recording.more()

    async def aclose(self) -> None:
        """Give the connection up unless the answer is whole."""
        if self._recording.ended_ns is None:
            self._connection.close()


def head_of(request: httpx.Request) -> bytes:
    """Return a request as it is sent, up to the blank line before its body."""
    lines = [b"%s: %s\r\n" % (name, value) for name, value in request.headers.raw]
    return b"%s %s HTTP/1.1\r\n%s\r\n" % (request.method.encode(), request.url.raw_path, b"".join(lines))


def _answered(recording: Recording) -> asyncio.Future[Head]:
    """Return a future for the head, which fails if there will be none."""
    answered: asyncio.Future[Head] = asyncio.get_running_loop().create_future()

    def end(ended: asyncio.Future[None]) -> None:
        error = None if ended.cancelled() else ended.exception()
        if error is not None and not answered.done():
            answered.set_exception(error)

    def begin(head: Head) -> None:
        if not answered.done():
            answered.set_result(head)

    recording.on_head = begin
    recording.end.add_done_callback(end)
    return answered
