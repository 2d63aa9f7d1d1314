"""Several processes that offer one load together, as seen from the one that started them.

In: a `Job` and when it is over. Out: one `LoadResult`. Starts `autotune.load.worker`s, all of which begin at
one absolute time of the machine's monotonic clock; no message is sent per request or token.
Invariant: no worker outlives the call, whatever ends it.
"""

import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import wait
from types import TracebackType
from typing import Self

from autotune.errors import LoadError
from autotune.load.generator import Job
from autotune.load.shares import joined, share_of
from autotune.load.silence import Pulse
from autotune.load.worker import PULSE_S, READY
from autotune.request import LoadResult, OfferedLoad

_HEAD_START_NS = 20_000_000
_GRACE_S = 5.0
_STOP = "stop"


def run_crew(job: Job, processes: int, is_over: Callable[..., bool]) -> LoadResult:
    """Offer a load with several processes; `is_over` is asked, with their pulses, five times a second.

    Raises:
        LoadError: a worker ran out of files, ports or memory, or died.
    """
    if job.offered.concurrency is not None:
        processes = min(processes, job.offered.concurrency)
    job = replace(job, offered=_portable(job.offered))
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker()) for _ in range(processes)]
        for position, worker in enumerate(workers):
            worker.send(replace(job, offered=share_of(job.offered, position, processes)))
        _until(workers, lambda worker: worker.is_ready or worker.result is not None, is_over)
        began_ns = time.monotonic_ns() + _HEAD_START_NS
        for worker in workers:
            worker.send(began_ns)
        _until(workers, lambda worker: worker.result is not None, is_over)
        return joined([worker.result for worker in workers if worker.result is not None])


def _until(
    workers: Sequence["_Worker"], is_done: Callable[["_Worker"], bool], is_over: Callable[..., bool]
) -> None:
    """Take messages in until every worker is done; tell them to stop once it is over."""
    is_stopping = False
    while waiting := [worker for worker in workers if not is_done(worker)]:
        ready = wait([worker.connection for worker in waiting], PULSE_S)
        for worker in waiting:
            if worker.connection in ready:
                worker.receive()
        if not is_stopping and is_over(*(worker.pulse for worker in workers)):
            is_stopping = True
            for worker in workers:
                worker.send(_STOP)


class _Worker:
    """One process and the connection to it."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-m", "autotune.load.worker", str(number)]
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, this package
                command, pass_fds=[number], stdin=subprocess.DEVNULL, process_group=0
            )
        self.is_ready = False
        self.pulse = Pulse(None, None)
        self.result: LoadResult | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection, which ends the process; kill one that does not notice."""
        self.connection.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def send(self, message: object) -> None:
        """Send something; a worker that died is noticed when it is listened to."""
        with suppress(ConnectionError):
            self.connection.send(message)

    def receive(self) -> None:
        """Take in one message.

        Raises:
            LoadError: the worker failed, or is dead.
        """
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            raise LoadError(f"a process of the load generator died (exit status {code})") from None
        match message:
            case Pulse():
                self.pulse = message
            case LoadResult():
                self.result = message
            case _ if message == READY:
                self.is_ready = True
            case _:
                raise LoadError(str(message))


def _portable(offered: OfferedLoad) -> OfferedLoad:
    """Return a load that can be sent to another process: requests made by a closure are made here."""
    try:
        pickle.dumps(offered)
    except (pickle.PicklingError, AttributeError, TypeError):
        return replace(offered, requests=tuple(offered.requests))
    return offered
