"""Work that can wait: answers are parsed, and requests written, in thin slices between arrivals.

In: jobs, as iterators that yield after each slice. Out: nothing; jobs leave their results where they like.
Invariant: an arrival waits for half a millisecond's slices, and for more only when the work has piled up and
nothing urgent is under way.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeAlias

_JOBS_PER_SLICE = 16
_TURN_NS = 500_000
_REST_S = 0.005
"""A turn of the event loop costs as much as parsing several tokens: work is collected for a while, and then a
turn does several slices."""

Later: TypeAlias = Callable[[Iterator[None]], None]
"""Has slices of work done when there is time."""


def _never() -> bool:
    return False


class Backlog:
    """Jobs in the order they came; while `is_urgent` elsewhere, they are done no faster for being many."""

    def __init__(self, is_urgent: Callable[[], bool] = _never) -> None:
        self._is_urgent = is_urgent
        self._jobs: deque[Iterator[None]] = deque()
        self._some = asyncio.Event()

    def add(self, job: Iterator[None]) -> None:
        """Have a job done soon."""
        self._jobs.append(job)
        self._some.set()

    async def work(self) -> None:
        """Do the jobs until cancelled."""
        while True:
            await self._some.wait()
            while self._jobs:
                self._turn()
                await asyncio.sleep(0)
            self._some.clear()
            await asyncio.sleep(_REST_S)

    def finish(self) -> None:
        """Do what is left at once: nothing arrives any more."""
        while self._jobs:
            self._step()

    def _turn(self) -> None:
        if self._is_urgent():
            self._step()
            return
        end_ns = time.monotonic_ns() + _TURN_NS
        for _ in range(-(-len(self._jobs) // _JOBS_PER_SLICE)):
            self._step()
        while self._jobs and time.monotonic_ns() < end_ns:
            self._step()

    def _step(self) -> None:
        if not self._jobs:
            return
        for _ in self._jobs[0]:
            return
        self._jobs.popleft()
