"""One request over HTTP/1.1 with httpx: connections, stamps, and failures by kind.

In: a body and an `Attempt`. Out: the attempt, stamped; None or the failure it ended with.
Each connection is an `AsyncClient` of its own, because the pool of a shared httpx 0.28 client takes time that
is quadratic in its connections. A connection on which anything failed is never used again; redirects, proxies
of the environment and content encodings are refused.
"""

import asyncio
import errno
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Protocol, cast

import httpx

from autotune.errors import LoadError
from autotune.load.attempt import Attempt
from autotune.load.failure import SHOWN_CHARACTERS, StreamError, shown
from autotune.request import RequestFailure, RequestFailureKind, RequestPhase

_KEEP_ALIVE_S = 2.0
"""Below uvicorn's 5 s, so that the server never closes a connection while a request is on its way."""
_DRAIN_S = 1.0
_HEADERS = {
    "accept": "text/event-stream",
    "accept-encoding": "identity",
    "content-type": "application/json",
}
_OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})


class Connections:
    """Idle connections, the last used first; their number grows with the load."""

    def __init__(self, base_url: str) -> None:
        secure = base_url.startswith("https:")
        self._ssl_context = httpx.create_ssl_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._idle: list[httpx.AsyncClient] = []

    def prepare(self, count: int) -> None:
        """Make clients in advance; making one costs a millisecond."""
        self._idle.extend(self._open() for _ in range(count - len(self._idle)))

    def take(self) -> httpx.AsyncClient:
        """Return a client that nobody else uses."""
        return self._idle.pop() if self._idle else self._open()

    def give_back(self, client: httpx.AsyncClient) -> None:
        """Keep a client for the next request."""
        self._idle.append(client)

    async def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            await self._idle.pop().aclose()

    def _open(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_KEEP_ALIVE_S)
        transport = httpx.AsyncHTTPTransport(verify=self._ssl_context, limits=limits, trust_env=False)
        return httpx.AsyncClient(transport=transport, timeout=None, trust_env=False, headers=_HEADERS)  # noqa: S113 - the whole request has one deadline


class Exchange:
    """Sends requests to one URL; `clock` gives the seconds since the load began."""

    def __init__(
        self, url: str, connections: Connections, clock: Callable[[], float], timeout_s: float
    ) -> None:
        self._url = url
        self._connections = connections
        self._clock = clock
        self._timeout_s = timeout_s

    async def run(self, body: bytes, attempt: Attempt) -> RequestFailure | None:
        """Send one request, take its answer in, and return how it failed, None if it did not.

        Raises:
            LoadError: this machine ran out of files, ports or memory; the server is not to blame.
        """
        try:
            await self._converse(body, attempt)
            attempt.check_end()
        except StreamError as error:
            return attempt.failed(error)
        except TimeoutError:
            message = f"no end within {self._timeout_s:g} s"
            return _unless_whole(attempt, StreamError(RequestFailureKind.TIMEOUT, message))
        except httpx.TransportError as error:
            _refuse_own_limits(error)
            message = str(error) or type(error).__name__
            return _unless_whole(attempt, StreamError(_kind_of(attempt.phase), message))
        return None

    async def _converse(self, body: bytes, attempt: Attempt) -> None:
        client = self._connections.take()
        stamps = _Stamps(attempt, self._clock)
        is_clean = False
        try:
            async with asyncio.timeout(self._timeout_s) as deadline:
                await self._stream(client, body, stamps, deadline)
            is_clean = True
        finally:
            if is_clean:
                self._connections.give_back(client)
            else:
                await client.aclose()
                await stamps.close_socket()

    async def _stream(
        self, client: httpx.AsyncClient, body: bytes, stamps: "_Stamps", deadline: asyncio.Timeout
    ) -> None:
        attempt, extensions = stamps.attempt, {"trace": stamps.trace}
        async with client.stream("POST", self._url, content=body, extensions=extensions) as response:
            await _refuse_unless_events(response)
            attempt.answered()
            async with aclosing(_chunks(response)) as chunks:
                async for data in chunks:
                    attempt.receive(data, self._clock())
                    if attempt.is_done:
                        deadline.reschedule(asyncio.get_running_loop().time() + _DRAIN_S)


class _Socket(Protocol):
    async def aclose(self) -> None: ...


class _Stamps:
    """httpx's trace of one request: when it was sent, and the socket that was opened for it."""

    def __init__(self, attempt: Attempt, clock: Callable[[], float]) -> None:
        self.attempt = attempt
        self._clock = clock
        self._socket: _Socket | None = None

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take in one event of httpcore."""
        if event == "http11.send_request_body.complete":
            self.attempt.sent(self._clock())
        elif event == "connection.connect_tcp.complete":
            self._socket = info["return_value"]

    async def close_socket(self) -> None:
        """Close it again: httpcore 1.0.9 forgets a socket whose TLS handshake is cancelled."""
        if self._socket is not None:
            await self._socket.aclose()


async def _refuse_unless_events(response: httpx.Response) -> None:
    if response.status_code != httpx.codes.OK:
        beginning = await _beginning(response)
        raise StreamError(RequestFailureKind.HTTP_STATUS, f"HTTP {response.status_code}: {beginning}")
    kind = response.headers.get("content-type", "nothing")
    if not kind.startswith("text/event-stream"):
        beginning = await _beginning(response)
        raise StreamError(RequestFailureKind.PROTOCOL, f"the answer is {kind}, not a stream: {beginning}")


def _chunks(response: httpx.Response) -> AsyncGenerator[bytes]:
    """Httpx declares an iterator, but it is a generator and has to be closed when left early."""
    return cast("AsyncGenerator[bytes]", response.aiter_raw())


async def _beginning(response: httpx.Response) -> str:
    data = b""
    async with aclosing(_chunks(response)) as chunks:
        async for chunk in chunks:
            data += chunk
            if len(data) >= 4 * SHOWN_CHARACTERS:
                break
    return shown(data)


def _kind_of(phase: RequestPhase) -> RequestFailureKind:
    before_answer = phase in {RequestPhase.CONNECT, RequestPhase.HEADERS}
    return RequestFailureKind.CONNECTION if before_answer else RequestFailureKind.CUT_STREAM


def _unless_whole(attempt: Attempt, error: StreamError) -> RequestFailure | None:
    """Return the failure; none if the answer was whole and only the end of its body is late or lost."""
    if not attempt.is_done:
        return attempt.failed(error)
    try:
        attempt.check_end()
    except StreamError as short:
        return attempt.failed(short)
    return None


def _refuse_own_limits(error: BaseException) -> None:
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _OWN_LIMITS:
            raise LoadError(f"the load generator ran out of a resource of its own: {cause}") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for part in error.exceptions:
                yield from _causes(part)
        error = error.__cause__ or error.__context__
