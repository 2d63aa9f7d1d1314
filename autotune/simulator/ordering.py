"""The order in which waiting requests are looked at: SGLang's --schedule-policy. Pure.

In: the waiting list and the pool. Out: the list in policy order. Source: managers/schedule_policy.py of
0.5.23. `routing-key` has no meaning without routing keys and stays fcfs; `priority` is refused at start-up.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from autotune.simulator.pool import KvPool
from autotune.simulator.sequence import Sequence

_LONG_QUEUE = 128  # above it lpm and hrrn fall back to fcfs
_SHORT_HIT = 32  # IN_BATCH_PREFIX_CACHING_CHECK_THRESHOLD


def in_policy_order(
    policy: str, waiting: Iterable[Sequence], pool: KvPool, now_s: float, generator: np.random.Generator
) -> list[Sequence]:
    """Return the waiting sequences in the order in which they are considered for a prefill batch."""
    queue = list(waiting)
    if policy in {"lpm", "hrrn"} and len(queue) > _LONG_QUEUE:
        return queue
    match policy:
        case "lpm":
            return _longest_prefix_first(queue, pool)
        case "dfs-weight":
            weights = Counter(each.request.prefix_group for each in queue)
            return sorted(queue, key=lambda each: (-weights[each.request.prefix_group], _group(each)))
        case "lof":
            return sorted(queue, key=lambda each: -each.request.output_tokens)
        case "random":
            return [queue[index] for index in generator.permutation(len(queue))]
        case "hrrn":
            return sorted(queue, key=lambda each: -_response_ratio(each, pool, now_s))
        case "shortest-prefill-first":
            return sorted(queue, key=lambda each: each.length - pool.hit(each))
        case _:
            return queue


def _longest_prefix_first(queue: list[Sequence], pool: KvPool) -> list[Sequence]:
    """Sort by cached prefix; of several that would compute the same uncached prefix, all but one go last."""
    if {each.request.prefix_group for each in queue} == {None}:
        return queue
    seen: set[int] = set()
    keys: dict[Sequence, tuple[bool, int]] = {}
    for each in queue:
        hit, group = pool.hit(each), each.request.prefix_group
        is_repeat = group is not None and hit <= _SHORT_HIT and group in seen
        keys[each] = (is_repeat, -hit)
        if group is not None and hit <= _SHORT_HIT < each.request.prefix_tokens:
            seen.add(group)
    return sorted(queue, key=keys.__getitem__)


def _response_ratio(sequence: Sequence, pool: KvPool, now_s: float) -> float:
    return (now_s - sequence.arrived_s) / max(sequence.length - pool.hit(sequence), 1)


def _group(sequence: Sequence) -> int:
    group = sequence.request.prefix_group
    return -1 if group is None else group
