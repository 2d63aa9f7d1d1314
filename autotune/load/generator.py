"""One process's share of a load: prompts, dispatch, exchanges and self-check put together.

In: a `Job`. Out: a `LoadResult` with one record per dispatched request. Talks to one server.
Invariant: whatever ends a run (its end, its companion, Ctrl-C), every socket is closed before it returns.
"""

import asyncio
import gc
import importlib
import importlib.util
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import httpx

from autotune.errors import LoadError
from autotune.load.attempt import Attempt
from autotune.load.backlog import Backlog
from autotune.load.bodies import Bodies
from autotune.load.clock import LoadClock
from autotune.load.dispatch import dispatch
from autotune.load.exchange import Exchange, Timeouts, refuse_own_limits
from autotune.load.failure import StreamError
from autotune.load.health import SelfCheck
from autotune.load.silence import Pulse
from autotune.load.transcript import Transcript
from autotune.load.transport.clock import ReceiveClock
from autotune.load.transport.framing import Limits
from autotune.load.transport.recording import Recording
from autotune.load.transport.stamped import StampedTransport
from autotune.load.turnstile import Turnstile
from autotune.load.wire import path_of
from autotune.load.workload import Workload, prompter
from autotune.request import LoadResult, OfferedLoad, Request, RequestFailureKind, RequestRecord

_READY_CONNECTIONS = 64
_CONNECT_S = 5.0
_SWEEP_S = 1.0
_GARBAGE_THRESHOLDS = (200_000, 20, 100)
_SHORT_ANSWER_BYTES = 2 * 2**10
_TOLD_CHUNKS = 4096
"""A pulse tells so many chunks' worth of records, so that to send it takes no longer than a few reads."""


@dataclass(frozen=True)
class Job:
    """Everything that a process has to know to offer a load."""

    base_url: str
    workload: Workload
    model: str
    vocabulary_size: int
    offered: OfferedLoad
    timeouts: Timeouts
    limits: Limits
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_looked_at: bool = False


Start: TypeAlias = Callable[[], Awaitable[int]]
"""Awaited when everything is prepared; returns when the load begins (monotonic ns, may be a little ahead)."""

Companion: TypeAlias = Callable[["Run"], Coroutine[None, None, None]]
"""Runs beside a load; when it returns, the load is stopped."""


def run_job(job: Job, start: Start, companion: Companion) -> LoadResult:
    """Serve a share to its end, in an event loop of its own.

    Raises:
        LoadError: this machine ran out of files, ports or memory.
        KeyboardInterrupt: Ctrl-C, after everything in flight was closed.
    """
    with _frozen_garbage(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(job, start, companion)).result()


async def _serve(job: Job, start: Start, companion: Companion) -> "Run":
    """Return the run, not its result: asyncio.Runner makes a text of what it returns (signal.signal)."""
    receive_clock = ReceiveClock()
    transport = StampedTransport(job.base_url, receive_clock, job.limits)
    try:
        run = Run(job, transport, receive_clock)
        await _connect(transport, job)
        run.begin(await start())
        load = dispatch(job.offered, run.serve, run.clock.now_s)
        await _until_one_ends(
            load, companion(run), run.check.tick(), run.backlog.work(), run.sweep(), run.fault
        )
        run.backlog.finish()
    finally:
        await transport.aclose()
    return run


async def _connect(transport: StampedTransport, job: Job) -> None:
    """Connect before the clock starts. A server that cannot be reached shows in the records."""
    offered = job.offered
    count = min(offered.concurrency or _READY_CONNECTIONS, len(offered.requests))
    try:
        await transport.pool.prepare(count, min(_CONNECT_S, job.timeouts.connect_s, job.timeouts.whole_s))
    except httpx.TransportError as error:
        refuse_own_limits(error)


