"""A server over HTTP as an `Endpoint`: prompts, dispatch, exchanges and self-check put together.

In: an `OfferedLoad`. Out: a `LoadResult` with one record per dispatched request. Talks to one base URL.
Invariant: whatever ends a run (its end, a dead server, Ctrl-C), every socket is closed before it returns.
"""

import asyncio
import gc
import importlib
import importlib.util
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager

from autotune.errors import LoadError
from autotune.load.attempt import Attempt
from autotune.load.dispatch import dispatch
from autotune.load.exchange import Connections, Exchange
from autotune.load.health import SelfCheck
from autotune.load.wire import body_of, path_of
from autotune.load.workload import Workload, prompter
from autotune.request import (
    LoadResult,
    OfferedLoad,
    Request,
    RequestFailure,
    RequestFailureKind,
    RequestRecord,
)

_WATCH_S = 0.2
_READY_REQUESTS = 1000
_READY_BYTES = 64 * 2**20
_READY_CONNECTIONS = 64


def _always() -> bool:
    return True


class HttpEndpoint:
    """Loads a server that speaks one of the three wires.

    `is_alive` is asked five times a second from the event loop, so it must be cheap; once it says False the
    run ends, and what was in flight is recorded as STOPPED. `request_timeout_s` limits a whole request.
    """

    def __init__(
        self,
        base_url: str,
        workload: Workload,
        *,
        model: str,
        vocabulary_size: int,
        request_timeout_s: float = 600.0,
        is_alive: Callable[[], bool] = _always,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"{base_url!r} is not an http or https URL")
        self._base_url = base_url.rstrip("/")
        self._workload = workload
        self._model = model
        self._vocabulary_size = vocabulary_size
        self._request_timeout_s = request_timeout_s
        self._is_alive = is_alive

    def run(self, offered: OfferedLoad) -> LoadResult:
        """Serve the load to its end, in an event loop of its own.

        Raises:
            LoadError: this machine ran out of files, ports or memory.
            KeyboardInterrupt: Ctrl-C, after everything in flight was closed.
        """
        with _frozen_garbage(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(self._serve(offered))

    async def _serve(self, offered: OfferedLoad) -> LoadResult:
        connections = Connections(self._base_url)
        connections.prepare(min(offered.concurrency or _READY_CONNECTIONS, len(offered.requests)))
        bodies = _Bodies(offered, self._workload, self._model, self._vocabulary_size)
        clock = _clock_from_now()
        url = self._base_url + path_of(self._workload.endpoint)
        exchange = Exchange(url, connections, clock, self._request_timeout_s)
        run = _Run(exchange, bodies, self._workload, clock)
        try:
            load = dispatch(offered, run.serve, clock)
            await _until_one_ends(load, self._watch(), run.check.tick(), run.fault)
        finally:
            await connections.close()
        return run.result()

    async def _watch(self) -> None:
        while self._is_alive():  # noqa: ASYNC110 - a process that dies sets no event
            await asyncio.sleep(_WATCH_S)


class _Bodies:
    """Request bodies: the first ones made before the clock starts, the others when they are sent."""

    def __init__(self, offered: OfferedLoad, workload: Workload, model: str, vocabulary_size: int) -> None:
        self._add_prompt = prompter(offered, workload, vocabulary_size=vocabulary_size)
        self._workload = workload
        self._model = model
        self._ready: dict[int, bytes] = {}
        budget_bytes = _READY_BYTES
        for request in offered.requests[:_READY_REQUESTS]:
            if budget_bytes <= 0:
                break
            self._ready[request.index] = self._make(request)
            budget_bytes -= len(self._ready[request.index])

    def take(self, request: Request) -> bytes:
        """Return the body of a request, once."""
        return self._ready.pop(request.index, None) or self._make(request)

    def _make(self, request: Request) -> bytes:
        return body_of(self._add_prompt(request), self._workload, self._model)


class _Run:
    """The records of one run while it is under way."""

    def __init__(
        self, exchange: Exchange, bodies: _Bodies, workload: Workload, clock: Callable[[], float]
    ) -> None:
        self._exchange = exchange
        self._bodies = bodies
        self._workload = workload
        self._clock = clock
        self._records: list[RequestRecord] = []
        self.check = SelfCheck()
        self.fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(self, request: Request, scheduled_s: float) -> bool:
        """Serve one request and keep its record; tell whether it went well."""
        attempt = Attempt(request, self._workload.endpoint, scheduled_s, ignore_eos=self._workload.ignore_eos)
        self.check.begin_request()
        failure = None
        try:
            failure = await self._exchange.run(self._bodies.take(request), attempt)
        except asyncio.CancelledError:
            message = "the load was stopped before the answer was whole"
            failure = RequestFailure(RequestFailureKind.STOPPED, attempt.phase, message)
            raise
        except LoadError as error:
            self._report(error)
        finally:
            self.check.end_request()
            self._records.append(attempt.record(self._clock(), failure))
        return failure is None

    def result(self) -> LoadResult:
        """Return the records in the order of their index."""
        records = sorted(self._records, key=lambda record: record.index)
        return LoadResult(tuple(records), self.check.health())

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
    """Keep what is already in memory out of the garbage collector, whose pauses would be measured."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _clock_from_now() -> Callable[[], float]:
    began_ns = time.perf_counter_ns()
    return lambda: (time.perf_counter_ns() - began_ns) / 1e9


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop if it is installed; it halves the CPU time per token."""
    if importlib.util.find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return factory
