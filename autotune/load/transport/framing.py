"""HTTP/1.1 answers out of bytes: the head, and where the body ends (RFC 9112). Pure.

In: bytes as they arrive. Out: a `Head`; then the body's payload, as soon as its bytes are in.
Invariant: memory is bounded by `Limits`; what is malformed, or longer than its limit, is a `MalformedAnswer`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import httpx

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\x00]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\x00]*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_LONGEST_SIZE = 16
_KNOWN_SIZES = 512
_LINE_ENDS = 4  # bytes of the two line ends around a chunk's payload
_FINAL = 200
_SWITCHED = 101
_NO_BODY = frozenset({204, 304})


class MalformedAnswer(httpx.RemoteProtocolError):
    """The server's bytes are not HTTP/1.1, or exceed a limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most bytes of each part of an answer. A chunk or line above it is a failure of the server."""

    head_bytes: int = 64 * 2**10
    line_bytes: int = 16 * 2**10
    chunk_bytes: int = 4 * 2**20
    answer_bytes: int = 2**30


@dataclass(frozen=True, slots=True)
class Head:
    """Status and header fields of an answer, names in lower case."""

    version: int
    status: int
    fields: list[tuple[bytes, bytes]]

    def values(self, name: bytes) -> list[bytes]:
        """Return the comma-separated values of all fields of this name, in lower case."""
        joined = b",".join(value for field, value in self.fields if field == name)
        return [part.strip().lower() for part in joined.split(b",") if part.strip()]

    @property
    def keeps_alive(self) -> bool:
        """Whether the server lets the connection be used again."""
        asked = self.values(b"connection")
        return b"close" not in asked and (self.version == 1 or b"keep-alive" in asked)


class Body(Protocol):
    """What follows a head."""

    is_ended: bool

    def feed(self, data: bytes) -> bytes:
        """Return the payload in these bytes."""
        ...

    def end_of_stream(self) -> bool:
        """Whether the end of the connection is where this body may end."""
        ...


class HeadReader:
    """Collects bytes until the blank line."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._data = b""

    @property
    def is_empty(self) -> bool:
        """Whether no byte of an answer has come."""
        return not self._data

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """Return the head and the bytes after it once it is whole; heads of 1xx are passed over."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0 or len(self._data) > self._limits.head_bytes:
            if not 0 <= end <= self._limits.head_bytes:
                raise MalformedAnswer(f"the headers are longer than {self._limits.head_bytes} bytes")
            lines, self._data = self._data[:end].split(b"\r\n"), self._data[end + 4 :]
            head = _head_of(lines, self._limits)
            if head.status >= _FINAL:
                return head, self._data
            if head.status == _SWITCHED:
                raise MalformedAnswer("the server switched protocols")
        if b"\n" not in self._data and len(self._data) > self._limits.line_bytes:
            raise MalformedAnswer(f"a line is longer than {self._limits.line_bytes} bytes")
        return None


