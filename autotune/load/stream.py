"""Server-sent events out of bytes in any split. Pure.

In: the bytes of a response body as they arrive. Out: the data of each event, as soon as its closing blank
line is there. Comments and fields other than `data` are dropped; lines end in LF or CRLF.
Invariant: memory is bounded; a line or an event above 4 MiB is a protocol failure.
"""

from collections.abc import Sequence

from autotune.load.failure import StreamError
from autotune.request import RequestFailureKind

LONGEST_EVENT_BYTES = 4 * 2**20
_FIELD_BYTES = 6
_BETWEEN = b"\n\ndata: "


def objects_in_a_list(received: Sequence[bytes]) -> bytes | None:
    """Return reads that are one event each, of one line that may be a JSON object, as one JSON list.

    None if they are anything else. A list may be whole whose objects are not (`{"a":[{}` and `}]},{}`);
    no server breaks them like that by accident.
    """
    joined = b"".join(received)
    if not (joined.startswith(b"data: {") and joined.endswith(b"}\n\n")) or b"\r" in joined:
        return None
    objects = joined[_FIELD_BYTES:-2].replace(_BETWEEN, b",")
    between, rest = divmod(len(joined) - _FIELD_BYTES - 2 - len(objects), len(_BETWEEN) - 1)
    if between != len(received) - 1 or rest or b"\n" in objects:
        return None
    return b"[" + objects + b"]" if all(read.startswith(b"data: {") for read in received) else None


class EventSplitter:
    """Collects the bytes of one response body."""

    def __init__(self, longest_event_bytes: int = LONGEST_EVENT_BYTES) -> None:
        self._longest_event_bytes = longest_event_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, received: bytes) -> list[bytes]:
        """Return the data of the events that these bytes complete.

        Raises:
            StreamError: PROTOCOL, a line or an event is too long.
        """
        if self.is_idle and (whole := self._one_line_each(received)):
            return whole
        *ends, rest = received.split(b"\n")
        events = [event for end in ends if (event := self._end_line(end)) is not None]
        self._extend_line(rest)
        return events

    @property
    def is_idle(self) -> bool:
        """Whether the next byte begins an event."""
        return not self._line and not self._data

    def _one_line_each(self, received: bytes) -> list[bytes] | None:
        """Return the data of the usual events, of one line each and whole; None of others."""
        if not received.startswith(b"data: ") or not received.endswith(b"\n\n") or b"\r" in received:
            return None
        events = received[_FIELD_BYTES:-2].split(_BETWEEN)
        if received.count(b"\n") != 2 * len(events) or len(received) > self._longest_event_bytes:
            return None
        return events

    def _extend_line(self, part: bytes) -> None:
        if len(self._line) + len(part) + self._data_bytes > self._longest_event_bytes:
            raise StreamError(
                RequestFailureKind.PROTOCOL,
                f"an event is longer than {self._longest_event_bytes} bytes",
            )
        self._line += part

    def _end_line(self, part: bytes) -> bytes | None:
        self._extend_line(part)
        line = bytes(self._line).removesuffix(b"\r")
        self._line.clear()
        if not line:
            return self._end_event()
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(value)
        return None

    def _end_event(self) -> bytes | None:
        if not self._data:
            return None
        event = b"\n".join(self._data)
        self._data.clear()
        self._data_bytes = 0
        return event
