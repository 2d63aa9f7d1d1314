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
_LAST = _SHORT_HIT + 1  # puts what has a short hit behind what has none


def in_policy_order(
    policy: str, waiting: Iterable[Sequence], pool: KvPool, now_s: float, generator: np.random.Generator
) -> list[Sequence]:
    """Return the waiting sequences in the order in which they are considered for a prefill batch."""
    queue = list(waiting)
    if policy == "fcfs" or (policy in {"lpm", "hrrn"} and len(queue) > _LONG_QUEUE):
        return queue
    if policy == "lpm":
        return _longest_prefix_first(queue, pool)
    return _sorted(policy, queue, pool, now_s, generator)


def _sorted(
    policy: str, queue: list[Sequence], pool: KvPool, now_s: float, generator: np.random.Generator
) -> list[Sequence]:
    match policy:
        case "dfs-weight":
            weights = Counter(each.prefix_group for each in queue)
            ranks = {group: (-weight, -1 if group is None else group) for group, weight in weights.items()}
            return sorted(queue, key=lambda each: ranks[each.prefix_group])
        case "lof":
            return sorted(queue, key=lambda each: -each.output_tokens)
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
    cached: dict[int, int] = {}
    seen: set[int] = set()
    ranks: list[int] = []
    for each in queue:
        rank, group = 0, each.prefix_group
        if group is not None:
            if group not in cached:
                cached[group] = pool.cached_prefix(group)
            hit = min(cached[group], each.prefix_tokens)
            hit = min(hit, each.length - 1)
            rank = -hit
            if hit <= _SHORT_HIT:
                if group in seen:
                    rank += _LAST
                elif each.prefix_tokens > _SHORT_HIT:
                    seen.add(group)
        ranks.append(rank)
    if not cached:
        return queue
    return [queue[place] for place in sorted(range(len(queue)), key=ranks.__getitem__)]


def _response_ratio(sequence: Sequence, pool: KvPool, now_s: float) -> float:
    return (now_s - sequence.arrived_s) / max(sequence.length - pool.hit(sequence), 1)