class ChunkedBody:
    """Transfer coding chunked; extensions and trailers are dropped."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._line = b""
        self._missing = 0
        self._needs_end = False
        self._trailer_bytes: int | None = None
        self.is_ended = False

    def feed(self, data: bytes) -> bytes:
        """Return the payload in these bytes."""
        if not self._is_between:
            return self._feed_on(data)
        pieces, place = self._whole_chunks(data)
        if place < len(data):
            pieces.append(self._feed_on(data[place:]))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def feed_each(self, reads: Iterable[bytes], payloads: list[bytes]) -> None:
        """Append the payload of each of several reads; as `feed`, but fast where a read is one chunk."""
        most, is_between = self._limits.chunk_bytes, self._is_between
        for data in reads:
            end = data.find(b"\r\n", 0, _LONGEST_SIZE)
            is_one = is_between and 0 < len(data) - end - _LINE_ENDS == _size_in(data[:end])
            if is_one and data.endswith(b"\r\n") and len(data) <= most:
                payloads.append(data[end + 2 : -2])
            else:
                payloads.append(self.feed(data))
                is_between = self._is_between

    @property
    def _is_between(self) -> bool:
        """Whether the next byte begins a chunk."""
        return not (self._missing or self._line or self._needs_end or self._trailer_bytes is not None)

    def _whole_chunks(self, data: bytes) -> tuple[list[bytes], int]:
        """Return the payloads of the chunks that are whole from the beginning on, and where they end."""
        pieces: list[bytes] = []
        place = 0
        while (end := data.find(b"\r\n", place, place + _LONGEST_SIZE)) >= 0:
            stop = end + 2 + self._size_of(data[place:end])
            if stop == end + 2 or data[stop : stop + 2] != b"\r\n":
                break
            pieces.append(data[end + 2 : stop])
            place = stop + 2
        return pieces, place

    def _feed_on(self, data: bytes) -> bytes:
        payload = b""
        while data and not self.is_ended:
            if self._missing:
                part, data = data[: self._missing], data[self._missing :]
                self._missing -= len(part)
                payload += part
            else:
                data = self._take_line(data)
        if data:
            raise MalformedAnswer("bytes follow the end of the answer")
        return payload

    def end_of_stream(self) -> bool:
        """A chunked body ends with its last chunk only."""
        return False

    def _take_line(self, data: bytes) -> bytes:
        end = data.find(b"\n")
        self._line += data if end < 0 else data[: end + 1]
        if len(self._line) > self._limits.line_bytes:
            raise MalformedAnswer(f"a chunk's line is longer than {self._limits.line_bytes} bytes")
        if end < 0:
            return b""
        if not self._line.endswith(b"\r\n"):
            what = "a chunk is longer than its size" if self._needs_end else "a chunk's line ends without CR"
            raise MalformedAnswer(what)
        line, self._line = self._line[:-2], b""
        self._end_line(line)
        return data[end + 1 :]

    def _end_line(self, line: bytes) -> None:
        if self._trailer_bytes is not None:
            self._end_trailer(line)
        elif self._needs_end:
            if line:
                raise MalformedAnswer("a chunk is longer than its size")
            self._needs_end = False
        else:
            self._missing = self._size_of(line)
            self._needs_end = self._missing > 0
            self._trailer_bytes = None if self._missing else 0

    def _end_trailer(self, line: bytes) -> None:
        self._trailer_bytes = (self._trailer_bytes or 0) + len(line)
        if self._trailer_bytes > self._limits.head_bytes:
            raise MalformedAnswer(f"the trailers are longer than {self._limits.head_bytes} bytes")
        self.is_ended = not line

    def _size_of(self, line: bytes) -> int:
        size = _size_in(line)
        if size is None:
            raise MalformedAnswer(f"{line[:40]!r} is not the size of a chunk")
        if size > self._limits.chunk_bytes:
            raise MalformedAnswer(f"a chunk of {size} bytes is longer than {self._limits.chunk_bytes}")
        return size


class SizedBody:
    """A body of a length given in advance."""

    def __init__(self, size: int) -> None:
        self._missing = size
        self.is_ended = size == 0

    def feed(self, data: bytes) -> bytes:
        """Return the payload in these bytes."""
        if len(data) > self._missing:
            raise MalformedAnswer("bytes follow the end of the answer")
        self._missing -= len(data)
        self.is_ended = not self._missing
        return data

    def end_of_stream(self) -> bool:
        """The whole length was promised."""
        return False


class OpenBody:
    """A body that ends with its connection."""

    is_ended = False

    def feed(self, data: bytes) -> bytes:
        """Return the payload in these bytes."""
        return data

    def end_of_stream(self) -> bool:
        """This is how it ends."""
        return True


def body_after(head: Head, limits: Limits) -> Body:
    """Return the reader of the body that follows a head (RFC 9112, 6.3).

    Raises:
        MalformedAnswer: the head does not say where the body ends, or says it twice.
    """
    codings = head.values(b"transfer-encoding")
    lengths = set(head.values(b"content-length"))
    if head.status in _NO_BODY:
        return SizedBody(0)
    if codings:
        if codings != [b"chunked"] or lengths:
            raise MalformedAnswer("the transfer encoding is not chunked alone")
        return ChunkedBody(limits)
    if not lengths:
        return OpenBody()
    length = lengths.pop()
    if lengths or not re.fullmatch(rb"[0-9]{1,15}", length):
        raise MalformedAnswer("the content length is not one number")
    return SizedBody(int(length))


@lru_cache(maxsize=_KNOWN_SIZES)
def _size_in(line: bytes) -> int | None:
    matched = _CHUNK_SIZE.fullmatch(line)
    return None if matched is None else int(matched[1], 16)


def _head_of(lines: list[bytes], limits: Limits) -> Head:
    if max(map(len, lines)) > limits.line_bytes:
        raise MalformedAnswer(f"a header is longer than {limits.line_bytes} bytes")
    status = _STATUS_LINE.fullmatch(lines[0])
    if status is None:
        raise MalformedAnswer(f"{lines[0][:40]!r} is not the beginning of an HTTP/1.1 answer")
    return Head(int(status[1]), int(status[2]), [_field_of(line) for line in lines[1:]])


def _field_of(line: bytes) -> tuple[bytes, bytes]:
    matched = _FIELD.fullmatch(line)
    if matched is None:
        raise MalformedAnswer(f"{line[:40]!r} is not a header")
    return matched[1].lower(), matched[2]
