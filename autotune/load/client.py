"""A server over HTTP as an `Endpoint`: the load is offered by this process, or by several.

In: an `OfferedLoad`. Out: a `LoadResult` with one record per dispatched request. Talks to one base URL.
Invariant: the run ends when the load does, when the engine dies, or when it goes silent; whatever ends it,
every socket is closed and every process is gone before it returns.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from autotune.load.crew import run_crew
from autotune.load.exchange import Timeouts
from autotune.load.generator import Job, Run, run_job
from autotune.load.shares import processes_for
from autotune.load.silence import Pulse, silent_s
from autotune.load.transport.framing import Limits
from autotune.load.workload import Workload
from autotune.request import LoadResult, OfferedLoad, Onlooker, RequestRecord, first_ended

_WATCH_S = 0.2


def _always() -> bool:
    return True


class HttpEndpoint:
    """Loads a server that speaks one of the three wires.

    `is_alive` is asked five times a second from the event loop, so it must be cheap; once it says False the
    run ends, and what was in flight is recorded as STOPPED. So it does when requests are in flight and no
    byte of any answer came for `silence_limit_s`; `LoadResult.silent_s` then says how long.
    `request_timeout_s` limits a whole request, `connect_timeout_s` and `first_byte_timeout_s` its phases.
    `processes` offer the load together; None chooses by the load and this machine's CPUs.
    `on_progress` is told five times a second how many requests are over.
    `headers` (an API key, say) go with every request and are never shown.
    """

    def __init__(
        self,
        base_url: str,
        workload: Workload,
        *,
        model: str,
        vocabulary_size: int,
        request_timeout_s: float = 600.0,
        connect_timeout_s: float = 30.0,
        first_byte_timeout_s: float | None = None,
        silence_limit_s: float = 120.0,
        is_alive: Callable[[], bool] = _always,
        on_progress: Callable[[int], None] | None = None,
        processes: int | None = None,
        headers: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"{base_url!r} is not an http or https URL")
        self._job = Job(
            base_url=base_url.rstrip("/"),
            workload=workload,
            model=model,
            vocabulary_size=vocabulary_size,
            offered=OfferedLoad((), 1),
            timeouts=Timeouts(request_timeout_s, connect_timeout_s, first_byte_timeout_s),
            limits=limits or Limits(),
            headers=dict(headers or {}),
        )
        self._silence_limit_s = silence_limit_s
        self._is_alive = is_alive
        self._on_progress = on_progress
        self._processes = processes

    def run(self, offered: OfferedLoad, onlooker: Onlooker | None = None) -> LoadResult:
        """Serve the load to its end, or until its onlooker, asked five times a second, has seen enough.

        Raises:
            LoadError: this machine ran out of files, ports or memory, or a process of the load died.
            KeyboardInterrupt: Ctrl-C, after everything in flight was closed.
        """
        job = replace(self._job, offered=offered, is_looked_at=onlooker is not None)
        watch = Watch(self._is_alive, self._silence_limit_s, self._on_progress, onlooker)
        processes = self._processes or processes_for(offered)
        if processes == 1:
            result = run_job(job, _at_once, watch.beside)
        else:
            result = run_crew(job, processes, watch.is_over)
        return replace(result, silent_s=watch.silent_s)


class Watch:
    """Whether the load is still worth going on with.

    `silent_s` is set once the engine has been silent too long.
    """

    def __init__(
        self,
        is_alive: Callable[[], bool],
        silence_limit_s: float,
        on_progress: Callable[[int], None] | None = None,
        onlooker: Onlooker | None = None,
    ) -> None:
        self._onlooker = onlooker
        self._seen: dict[int, RequestRecord] = {}
        self._is_alive = is_alive
        self._silence_limit_s = silence_limit_s
        self._on_progress = on_progress
        self.silent_s: float | None = None

    def is_over(self, *pulses: Pulse) -> bool:
        """Judge by what the processes of the load saw."""
        if self._on_progress is not None:
            self._on_progress(sum(pulse.ended for pulse in pulses))
        silence_s = silent_s(pulses, time.monotonic_ns())
        if silence_s > self._silence_limit_s:
            self.silent_s = silence_s
            return True
        return not self._is_alive() or self._is_decided(pulses)

    def _is_decided(self, pulses: Sequence[Pulse]) -> bool:
        """Let the onlooker see the first requests, if as many as it wants are known."""
        if self._onlooker is None:
            return False
        self._seen |= {record.index: record for pulse in pulses for record in pulse.records}
        count = self._onlooker.next_look
        if count is None or len(self._seen) < count:
            return False
        first = first_ended(self._seen.values(), min(pulse.open_since_s for pulse in pulses), count)
        return first is not None and self._onlooker.is_decided(first)

    async def beside(self, run: Run) -> None:
        """Wait until it is over."""
        while not self.is_over(run.pulse()):  # noqa: ASYNC110 - a process that dies sets no event
            await asyncio.sleep(_WATCH_S)


async def _at_once() -> int:
    return time.monotonic_ns()
