"""One simulated rank's life in wall-clock time: its start, its service, and the ways in which it ends.

In: a profile, argv, and something that speaks HTTP (server.py). Out: an exit code, and SGLang's log on
stderr, marked as simulated. Talks TCP to its other ranks. Invariant: rank 0 ends when it is told to
and has answered what it took; the other ranks end when rank 0 does.
"""

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, Self, TypeVar

from autotune.failure import StartPhase
from autotune.simulator import log_text
from autotune.simulator.assembly import BatchLog, open_scheduler
from autotune.simulator.flags import SchedulerFlags
from autotune.simulator.pace import Pacemaker
from autotune.simulator.profile import Profile
from autotune.simulator.rendezvous import Meeting, RendezvousError, meet
from autotune.simulator.startup import Ready, StageRun, StartFailure, plan_start, serving_failure
from autotune.simulator.turn import Turn

_Result = TypeVar("_Result")
_PEER_LOST = "RuntimeError: NCCL error: remote process exited or there was a network error"


class HttpFront(Protocol):
    """An HTTP server of one rank."""

    async def serve(self, listener: socket.socket) -> None:
        """Answer on a bound socket until `stop`, and then what was taken before it."""
        ...

    def open(self) -> None:
        """Be healthy from now on."""
        ...

    def stop(self) -> None:
        """Take no new request."""
        ...


class HttpFronts(Protocol):
    """Makes the HTTP servers of the ranks."""

    def leader(
        self, profile: Profile, ready: Ready, pacemaker: Pacemaker, say: Callable[[str], None]
    ) -> HttpFront:
        """Return the server of rank 0."""
        ...

    def follower(self) -> HttpFront:
        """Return the dummy server of another rank."""
        ...


class Engine:
    """One rank. `time_scale` above 1 makes the model faster, `start_scale` multiplies start-up and death."""

    def __init__(
        self, profile: Profile, fronts: HttpFronts, *, time_scale: float, start_scale: float
    ) -> None:
        self._profile = profile
        self._fronts = fronts
        self._time_scale = time_scale
        self._start_scale = start_scale
        self._seed = secrets.randbits(32)
        self._axis = ""

    async def run(self, argv: Sequence[str]) -> int:
        """Live, and return the exit code; a negative one is the signal that SGLang would end by."""
        start = plan_start(self._profile, argv, seed=self._seed)
        match start.outcome:
            case StartFailure() as failure:
                for run in start.stages:
                    await self._pass(run)
                return await self._die(failure.text, failure.exit_code)
            case Ready() as ready:
                return await self._live(start.stages, ready)

    async def _live(self, stages: Sequence[StageRun], ready: Ready) -> int:
        flags = ready.flags
        self._axis = f" TP{flags.node_rank * flags.tp // flags.nodes}" if flags.tp > 1 else ""
        meeting = Meeting()
        for run in stages[:-1]:
            await self._pass(run)
            if run.phase is StartPhase.RENDEZVOUS and flags.nodes > 1:
                try:
                    meeting = await _meet(flags)
                except RendezvousError as error:
                    self._say(log_text.scheduler_exception(str(error)))
                    return 1
        try:
            listener = _bound(flags.host, flags.port)
        except OSError as error:
            self._say(log_text.port_in_use(flags.host, flags.port, error))
            await meeting.close()
            return 1
        if flags.node_rank > 0:
            return await self._follow(flags, meeting, listener)
        return await self._lead(stages[-1], ready, meeting, listener)

    async def _lead(self, warm_up: StageRun, ready: Ready, meeting: Meeting, listener: socket.socket) -> int:
        """Serve as rank 0, and take the other ranks along when it ends well."""
        scheduler = open_scheduler(self._profile, ready, seed=self._seed)
        pacemaker = Pacemaker(
            scheduler,
            request_s=self._profile.step.request_s,
            time_scale=self._time_scale,
            on_turn=BatchLog(scheduler, self._say),
        )
        front = self._fronts.leader(self._profile, ready, pacemaker, self._say)
        code = 1
        async with _Tasks() as tasks:
            serving = tasks.add(front.serve(listener))
            beating = tasks.add(pacemaker.run())
            losing = tasks.add(meeting.first_loss())
            _on_stop_signals(front.stop)
            try:
                await self._warm_up(warm_up, ready.flags, front)
                await tasks.first_done()
                code = await self._end(ready, serving, beating, losing)
            finally:
                await meeting.close(say_shutdown=code == 0)
        return code

    async def _warm_up(self, warm_up: StageRun, flags: SchedulerFlags, front: HttpFront) -> None:
        await self._pass(warm_up)
        self._say(log_text.http_up(flags.host, flags.port))
        front.open()
        self._say(log_text.FIRED_UP)

    async def _end(
        self,
        ready: Ready,
        serving: asyncio.Task[None],
        beating: asyncio.Task[Turn],
        losing: asyncio.Task[bool],
    ) -> int:
        """Return the exit code for whatever ended first: the service, the model or another rank."""
        if beating.done():
            new_tokens = sum(piece.new for piece in beating.result().pieces)
            failure = serving_failure(self._profile, ready.capacity, new_tokens)
            return await self._die(failure.text, failure.exit_code)
        if losing.done():
            return await self._die(log_text.scheduler_exception(_PEER_LOST), -signal.SIGKILL)
        serving.result()
        return 0

    async def _follow(self, flags: SchedulerFlags, meeting: Meeting, listener: socket.socket) -> int:
        """Answer health checks until rank 0 says that it stops, or is gone."""
        front = self._fronts.follower()
        self._say(log_text.dummy_server(flags.host, flags.port))
        _on_stop_signals(lambda: self._say(log_text.sigterm_ignored(flags.node_rank)))
        async with _Tasks() as tasks:
            serving = tasks.add(front.serve(listener))
            was_told = await meeting.first_loss()
            front.stop()
            await serving
            await meeting.close()
        code = 0 if was_told else 1
        self._say(f"Scheduler or DataParallelController {os.getpid()} terminated with {code}")
        return code

    async def _pass(self, run: StageRun) -> None:
        for line in run.lines:
            self._say(line)
        await asyncio.sleep(run.seconds * self._start_scale)

    async def _die(self, text: str, exit_code: int) -> int:
        """Say why, and end as SGLang does: its argument errors are plain, its crashes kill the whole tree."""
        if exit_code >= 0:
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - an engine's log is its stderr
            return exit_code
        self._say(text)
        self._say(log_text.CHILD_FAILED)
        await asyncio.sleep(self._profile.start_up.death_s * self._start_scale)
        self._say(log_text.tree_killed(os.getpid()))
        return exit_code

    def _say(self, text: str) -> None:
        stamp = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        print(f"[{stamp}{self._axis}] {text}", file=sys.stderr, flush=True)  # noqa: T201 - as above


class _Tasks:
    """Tasks that are cancelled together when the block ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        return task

    async def first_done(self) -> None:
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)


async def _meet(flags: SchedulerFlags) -> Meeting:
    return await meet(
        flags.rendezvous or "",
        rank=flags.node_rank,
        ranks=flags.nodes,
        timeout_s=flags.rendezvous_timeout_s,
    )


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without a protocol asyncio leaves Nagle's algorithm on, which holds small chunks back for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def _on_stop_signals(act: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, act)
