"""Server-sent events out of bytes in any split. Pure.

In: the bytes of a response body as they arrive. Out: the data of each event, as soon as its closing blank
line is there. Comments and fields other than `data` are dropped; lines end in LF or CRLF.
Invariant: memory is bounded; a line or an event above 4 MiB is a protocol failure.
"""

from autotune.load.failure import StreamError
from autotune.request import RequestFailureKind

LONGEST_EVENT_BYTES = 4 * 2**20
_RETURN = 13
_FIELD_BYTES = 6


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
        if (
            not self._line
            and not self._data
            and received.startswith(b"data: ")
            and received.endswith(b"\n\n")
        ):
            end = received.find(b"\n")
            if end == len(received) - 2 and end <= self._longest_event_bytes and received[end - 1] != _RETURN:
                return [received[_FIELD_BYTES:end]]  # the usual case: one event of one line
        *ends, rest = received.split(b"\n")
        events = [event for end in ends if (event := self._end_line(end)) is not None]
        self._extend_line(rest)
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
