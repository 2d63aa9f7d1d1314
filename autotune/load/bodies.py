"""Request bodies, written before they are needed.

In: a load's requests. Out: the bytes of each one's body, once. Those of the first requests are there before
the clock starts; then, whenever there is time, those of the next, since the answers of a burst all end within
a few milliseconds. Invariant: what waits is bounded, in number and in bytes.
"""

from collections.abc import Callable, Iterator

from autotune.load.backlog import Later
from autotune.load.wire import body_of
from autotune.load.workload import Workload
from autotune.request import OfferedLoad, Request

FEWEST_READY = 64
MOST_READY = 1000
MOST_READY_BYTES = 64 * 2**20
_PER_JOB = 16
"""Made one after the other: one alone, between other work, takes three times as long."""


class Bodies:
    """The bodies of one share of a load; `add_prompt` gives a request its prompt, `later` finds the time."""

    def __init__(
        self,
        offered: OfferedLoad,
        workload: Workload,
        model: str,
        add_prompt: Callable[[Request], Request],
        later: Later,
    ) -> None:
        self._workload = workload
        self._model = model
        self._add_prompt = add_prompt
        self._later = later
        self._requests = offered.requests
        self._most_ready = min(max(offered.concurrency or 0, FEWEST_READY), MOST_READY)
        self._ready: dict[int, bytes] = {}
        self._ready_bytes = 0
        self._next = 0
        self._taken_early: set[int] = set()
        self._is_queued = False
        while self._has_room:
            self._add_next()

    def take(self, request: Request) -> bytes:
        """Return the body of a request, once."""
        body = self._ready.pop(request.index, None)
        if body is None:
            self._taken_early.add(request.index)
            body = self._make(request)
        else:
            self._ready_bytes -= len(body)
        self._refill_later()
        return body

    @property
    def _has_room(self) -> bool:
        return (
            self._next < len(self._requests)
            and len(self._ready) < self._most_ready
            and self._ready_bytes < MOST_READY_BYTES
        )

    def _refill_later(self) -> None:
        is_low = len(self._ready) + _PER_JOB <= self._most_ready
        if is_low and not self._is_queued and self._has_room:
            self._is_queued = True
            self._later(self._refill())

    def _refill(self) -> Iterator[None]:
        """Make a few at a time, so that other work gets its turn."""
        for _ in range(_PER_JOB):
            if self._has_room:
                self._add_next()
                yield
        self._is_queued = False
        self._refill_later()

    def _add_next(self) -> None:
        request = self._requests[self._next]
        self._next += 1
        if request.index in self._taken_early:
            self._taken_early.remove(request.index)
            return
        body = self._ready[request.index] = self._make(request)
        self._ready_bytes += len(body)

    def _make(self, request: Request) -> bytes:
        return body_of(self._add_prompt(request), self._workload, self._model)
