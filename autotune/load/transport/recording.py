"""What one exchange leaves behind: its stamps, and every read of the body with its arrival time.

In: the connection's callbacks. Out: a call for the head, a future for the end, and reads to be parsed later.
Invariant: whoever waits for the end learns of every way an exchange can end, once; reads are taken in the
order of their arrival, those that were put off included.
"""

import asyncio
from array import array
from collections.abc import Callable, Sequence

from autotune.load.transport.framing import Head

MANY_READS = 16


def _ignore(payload: bytes) -> None:
    del payload


def _ignore_head(head: Head) -> None:
    del head


def _nothing() -> None:
    pass


class Recording:
    """One request's bytes in the making, times in monotonic nanoseconds.

    `asked_ns`: the transport was called; `begun_ns`: a connection was there; `sent_ns`: the last byte is
    about to be handed to the kernel; `ended_ns`: the last byte of the body arrived. `on_head` is called
    once, before anything of the body is kept; `on_part` with the payload of each read that brought some.
    With `may_put_off`, the connection may put reads that end nothing into `raw` as they came, with their
    stamps, and look into them only at `settle`; it calls `on_many` whenever there are `MANY_READS` more.
    """

    __slots__ = (
        "_last_ns",
        "_parts_bytes",
        "asked_ns",
        "begun_ns",
        "body_bytes",
        "end",
        "ended_ns",
        "error",
        "may_put_off",
        "on_head",
        "on_many",
        "on_part",
        "parts",
        "raw",
        "raw_stamps_ns",
        "sent_ns",
        "settle",
        "stamps_ns",
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
        # Two lists and no pairs, which the collector would have to track.
        self.stamps_ns: list[int] = []
        self.parts: list[bytes] = []
        self.may_put_off = False
        self.raw: list[bytes] = []
        self.raw_stamps_ns = array("q")
        self.on_many: Callable[[], None] = _nothing
        self.settle: Callable[[], None] = _nothing
        self._last_ns: int | None = None
        self.body_bytes = 0
        self._parts_bytes = 0

    def add(self, at_ns: int, payload: bytes) -> None:
        """Keep what a read brought."""
        self.stamps_ns.append(at_ns)
        self.parts.append(payload)
        self.body_bytes += len(payload)
        self._parts_bytes += len(payload)
        self._last_ns = at_ns
        self.on_part(payload)

    def add_all(self, stamps_ns: Sequence[int], payloads: Sequence[bytes]) -> None:
        """Keep what several reads brought, which ended nothing; stamps beyond the payloads are dropped."""
        self.stamps_ns.extend(stamps_ns[: len(payloads)])
        self.parts.extend(payloads)
        size = sum(map(len, payloads))
        self.body_bytes += size
        self._parts_bytes += size

    @property
    def last_ns(self) -> int | None:
        """When the last byte so far arrived."""
        return self.raw_stamps_ns[-1] if self.raw_stamps_ns else self._last_ns

    @property
    def waiting_since_ns(self) -> int | None:
        """When the oldest read that was not taken yet arrived."""
        return next(iter(self.stamps_ns or self.raw_stamps_ns), None)

    @property
    def waiting(self) -> int:
        """How many bytes were not taken yet."""
        return self._parts_bytes + sum(map(len, self.raw))

    def pick_up(self) -> "tuple[array[int], list[bytes]]":  # 3.11 has no array[int] at run time
        """Return what was put off, which is from now on the caller's."""
        stamps_ns, raw = self.raw_stamps_ns, self.raw
        self._last_ns = self.last_ns
        self.raw_stamps_ns, self.raw = array("q"), []
        return stamps_ns, raw

    def take_many(self, most: int) -> tuple[list[int], list[bytes]]:
        """Return the oldest reads that were not taken yet."""
        stamps_ns, payloads = self.stamps_ns[:most], self.parts[:most]
        del self.stamps_ns[:most], self.parts[:most]
        self._parts_bytes -= sum(map(len, payloads))
        return stamps_ns, payloads

    def take(self) -> tuple[int, bytes]:
        """Return the oldest read that was not taken yet."""
        (at_ns,), (payload,) = self.take_many(1)
        return at_ns, payload

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
