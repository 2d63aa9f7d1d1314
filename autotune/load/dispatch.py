"""When requests are handed out: closed loop and open loop. Knows no transport.

In: an `OfferedLoad` and a function that serves one request. Out: every request served, or the time over.
Invariant: the open loop keeps an absolute schedule; no answer, however late, moves a later request.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from autotune.request import OfferedLoad, Request

PAUSE_AFTER_FAILURE_S = 0.1
"""A closed-loop slot rests after a failure, so that an engine that refuses at once is not flooded."""

Serve: TypeAlias = Callable[[Request, float], Awaitable[bool]]
"""Serves a request that is due at a time (s since the start); tells whether it went well."""


async def dispatch(offered: OfferedLoad, serve: Serve, clock: Callable[[], float]) -> None:
    """Hand out every request in time and wait until all are served.

    Raises:
        ValueError: a request of an open loop has no due time.
    """
    if offered.concurrency is None:
        await _open_loop(offered.requests, serve, clock, _end_s(offered))
    else:
        await _closed_loop(offered, serve, clock)


async def _closed_loop(offered: OfferedLoad, serve: Serve, clock: Callable[[], float]) -> None:
    requests = iter(offered.requests)
    end_s = _end_s(offered)

    async def slot() -> None:
        while (now_s := clock()) < end_s and (request := next(requests, None)) is not None:
            if not await serve(request, now_s):
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)

    async with asyncio.TaskGroup() as slots:
        for _ in range(min(offered.concurrency or 0, len(offered.requests))):
            slots.create_task(slot())


async def _open_loop(
    requests: Sequence[Request], serve: Serve, clock: Callable[[], float], end_s: float
) -> None:
    async def one(request: Request, due_s: float) -> None:
        await serve(request, due_s)

    async with asyncio.TaskGroup() as under_way:
        for request in requests:
            if request.due_s is None:
                raise ValueError(f"request {request.index} of an open loop has no due time")
            if request.due_s >= end_s:
                break
            await asyncio.sleep(request.due_s - clock())
            under_way.create_task(one(request, request.due_s))


def _end_s(offered: OfferedLoad) -> float:
    return math.inf if offered.stop_after_s is None else offered.stop_after_s
