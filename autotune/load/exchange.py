"""One request over HTTP/1.1 with httpx: sent, answered, and failures by kind.

In: a body and a `Transcript`. Out: the transcript, its recording filled; None or how its transport failed.
A connection on which anything failed is never used again; nothing is sent twice; redirects, proxies of the
environment and content encodings are refused. The transport is asked directly: what `httpx.AsyncClient` adds
(cookies, redirects, proxies) is not wanted here, and would cost a third of a request's CPU.
"""

import asyncio
import errno
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

import httpx

from autotune.errors import LoadError
from autotune.load.failure import SHOWN_CHARACTERS, StreamError, shown
from autotune.load.transcript import Transcript
from autotune.load.transport.framing import MalformedAnswer
from autotune.load.transport.recording import Recording
from autotune.load.transport.stamped import StampedTransport
from autotune.request import RequestFailureKind, RequestPhase

_DRAIN_S = 1.0
_HEADERS = {
    "accept": "text/event-stream",
    "accept-encoding": "identity",
    "content-type": "application/json",
}
_OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one request: until connected, from sent to the first byte of the body, and for the whole."""

    whole_s: float = 600.0
    connect_s: float = 30.0
    first_byte_s: float | None = None


class Exchange:
    """Sends requests to one URL. `headers` go with every request, after the ones that are always sent."""

    def __init__(
        self,
        url: str,
        transport: StampedTransport,
        timeouts: Timeouts,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._url = httpx.URL(url)
        self._transport = transport
        self._headers = httpx.Headers([*_HEADERS.items(), *(headers or {}).items()])
        self._timeouts = timeouts

    async def run(self, body: bytes, transcript: Transcript) -> StreamError | None:
        """Send one request and wait for the end of its answer; return how that failed, None if it did not.

        What the answer says is not judged here but when its transcript is read.

        Raises:
            LoadError: this machine ran out of files, ports or memory; the server is not to blame.
        """
        try:
            async with asyncio.timeout(self._timeouts.whole_s):
                await self._converse(body, transcript)
        except StreamError as error:
            return error
        except TimeoutError:
            late = _timeout(f"no end within {self._timeouts.whole_s:g} s")
            return _malformed(transcript.recording) or late
        except httpx.TimeoutException as error:
            return _timeout(str(error))
        except MalformedAnswer as error:
            return StreamError(RequestFailureKind.PROTOCOL, str(error))
        except httpx.TransportError as error:
            refuse_own_limits(error)
            message = str(error) or type(error).__name__
            return StreamError(_kind_of(transcript.phase()), message, is_of_transport=True)
        return None

    async def _converse(self, body: bytes, transcript: Transcript) -> None:
        recording = transcript.recording
        limits_s = {
            "connect": min(self._timeouts.connect_s, self._timeouts.whole_s),
            "read": self._timeouts.first_byte_s,
        }
        request = httpx.Request(
            "POST",
            self._url,
            headers=self._headers,
            content=body,
            extensions={"recording": recording, "timeout": limits_s},
        )
        response = await self._transport.handle_async_request(request)
        try:
            await _refuse_unless_events(response)
            transcript.begin()
            await _end_of(transcript)
        finally:
            await response.aclose()


async def _end_of(transcript: Transcript) -> None:
    """Wait for the answer's end; a server that says [DONE] and then nothing gets a second more."""
    recording, loop = transcript.recording, asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []

    def give_up() -> None:
        transcript.read_all()
        if transcript.attempt.is_done:
            recording.fail(httpx.ReadTimeout("no end of the answer after [DONE]"))

    transcript.on_end_mark = lambda: timers.append(loop.call_later(_DRAIN_S, give_up))
    if transcript.has_end_mark:
        transcript.on_end_mark()
    try:
        await recording.end
    finally:
        for timer in timers:
            timer.cancel()


async def _refuse_unless_events(response: httpx.Response) -> None:
    if response.status_code != httpx.codes.OK:
        beginning = await _beginning(response)
        more = "".join(
            f" ({name}: {shown(response.headers[name].encode())})"
            for name in ("Retry-After", "Location")
            if name in response.headers
        )
        raise StreamError(RequestFailureKind.HTTP_STATUS, f"HTTP {response.status_code}: {beginning}{more}")
    kind = response.headers.get("content-type", "nothing")
    if not kind.startswith("text/event-stream"):
        beginning = await _beginning(response)
        raise StreamError(RequestFailureKind.PROTOCOL, f"the answer is {kind}, not a stream: {beginning}")
    coding = response.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise StreamError(RequestFailureKind.PROTOCOL, f"the answer is encoded ({coding}), which was refused")


async def _beginning(response: httpx.Response) -> str:
    """Return the first bytes of a body that is no stream, as far as they come."""
    data = b""
    try:
        async with aclosing(cast("_Closing", response.aiter_raw())) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) >= 4 * SHOWN_CHARACTERS:
                    break
    except httpx.TransportError:
        data += b" (cut)"
    return shown(data)


class _Closing(AsyncIterator[bytes]):
    """Httpx declares an iterator, but it is a generator and has to be closed when left early."""

    async def aclose(self) -> None: ...


def _malformed(recording: Recording) -> StreamError | None:
    """Return what was wrong with reads that nobody had looked into before the exchange was given up."""
    error = recording.error
    return (
        StreamError(RequestFailureKind.PROTOCOL, str(error)) if isinstance(error, MalformedAnswer) else None
    )


def _timeout(message: str) -> StreamError:
    return StreamError(RequestFailureKind.TIMEOUT, message, is_of_transport=True)


def _kind_of(phase: RequestPhase) -> RequestFailureKind:
    before_answer = phase in {RequestPhase.CONNECT, RequestPhase.HEADERS}
    return RequestFailureKind.CONNECTION if before_answer else RequestFailureKind.CUT_STREAM


def refuse_own_limits(error: BaseException) -> None:
    """Tell a resource that this machine lacks from a server that refuses.

    Raises:
        LoadError: the load generator ran out of files, ports or memory.
    """
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