class Run:
    """The records of one share while it is under way."""

    def __init__(self, job: Job, transport: StampedTransport, receive_clock: ReceiveClock) -> None:
        url = job.base_url + path_of(job.workload.endpoint)
        self._exchange = Exchange(url, transport, job.timeouts, job.headers)
        self._turnstile = Turnstile()
        self.backlog = Backlog(self._turnstile.is_crowded)
        prompts = prompter(job.offered, job.workload, vocabulary_size=job.vocabulary_size)
        self._bodies = Bodies(job.offered, job.workload, job.model, prompts, self.backlog.add)
        self._workload = job.workload
        self._receive_clock = receive_clock
        self._records: list[RequestRecord] = []
        self._untold: deque[RequestRecord] | None = deque() if job.is_looked_at else None
        self._unknown: dict[Transcript, float] = {}
        self._last_byte_ns: int | None = None
        self._busy_since_ns: int | None = None
        self._ended = 0
        self._in_flight: set[Transcript] = set()
        self.clock = LoadClock(time.monotonic_ns())
        self.check = SelfCheck()
        self.fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self, began_ns: int) -> None:
        """Set the beginning that all times count from."""
        self.clock.began_ns = began_ns
        self.check.begin()

    async def serve(self, request: Request, scheduled_s: float) -> bool:
        """Serve one request and keep its record; tell whether it went well as far as is known.

        A long answer is read into its record later, when nothing else is to do; a short one, which is
        what a server that refuses gives, at once.
        """
        attempt = Attempt(request, self._workload.endpoint, scheduled_s, ignore_eos=self._workload.ignore_eos)
        transcript = Transcript(attempt, Recording(), self.clock, self.backlog.add)
        self._count_in(transcript)
        error: StreamError | None = None
        try:
            await self._turnstile.enter()
            error = await self._exchange.run(self._bodies.take(request), transcript)
        except asyncio.CancelledError:
            message = "the load was stopped before the answer was whole"
            error = StreamError(RequestFailureKind.STOPPED, message)
            self._keep(transcript, error)
            raise
        except LoadError as fault:
            self._report(fault)
            return False
        finally:
            self._count_out(transcript)
        if error is None and transcript.recording.waiting > _SHORT_ANSWER_BYTES:
            self.backlog.add(self._kept_later(transcript))
            return True
        return self._keep(transcript, error)

    def pulse(self) -> Pulse:
        """Return when a byte of an answer last came, and since when requests are in flight."""
        stamps_ns = [each.recording.last_ns for each in self._in_flight]
        self._last_byte_ns = max(filter(None, [self._last_byte_ns, *stamps_ns]), default=None)
        pulse = Pulse(self._last_byte_ns, self._busy_since_ns, self._ended)
        return pulse if self._untold is None else self._telling(pulse, self._untold)

    async def sweep(self) -> None:
        """Read, once a second, what has waited as long in streams that are still open, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            long_ago_ns = time.monotonic_ns() - int(_SWEEP_S * 1e9)
            for transcript in self._in_flight:
                since_ns = transcript.recording.waiting_since_ns
                if since_ns is not None and since_ns < long_ago_ns:
                    transcript.read_soon()

    def result(self) -> LoadResult:
        """Return the records in the order of their index."""
        records = sorted(self._records, key=lambda record: record.index)
        health = self.check.health(self._receive_clock)
        return LoadResult(tuple(records), health, began_ns=self.clock.began_ns)

    def _telling(self, pulse: Pulse, untold: deque[RequestRecord]) -> Pulse:
        """Return the pulse with what has become known since the last one, as far as it is not too much."""
        told: list[RequestRecord] = []
        chunks = 0
        while untold and chunks < _TOLD_CHUNKS:
            told.append(untold.popleft())
            chunks += len(told[-1].chunk_times_s)
        later_s = (*self._unknown.values(), *(record.scheduled_s for record in untold))
        return replace(pulse, open_since_s=min(later_s, default=self.clock.now_s()), records=tuple(told))

    def _count_in(self, transcript: Transcript) -> None:
        if not self._in_flight:
            self._busy_since_ns = time.monotonic_ns()
        self._in_flight.add(transcript)
        self._unknown[transcript] = transcript.attempt.scheduled_s
        self.check.begin_request()

    def _count_out(self, transcript: Transcript) -> None:
        self._in_flight.remove(transcript)
        self._ended += 1
        if (last_ns := transcript.recording.last_ns) is not None:
            self._last_byte_ns = max(self._last_byte_ns or 0, last_ns)
        if not self._in_flight:
            self._busy_since_ns = None
        self.check.end_request()

    def _kept_later(self, transcript: Transcript) -> Iterator[None]:
        yield from transcript.slices()
        self._keep(transcript, None)

    def _keep(self, transcript: Transcript, error: StreamError | None) -> bool:
        record = transcript.record(error)
        self.check.add(transcript)
        self._records.append(record)
        if self._untold is not None:
            self._untold.append(record)
        self._unknown.pop(transcript, None)
        return record.failure is None

    def _report(self, error: LoadError) -> None:
        if not self.fault.done():
            self.fault.set_exception(error)


async def _until_one_ends(*parts: Coroutine[None, None, None] | asyncio.Future[None]) -> None:
    """Run until the first of the parts ends, cancel the others and wait for them; raise what any raised."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()


@contextmanager
def _frozen_garbage() -> Iterator[None]:
    """Keep what is already in memory out of the garbage collector, and let it look at the rest less often."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop where it is installed; it halves the CPU time per token."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return factory
