"""When requests are handed out: closed loop and open loop. Knows no transport.

In: an `OfferedLoad` and a function that serves one request. Out: every request served, or the time over.
Invariant: the open loop keeps an absolute schedule; no answer, however late, moves a later request, except
the next turn of the same conversation.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from autotune.request import OfferedLoad, Request, conversations

PAUSE_AFTER_FAILURE_S = 0.1
"""A closed-loop slot rests after a failure, so that an engine that refuses at once is not flooded."""

_TIMER_S = 0.001

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
    waiting = conversations(offered.requests)
    end_s = _end_s(offered)
    slots = min(offered.concurrency or 0, len(offered.requests))

    async def slot(begin_s: float) -> None:
        await _until(begin_s, clock)
        while clock() < end_s and (turns := next(waiting, None)) is not None:
            for request in turns:
                if request.pause_s:
                    await asyncio.sleep(request.pause_s)
                if (now_s := clock()) < end_s and not await serve(request, now_s):
                    await asyncio.sleep(PAUSE_AFTER_FAILURE_S)

    async with asyncio.TaskGroup() as under_way:
        for position in range(slots):
            under_way.create_task(slot(position * offered.ramp_s / slots))


async def _open_loop(
    requests: Sequence[Request], serve: Serve, clock: Callable[[], float], end_s: float
) -> None:
    async def converse(turns: Sequence[Request], due_s: float) -> None:
        await serve(turns[0], due_s)
        for request in turns[1:]:
            await asyncio.sleep(request.pause_s)
            if (now_s := clock()) < end_s:
                await serve(request, now_s)

    async with asyncio.TaskGroup() as under_way:
        for turns in conversations(requests):
            due_s = turns[0].due_s
            if due_s is None:
                raise ValueError(f"request {turns[0].index} of an open loop has no due time")
            if due_s >= end_s:
                break
            await _until(due_s, clock)
            under_way.create_task(converse(turns, due_s))


async def _until(due_s: float, clock: Callable[[], float]) -> None:
    """Wait until it is due.

    A loop's timers count whole milliseconds and may be early by one. To wait for less is to spin, which for
    every request would cost the reading of a dozen tokens.
    """
    while (ahead_s := due_s - clock()) > 0:  # noqa: ASYNC110 - a clock sets no event
        await asyncio.sleep(max(ahead_s, _TIMER_S))


def _end_s(offered: OfferedLoad) -> float:
    return math.inf if offered.stop_after_s is None else offered.stop_after_s
