"""One request over HTTP/1.1: sent, answered, and failures by kind.

In: a body and a `Transcript`. Out: the transcript, its recording filled; None or how its transport failed.
A connection on which anything failed is never used again; nothing is sent twice; redirects, proxies of the
environment and content encodings are refused. httpx makes the head of the request, once, and names what goes
wrong; the transport is asked directly, since all requests differ in nothing but their bodies.
"""

import asyncio
import errno
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import httpx

from autotune.errors import LoadError
from autotune.load.failure import SHOWN_CHARACTERS, StreamError, shown
from autotune.load.transcript import Transcript
from autotune.load.transport.connection import Connection
from autotune.load.transport.framing import Head, MalformedAnswer
from autotune.load.transport.recording import Recording
from autotune.load.transport.stamped import StampedTransport, head_of
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
        self._transport = transport
        self._head = _head_without_length(httpx.URL(url), headers or {})
        self._timeouts = timeouts
        self._connect_s = min(timeouts.connect_s, timeouts.whole_s)

    async def run(self, body: bytes, transcript: Transcript) -> StreamError | None:
        """Send one request and wait for the end of its answer; return how that failed, None if it did not.

        What the answer says is not judged here but when its transcript is read.

        Raises:
            LoadError: this machine ran out of files, ports or memory; the server is not to blame.
        """
        try:
            async with asyncio.timeout(self._timeouts.whole_s):
                sending = self._send(body, transcript)
                del body  # nobody keeps it while the answer lasts
                await self._converse(sending, transcript)
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

    async def _send(self, body: bytes, transcript: Transcript) -> Connection:
        data = b"%scontent-length: %d\r\n\r\n%s" % (self._head, len(body), body)
        return await self._transport.send(
            data, transcript.recording, self._connect_s, self._timeouts.first_byte_s
        )

    async def _converse(self, sending: Awaitable[Connection], transcript: Transcript) -> None:
        answer = _Answer(transcript)
        connection = await sending
        try:
            await transcript.recording.end
        except httpx.TransportError:
            answer.check(is_cut=True)
            raise
        finally:
            answer.stop()
            if transcript.recording.ended_ns is None:
                connection.close()
        answer.check()


class _Answer:
    """What is expected of an answer while it comes: a stream of events that ends when it says so.

    An answer that is none is let in as far as its beginning can be shown; a server that says [DONE] and then
    nothing gets a second more.
    """

    __slots__ = ("_refusal", "_timer", "_transcript")

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._refusal: Head | None = None
        self._timer: asyncio.TimerHandle | None = None
        transcript.recording.on_head = self._begin
        transcript.on_end_mark = self._wait_for_end

    def check(self, *, is_cut: bool = False) -> None:
        """Judge an answer of which nothing more will come.

        Raises:
            StreamError: it was no stream of events.
        """
        if self._refusal is not None:
            data = b"".join(self._transcript.recording.parts) + (b" (cut)" if is_cut else b"")
            raise _refused(self._refusal, shown(data))

    def stop(self) -> None:
        """Wait for nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self, head: Head) -> None:
        if _is_event_stream(head):
            self._transcript.begin()
        else:
            self._refusal = head
            self._transcript.recording.on_part = self._enough

    def _enough(self, _: bytes) -> None:
        recording = self._transcript.recording
        if recording.body_bytes >= 4 * SHOWN_CHARACTERS:
            recording.wait_no_more()

    def _wait_for_end(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_DRAIN_S, self._give_up)

    def _give_up(self) -> None:
        self._transcript.read_all()
        if self._transcript.attempt.is_done:
            self._transcript.recording.fail(httpx.ReadTimeout("no end of the answer after [DONE]"))
        self._timer = None


def _head_without_length(url: httpx.URL, headers: Mapping[str, str]) -> bytes:
    """Return what all requests begin with; the length of the body and a blank line are still to come."""
    request = httpx.Request("POST", url, headers=[*_HEADERS.items(), *headers.items()])
    del request.headers["content-length"]
    return head_of(request).removesuffix(b"\r\n")


def _is_event_stream(head: Head) -> bool:
    return (
        head.status == HTTPStatus.OK
        and _first(head, b"content-type").startswith(b"text/event-stream")
        and _first(head, b"content-encoding") in {b"", b"identity"}
    )


def _refused(head: Head, beginning: str) -> StreamError:
    """Say what an answer that is no stream of events is instead."""
    if head.status != HTTPStatus.OK:
        more = "".join(
            f" ({name}: {shown(value)})"
            for name in ("Retry-After", "Location")
            if (value := _first(head, name.lower().encode()))
        )
        return StreamError(RequestFailureKind.HTTP_STATUS, f"HTTP {head.status}: {beginning}{more}")
    kind = _first(head, b"content-type")
    if not kind.startswith(b"text/event-stream"):
        what = f"the answer is {shown(kind) or 'nothing'}, not a stream: {beginning}"
        return StreamError(RequestFailureKind.PROTOCOL, what)
    coding = shown(_first(head, b"content-encoding"))
    return StreamError(RequestFailureKind.PROTOCOL, f"the answer is encoded ({coding}), which was refused")


def _first(head: Head, name: bytes) -> bytes:
    return next((value for field, value in head.fields if field == name), b"")


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
