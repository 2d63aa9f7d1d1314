"""Work that can wait: answers are parsed in thin slices between the arrivals of others.

In: jobs, as iterators that yield after each slice. Out: nothing; jobs leave their results where they like.
Invariant: an arrival waits for one slice, and for more only when the work has piled up.
"""

import asyncio
from collections import deque
from collections.abc import Iterator

_JOBS_PER_SLICE = 16


class Backlog:
    """Jobs in the order they came."""

    def __init__(self) -> None:
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
                for _ in range(-(-len(self._jobs) // _JOBS_PER_SLICE)):
                    self._step()
                await asyncio.sleep(0)
            self._some.clear()

    def finish(self) -> None:
        """Do what is left at once: nothing arrives any more."""
        while self._jobs:
            self._step()

    def _step(self) -> None:
        if not self._jobs:
            return
        for _ in self._jobs[0]:
            return
        self._jobs.popleft()
