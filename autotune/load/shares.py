"""How a load is split among processes, and how their results are joined. Pure.

In: an `OfferedLoad`. Out: one per process; and one `LoadResult` of several.
Invariant: the shares' requests are the load's, each once, whatever the timing: a closed loop deals its
requests to its slots in turn and its slots to the processes in turn, an open loop its requests.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import overload

from autotune.load.workload import LazyRequests
from autotune.request import ClientHealth, LoadResult, OfferedLoad, Request

SLOTS_PER_PROCESS = 512
TOKENS_PER_S_PER_PROCESS = 20_000
MOST_PROCESSES = 4
_LOOKED_AT = 256


def processes_for(offered: OfferedLoad, cpus: int | None = None) -> int:
    """Return how many processes carry a load, by its concurrency or by the output tokens/s of its schedule.

    Never more than half of the CPUs, since the rest belongs to whoever answers, and at most four. The limits
    are half of what one process carries without its stamps suffering (tests/benchmarks/load_truth.py).
    Conversations stay in one process, since a turn waits for the one before.
    """
    if any(request.after is not None for request in offered.requests[:_LOOKED_AT]):
        return 1
    most = max(min((cpus or os.cpu_count() or 1) // 2, MOST_PROCESSES), 1)
    if offered.concurrency is not None:
        return min(math.ceil(min(offered.concurrency, len(offered.requests)) / SLOTS_PER_PROCESS) or 1, most)
    return min(math.ceil(_tokens_per_s(offered) / TOKENS_PER_S_PER_PROCESS) or 1, most)


def share_of(offered: OfferedLoad, position: int, processes: int) -> OfferedLoad:
    """Return what the process at `position` offers; a closed loop has a slot for every process."""
    count, slots = len(offered.requests), offered.concurrency
    if slots is None:
        places: Sequence[int] = range(position, count, processes)
    else:
        places = _Dealt(count, slots, range(position, slots, processes))
        slots = len(range(position, slots, processes))
    requests: Sequence[Request] = LazyRequests(len(places), partial(_request_at, offered.requests, places))
    if isinstance(offered.requests, tuple):  # what others send does not travel along
        requests = tuple(requests)
    return replace(offered, requests=requests, concurrency=slots)


def joined(results: Sequence[LoadResult]) -> LoadResult:
    """Return the records of all processes in the order of their index, and the worst of their healths."""
    records = sorted((record for result in results for record in result.records), key=lambda each: each.index)
    health = _joined_health([each.client for each in results if each.client])
    return LoadResult(tuple(records), health, began_ns=results[0].began_ns)


def _request_at(requests: Sequence[Request], places: Sequence[int], position: int) -> Request:
    return requests[places[position]]


@dataclass(frozen=True)
class _Dealt(Sequence[int]):
    """The places, of `total`, that fall to some of `slots` when they are dealt to the slots in turn."""

    total: int
    slots: int
    mine: range

    def __len__(self) -> int:
        rounds, rest = divmod(self.total, self.slots)
        return rounds * len(self.mine) + len(range(self.mine.start, rest, self.mine.step))

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(len(self))[index])
        rounds, slot = divmod(range(len(self))[index], len(self.mine))
        return rounds * self.slots + self.mine[slot]


def _tokens_per_s(offered: OfferedLoad) -> float:
    """Return the output tokens/s that an open loop asks for, from its first requests' lengths."""
    requests = offered.requests
    first = requests[:_LOOKED_AT]
    if not first:
        return 0.0
    mean_tokens = sum(request.output_tokens for request in first) / len(first)
    lasts_s = (requests[-1].due_s or 0.0) - (requests[0].due_s or 0.0)
    return len(requests) * mean_tokens / lasts_s if lasts_s > 0 else 0.0


def _joined_health(healths: Sequence[ClientHealth]) -> ClientHealth:
    return ClientHealth(
        loop_lag_p99_s=max(each.loop_lag_p99_s for each in healths),
        cpu_ratio=sum(each.cpu_ratio for each in healths),
        peak_in_flight=sum(each.peak_in_flight for each in healths),
        dispatch_delay_p99_s=max(each.dispatch_delay_p99_s for each in healths),
        dispatch_delay_mean_s=max(each.dispatch_delay_mean_s for each in healths),
        tokens_per_read=max(each.tokens_per_read for each in healths),
        cpu_s_per_1000_tokens=max(each.cpu_s_per_1000_tokens for each in healths),
        clock_drift_s=max(each.clock_drift_s for each in healths),
        has_kernel_stamps=all(each.has_kernel_stamps for each in healths),
        processes=len(healths),
    )
