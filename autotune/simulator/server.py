"""A simulated engine behind SGLang's HTTP surface, in wall-clock time: what a launcher can start for a GPU.

In: a profile and the engine's argv. Out: a process that starts, logs, serves, fails and stops as SGLang does,
and an exit code. Talks HTTP (the only importer of starlette and uvicorn), TCP to its other ranks, and
stderr. Whatever it says of itself is marked as simulated.
"""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from autotune.simulator import log_text, server_info
from autotune.simulator.assembly import BatchLog, open_scheduler
from autotune.simulator.pace import Pacemaker
from autotune.simulator.profile import Profile
from autotune.simulator.rendezvous import Meeting, RendezvousError, meet
from autotune.simulator.scheduler import Scheduler
from autotune.simulator.service import AnswerError, Asked, Service
from autotune.simulator.startup import (
    Ready,
    Stage,
    StartFailure,
    StartUp,
    plan_start,
    serving_failure,
)

_FLUSHED = (
    "Cache flushed.\nPlease check backend logs for more details. (When there are running or waiting requests, "
    "the operation will not be performed.)\n"
)
_LIVE_LIMIT = "pp_max_micro_batch_size"
_PEER_LOST = "RuntimeError: [rank 0] NCCL error: remote process exited or there was a network error"


def serve(
    profile: Profile, argv: Sequence[str], *, time_scale: float = 1.0, start_scale: float = 1.0
) -> int:
    """Run the engine of one rank until it ends, and return its exit code.

    `time_scale` above 1 makes the model faster than real time, `start_scale` multiplies the times of
    start-up. An engine that SGLang would end by SIGKILL ends its process so and does not return.
    """
    seed = secrets.randbits(32)
    start = plan_start(profile, argv, seed=seed)
    engine = _Engine(profile, start, seed=seed, time_scale=time_scale, start_scale=start_scale)
    code = asyncio.run(engine.run())
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


class _Server(uvicorn.Server):
    """A server that leaves signals to the engine."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class _Engine:
    """One rank's life: start, serve, end."""

    def __init__(
        self, profile: Profile, start: StartUp, *, seed: int, time_scale: float, start_scale: float
    ) -> None:
        self._profile = profile
        self._start = start
        self._seed = seed
        self._time_scale = time_scale
        self._start_scale = start_scale
        self._axis = ""

    async def run(self) -> int:
        match self._start.outcome:
            case Ready() as ready:
                return await self._live(ready)
            case StartFailure() as failure:
                await self._pass_stages(self._start, None)
                return await self._die(failure)

    async def _live(self, ready: Ready) -> int:
        flags = ready.flags
        self._axis = f" TP{flags.node_rank * flags.tp // flags.nodes}" if flags.tp > 1 else ""
        try:
            meeting = await self._pass_stages(self._start, ready)
        except RendezvousError as error:
            self._say(log_text.scheduler_exception(str(error)))
            return 1
        listener = self._bind(flags.host, flags.port)
        if listener is None:
            await meeting.close()
            return 1
        if flags.node_rank > 0:
            return await _Follower(self, meeting, listener).run()
        return await self._lead(ready, meeting, listener)

    async def _pass_stages(self, start: StartUp, ready: Ready | None) -> Meeting:
        """Go through every stage but the warm-up, which needs the HTTP port; meet the other ranks."""
        meeting = Meeting()
        for run in start.stages:
            for line in run.lines:
                self._say(line)
            if run.stage is Stage.RENDEZVOUS and ready is not None and ready.flags.nodes > 1:
                meeting = await meet(
                    ready.flags.rendezvous or "",
                    rank=ready.flags.node_rank,
                    ranks=ready.flags.nodes,
                    timeout_s=ready.flags.rendezvous_timeout_s,
                )
            if run.stage is not Stage.WARM_UP:
                await asyncio.sleep(run.seconds * self._start_scale)
        return meeting
