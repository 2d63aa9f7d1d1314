"""What one exchange leaves behind: its stamps, and every read of the body with its arrival time.

In: the connection's callbacks. Out: futures for the head and the end, and reads to be parsed later.
Invariant: whoever waits for the end learns of every way an exchange can end, once.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from autotune.load.transport.framing import Head


def _ignore(payload: bytes) -> None:
    del payload


class Recording:
    """One request's bytes in the making, times in monotonic nanoseconds.

    `asked_ns`: the transport was called; `begun_ns`: a connection was there; `sent_ns`: the last byte is
    about to be handed to the kernel; `ended_ns`: the last byte of the body arrived. `last_ns`:
    the last byte so far. `on_part` is called with the payload of each read that brought some; `waiting`
    counts the bytes that were not taken yet.
    """

    __slots__ = (
        "asked_ns",
        "begun_ns",
        "body_bytes",
        "end",
        "ended_ns",
        "head",
        "last_ns",
        "on_part",
        "parts",
        "sent_ns",
        "stamps_ns",
        "waiting",
    )

    def __init__(self, on_part: Callable[[bytes], None] = _ignore) -> None:
        loop = asyncio.get_running_loop()
        self.on_part = on_part
        self.asked_ns: int | None = None
        self.begun_ns: int | None = None
        self.sent_ns: int | None = None
        self.ended_ns: int | None = None
        self.head: asyncio.Future[Head] = loop.create_future()
        self.end: asyncio.Future[None] = loop.create_future()
        self.stamps_ns: deque[int] = (
            deque()
        )  # two queues and no pairs, which the collector would have to track
        self.parts: deque[bytes] = deque()
        self.last_ns: int | None = None
        self.body_bytes = 0
        self.waiting = 0

    def add(self, at_ns: int, payload: bytes) -> None:
        """Keep what a read brought."""
        self.stamps_ns.append(at_ns)
        self.parts.append(payload)
        self.body_bytes += len(payload)
        self.waiting += len(payload)
        self.last_ns = at_ns
        self.on_part(payload)

    def take(self) -> tuple[int, bytes]:
        """Return the oldest read that was not taken yet."""
        payload = self.parts.popleft()
        self.waiting -= len(payload)
        return self.stamps_ns.popleft(), payload

    async def more(self) -> None:
        """Wait for the next read, or for the end."""
        arrived, before = asyncio.Event(), self.on_part
        self.on_part = lambda _: arrived.set()
        self.end.add_done_callback(lambda _: arrived.set())
        try:
            await arrived.wait()
        finally:
            self.on_part = before

    def finish(self, at_ns: int) -> None:
        """Note that the body is whole."""
        self.ended_ns = at_ns
        if not self.end.done():
            self.end.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the exchange with an error, wherever it is waited for."""
        if not self.head.done():
            self.head.set_exception(error)
            self.head.exception()  # whoever waits for the end may not have asked for the head
        if not self.end.done():
            self.end.set_exception(error)
            self.end.exception()
