"""The workload: what requests look like. The same seed gives the same requests on every trial.

In: the `workload` of an SLO file and a load point. Out: `OfferedLoad`s of `Request`s with lengths and due
times. Pure but for reading a dataset, a tokenizer or a trace.
Invariant: a request's lengths depend on the workload's seed and its index alone; the salt changes only the
contents of prompts and the draw of arrivals, so that no two loads meet in the engine's prefix cache.
"""

import math
from dataclasses import replace
from pathlib import Path

from autotune.load.arrivals import LoadPoint, due_times_s
from autotune.load.dataset import read_dataset
from autotune.load.lengths import Draw, generator_for
from autotune.load.making import CHARACTERS_PER_TOKEN, Maker, request_maker
from autotune.load.prompts import LazyRequests, prompter, with_prompts
from autotune.load.shape import Conversation, SharedPrefix, Wire, Workload
from autotune.load.trace import read_trace
from autotune.request import OfferedLoad, Request

__all__ = [
    "CHARACTERS_PER_TOKEN",
    "Conversation",
    "LazyRequests",
    "SharedPrefix",
    "Wire",
    "Workload",
    "offer",
    "prompter",
    "read_dataset",
    "warm_up",
    "with_prompts",
]

_SHORTEST_REQUEST_S = 0.005


def offer(workload: Workload, point: LoadPoint, *, salt: int) -> OfferedLoad:
    """Return the requests of a load point and when they are sent, without random prompts.

    A closed loop that is limited by time gets a lazy sequence that lasts even if every request took 5 ms
    (`load.health.invalid_reason` tells if it ran out all the same). With a dataset, `input_tokens` is an
    estimate of four characters per token (without a tokenizer) and texts repeat only after a full pass, the
    same for every salt. A trace's lengths win over the workload's where prompts are made to measure.

    Raises:
        ConfigError: the dataset, the tokenizer or the trace cannot be read.
        ValueError: the salt is negative.
    """
    maker = request_maker(workload)
    stream = 2 * salt
    if point.rate is not None:
        return _open_loop(maker, workload, point, stream)
    ramp_s = point.ramp_s or 0.0
    if point.requests is not None:
        requests = tuple(map(maker.make, range(point.requests)))
        return OfferedLoad(requests, point.concurrency, salt=stream, ramp_s=ramp_s)
    limit_s, slots = point.duration_s or 0.0, point.concurrency or 1
    count = math.ceil(slots * limit_s / _SHORTEST_REQUEST_S)
    return OfferedLoad(
        LazyRequests(count, maker.make), slots, stop_after_s=limit_s, salt=stream, ramp_s=ramp_s
    )


def warm_up(workload: Workload, point: LoadPoint, *, salt: int) -> OfferedLoad:
    """Return what is sent before a load point and thrown away: a closed loop that ends when all are answered.

    Its prompts differ from those of every `offer`, but for a dataset, whose last texts in order it takes.
    An open-loop point is warmed by all its warm-up requests at once.

    Raises:
        ConfigError: the dataset or the tokenizer cannot be read.
    """
    count = point.warm_up_requests
    maker = request_maker(workload, from_the_end=True)
    slots = point.concurrency or max(count, 1)
    return OfferedLoad(tuple(map(maker.make, range(count))), slots, salt=2 * salt + 1)


def _open_loop(maker: Maker, workload: Workload, point: LoadPoint, stream: int) -> OfferedLoad:
    limit_s = point.duration_s
    count = point.requests if limit_s is None else point.due_within(limit_s)
    requests = [maker.make(index) for index in range(count or 1)]
    heads = [place for place, request in enumerate(requests) if request.after is None]
    arrivals = generator_for(workload.seed, Draw.ARRIVALS, stream)
    due_s = due_times_s(_slowed(point, maker.mean_turns), len(heads), arrivals)
    for head, due in zip(heads, due_s, strict=True):
        requests[head] = replace(requests[head], due_s=float(due))
    if point.trace is not None and workload.dataset is None and workload.conversation is None:
        requests = [_as_long_as(request, point.trace) for request in requests]
    return OfferedLoad(tuple(requests), None, stop_after_s=limit_s, salt=stream)


def _slowed(point: LoadPoint, turns: float) -> LoadPoint:
    """Return the arrivals of conversations whose turns together are the point's."""
    if turns == 1:
        return point
    steps = None if point.steps is None else tuple(step / turns for step in point.steps)
    return point.model_copy(update={"rate": (point.rate or 0.0) / turns, "steps": steps})


def _as_long_as(request: Request, trace: Path) -> Request:
    """Give a request the lengths of its row in a trace; a prompt is never shorter than its prefix and one."""
    row = read_trace(trace)[request.index]
    return replace(
        request,
        input_tokens=max(row.input_tokens or request.input_tokens, request.prefix_tokens + 1),
        output_tokens=row.output_tokens or request.output_tokens,
    )
