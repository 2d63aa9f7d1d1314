"""One connection: a non-blocking socket that the event loop reads, one request after another.

In: the bytes of a request and a `Recording`. Out: the recording, filled and ended. Talks to one socket.
Invariant: nothing is awaited between an arrival and its stamp; a connection on which anything went wrong,
or that carried a byte nobody asked for, is closed and never used again.
A read that is an event like any other (it ends one, neither the last nor plainly an error) is only kept, if
the recording allows: what it holds, and whether it is well formed, is found out when somebody settles.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import httpx

from autotune.load.transport.clock import ANCILLARY_BYTES, ReceiveClock
from autotune.load.transport.framing import (
    Body,
    ChunkedBody,
    Head,
    HeadReader,
    Limits,
    MalformedAnswer,
    OpenBody,
    body_after,
)
from autotune.load.transport.readers import Readers
from autotune.load.transport.recording import MANY_READS, Recording
from autotune.load.transport.tls import TlsSession

READ_BYTES = 16384
_EVENT_END = b"}\n\n\r\n"
_ERROR = b'"error"'
_ERROR_WITHIN = (
    32  # where the first key of an event stands; to look through all of it takes a third of a read
)
_ALL_SENT = memoryview(b"")

Released: TypeAlias = Callable[["Connection"], None]


@dataclass(slots=True)
class _Answer:
    """How far the answer under way has come."""

    recording: Recording
    reader: HeadReader
    head: Head | None = None
    body: Body | None = None
    first_byte: asyncio.TimerHandle | None = None

    @property
    def may_put_off(self) -> bool:
        """Whether an event amid the stream may wait."""
        return self.recording.may_put_off and type(self.body) is ChunkedBody and self.first_byte is None

    def stop_timer(self) -> None:
        if self.first_byte is not None:
            self.first_byte.cancel()
            self.first_byte = None


class Connection:
    """A connected socket. `released` is called when it is free for the next request, or closed.

    Reads go through `buffer`, which connections of one event loop may share: what is kept is a copy of its
    own size. A large one made smaller would leave a hole that no other large one fits in.
    """

    def __init__(
        self,
        sock: socket.socket,
        tls: TlsSession | None,
        clock: ReceiveClock,
        limits: Limits,
        released: Released,
        *,
        readers: Readers | None = None,
        buffer: bytearray | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._tls = tls
        self._receive_into = sock.recvmsg_into
        self._stamp_ns = clock.stamp_ns
        self._limits = limits
        self._released = released
        self._buffers = [buffer or bytearray(READ_BYTES)]
        self._read = memoryview(self._buffers[0])
        self._answer: _Answer | None = None
        self._putting_off: Recording | None = None
        self._unsent = _ALL_SENT
        self._is_writing = False
        self.is_closed = False
        self.idle_since_ns = time.monotonic_ns()
        self._readers: Readers = readers or self._loop
        self._readers.add_reader(sock, self._on_readable)

    def is_usable(self, longest_idle_s: float) -> bool:
        """Whether a request may be sent: open, not idle for too long, and with nothing to read."""
        if self.is_closed or time.monotonic_ns() - self.idle_since_ns > longest_idle_s * 1e9:
            return False
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False

    def begin(self, data: bytes, recording: Recording, first_byte_timeout_s: float | None = None) -> None:
        """Send a request; its answer ends the recording. One at a time."""
        self._answer = _Answer(recording, HeadReader(self._limits))
        recording.settle = self._settle
        if first_byte_timeout_s is not None:
            error = httpx.ReadTimeout(f"no first byte of the answer within {first_byte_timeout_s:g} s")
            self._answer.first_byte = self._loop.call_later(first_byte_timeout_s, self.fail, error)
        recording.begun_ns = time.monotonic_ns()
        self._unsent = memoryview(data if self._tls is None else self._tls.encrypt(data))
        self._send()

    def fail(self, error: Exception) -> None:
        """End the answer under way with an error, and the connection with it."""
        self._settle()
        if self._answer is not None:
            self._answer.recording.fail(error)
        self.close()

    def close(self) -> None:
        """Close the socket, whatever is under way."""
        self._settle()
        if self.is_closed:
            return
        self.is_closed = True
        self._readers.remove_reader(self._socket)
        self._stop_writing()
        self._socket.close()
        if self._answer is not None:
            self._answer.stop_timer()
            self._answer.recording.fail(httpx.ReadError("the connection was closed by this side"))
            self._answer = self._putting_off = None
        self._released(self)

    def _send(self) -> None:
        """Hand over what the kernel takes.

        The stamp is taken before the call that takes the last byte: on a fast network the answer may be
        there before the call returns, and a TTFT is never understated.
        """
        before_ns = time.monotonic_ns()
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._stop_writing()  # the answer, or how the connection ended, is still to be read
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._unsent = _ALL_SENT  # an empty view would keep the request
            self._stop_writing()
            if self._answer is not None and self._answer.recording.sent_ns is None:
                self._answer.recording.sent_ns = before_ns
        elif not self._is_writing:
            self._is_writing = True
            self._loop.add_writer(self._socket, self._send)

    def _stop_writing(self) -> None:
        if self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._socket)

    def _on_readable(self) -> None:
        try:
            size, ancillary, _, _ = self._receive_into(self._buffers, ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.fail(_read_error(error))
            return
        data, at_ns = self._read[:size].tobytes(), self._stamp_ns(ancillary)
        recording = self._putting_off
        if recording is None or not data.endswith(_EVENT_END) or data.find(_ERROR, 0, _ERROR_WITHIN) >= 0:
            self._receive(data, at_ns)
            return
        recording.raw_stamps_ns.append(at_ns)
        recording.raw.append(data)
        if not len(recording.raw) % MANY_READS:
            recording.on_many()

    def _receive(self, data: bytes, at_ns: int) -> None:
        """Take in a read that may end something; an empty one is the end of the stream."""
        is_end = not data
        if self._tls is not None:
            try:
                data, is_end = self._decrypted(self._tls, data)
            except OSError as error:
                self.fail(_read_error(error))
                return
        self._settle()
        if data:
            self._take(data, at_ns)
        if is_end and not self.is_closed:
            self._end_of_stream(at_ns)

    def _settle(self) -> None:
        """Read what was put off."""
        recording, answer = self._putting_off, self._answer
        if (
            recording is None
            or not recording.raw
            or answer is None
            or not isinstance(answer.body, ChunkedBody)
        ):
            return
        stamps_ns, reads = recording.pick_up()
        payloads: list[bytes] = []
        failure: MalformedAnswer | None = None
        try:
            answer.body.feed_each(reads, payloads)
        except MalformedAnswer as error:
            failure = error
        recording.add_all(stamps_ns, payloads)
        failure = failure or self._too_long(recording)
        if failure is not None:
            self._putting_off = None
            self.fail(failure)

    def _decrypted(self, tls: TlsSession, data: bytes) -> tuple[bytes, bool]:
        if not data:
            return b"", True
        plain = tls.decrypt(data)
        if replies := tls.replies():
            self._unsent = memoryview(bytes(self._unsent) + replies)
            self._send()
        return plain, tls.is_ended

    def _take(self, data: bytes, at_ns: int) -> None:
        answer = self._answer
        if answer is None:
            self.close()
            return
        try:
            if answer.body is None:
                data = self._take_head(answer, data)
            if answer.body is not None:
                self._keep(answer, answer.body.feed(data), at_ns)
                if answer.body.is_ended:
                    self._finish(answer, at_ns)
                elif self._putting_off is None and answer.may_put_off:
                    self._putting_off = answer.recording
        except MalformedAnswer as error:
            self._putting_off = None
            self.fail(error)

    def _take_head(self, answer: _Answer, data: bytes) -> bytes:
        """Read on in the head; return the bytes that follow it."""
        whole = answer.reader.feed(data)
        if whole is None:
            return b""
        answer.head, rest = whole
        answer.body = body_after(answer.head, self._limits)
        answer.recording.on_head(answer.head)
        return rest

    def _keep(self, answer: _Answer, payload: bytes, at_ns: int) -> None:
        if not payload:
            return
        if answer.first_byte is not None:
            answer.stop_timer()
        answer.recording.add(at_ns, payload)
        if (failure := self._too_long(answer.recording)) is not None:
            raise failure

    def _too_long(self, recording: Recording) -> MalformedAnswer | None:
        if recording.body_bytes <= self._limits.answer_bytes:
            return None
        return MalformedAnswer(f"the answer is longer than {self._limits.answer_bytes} bytes")

    def _end_of_stream(self, at_ns: int) -> None:
        answer = self._answer
        if answer is None:
            self.close()
        elif answer.body is not None and answer.body.end_of_stream():
            self._finish(answer, at_ns)
        elif answer.body is None and answer.reader.is_empty:
            self.fail(httpx.ReadError("the server disconnected without an answer"))
        else:
            self.fail(httpx.ReadError("the peer closed the connection before the answer was whole"))

    def _finish(self, answer: _Answer, at_ns: int) -> None:
        is_kept = (
            answer.head is not None
            and answer.head.keeps_alive
            and not self._unsent
            and not isinstance(answer.body, OpenBody)
        )
        answer.stop_timer()
        self._answer = self._putting_off = None
        answer.recording.finish(at_ns)
        if is_kept:
            self.idle_since_ns = time.monotonic_ns()
            self._released(self)
        else:
            self.close()


def _read_error(error: OSError) -> httpx.ReadError:
    read_error = httpx.ReadError(str(error))
    read_error.__cause__ = error
    return read_error
