"""What one exchange leaves behind: its stamps, and every read of the body with its arrival time.

In: the connection's callbacks. Out: a call for the head, a future for the end, and reads to be parsed later.
Invariant: whoever waits for the end learns of every way an exchange can end, once; reads are taken in the
order of their arrival, those that were put off included.
"""

import asyncio
from array import array
from collections import deque
from collections.abc import Callable, Sequence

from autotune.load.transport.framing import Head

MUCH_BYTES = 4 * 2**10


def _ignore(payload: bytes) -> None:
    del payload


def _ignore_head(head: Head) -> None:
    del head


def _nothing() -> None:
    pass


class Recording:
    """One request's bytes in the making, times in monotonic nanoseconds.

    `asked_ns`: the transport was called; `begun_ns`: a connection was there; `sent_ns`: the last byte is
    about to be handed to the kernel; `ended_ns`: the last byte of the body arrived. `last_ns`:
    the last byte so far. `on_head` is called once, before anything of the body is kept; `on_part` with the
    payload of each read that brought some; `waiting` counts the bytes that were not taken yet.
    With `may_put_off`, the connection may keep reads that end nothing as they came (`put_off`) and look into
    them only at `settle`; `on_much` is then called at each of them beyond `MUCH_BYTES` waiting.
    """

    __slots__ = (
        "asked_ns",
        "begun_ns",
        "body_bytes",
        "end",
        "ended_ns",
        "error",
        "last_ns",
        "may_put_off",
        "on_head",
        "on_much",
        "on_part",
        "parts",
        "raw",
        "raw_stamps_ns",
        "sent_ns",
        "settle",
        "stamps_ns",
        "waiting",
    )

    def __init__(self, on_part: Callable[[bytes], None] = _ignore) -> None:
        self.on_head: Callable[[Head], None] = _ignore_head
        self.on_part = on_part
        self.asked_ns: int | None = None
        self.begun_ns: int | None = None
        self.sent_ns: int | None = None
        self.ended_ns: int | None = None
        self.error: Exception | None = None
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Two queues and no pairs, which the collector would have to track.
        self.stamps_ns: deque[int] = deque()
        self.parts: deque[bytes] = deque()
        self.may_put_off = False
        self.raw: list[bytes] = []
        self.raw_stamps_ns = array("q")
        self.on_much: Callable[[], None] = _nothing
        self.settle: Callable[[], None] = _nothing
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

    def add_all(self, stamps_ns: Sequence[int], payloads: Sequence[bytes]) -> None:
        """Keep what several reads brought, which ended nothing; stamps beyond the payloads are dropped."""
        self.stamps_ns.extend(stamps_ns[: len(payloads)])
        self.parts.extend(payloads)
        size = sum(map(len, payloads))
        self.body_bytes += size
        self.waiting += size

    def put_off(self, at_ns: int, data: bytes) -> None:
        """Keep a read as it came."""
        self.raw_stamps_ns.append(at_ns)
        self.raw.append(data)
        self.last_ns = at_ns
        self.waiting += len(data)
        if self.waiting > MUCH_BYTES:
            self.on_much()

    def pick_up(self) -> "tuple[array[int], list[bytes]]":  # 3.11 has no array[int] at run time
        """Return what was put off, which is from now on the caller's."""
        stamps_ns, raw = self.raw_stamps_ns, self.raw
        self.raw_stamps_ns, self.raw = array("q"), []
        self.waiting -= sum(map(len, raw))
        return stamps_ns, raw

    def take_many(self, most: int) -> tuple[list[int], list[bytes]]:
        """Return the oldest reads that were not taken yet."""
        count = min(most, len(self.parts))
        payloads = [self.parts.popleft() for _ in range(count)]
        self.waiting -= sum(map(len, payloads))
        return [self.stamps_ns.popleft() for _ in range(count)], payloads

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
        self.wait_no_more()

    def wait_no_more(self) -> None:
        """Let go whoever waits for the end, though the body may not be whole."""
        if not self.end.done():
            self.end.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the exchange with an error, wherever it is waited for; `error` keeps the first."""
        self.error = self.error or error
        if not self.end.done():
            self.end.set_exception(error)
            self.end.exception()  # nobody may wait for it any more
