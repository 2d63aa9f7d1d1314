"""Fits a profile's memory to the KV pools that launches really had.

In: a profile, and the pool of each launch. Out: the profile with another free memory and weight of the model.
Pure. Invariant: a pool that the command line itself limits says nothing; without pools the profile stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from autotune.simulator import memory
from autotune.simulator.arguments import BadArgumentError
from autotune.simulator.flags import SchedulerFlags, parse_argv
from autotune.simulator.profile import Profile

_FREE_SPREAD, _WEIGHTS_SPREAD = 0.02, 0.1
"""How far off a profile's free memory and weights are expected to be, as logarithms."""
_POOL_ERROR = 0.0002
"""The arithmetic is exact; launches of one command line differ by less (measured: 3 of 400,000 tokens)."""
_WEIGHTS_ERROR = 0.01
_GIB = 2**30


@dataclass(frozen=True)
class PoolFact:
    """What a launch said of its memory: tokens of the pool, or the least fraction that leaves room for one.

    `mem_fraction`: what the engine said it runs with; None: what it is expected to choose. `weights_gib`:
    what its log said of the weights on one card.
    """

    argv: tuple[str, ...]
    tokens: int | None = None
    mem_fraction: float | None = None
    minimum_mem_fraction: float | None = None
    weights_gib: float | None = None


def fit_memory(profile: Profile, facts: Sequence[PoolFact]) -> Profile:
    """Return the profile with the memory that explains these launches."""
    usable = [usable for fact in facts if (usable := _usable(profile, fact)) is not None]
    if not usable:
        return profile

    def losses(shifts: NDArray[np.float64]) -> NDArray[np.float64]:
        moved = _moved(profile, shifts)
        off = [_error(moved, fact, flags) / _POOL_ERROR for fact, flags in usable]
        off += [
            float(np.log(_weights_gib(moved, flags) / fact.weights_gib)) / _WEIGHTS_ERROR
            for fact, flags in usable
            if fact.weights_gib
        ]
        return np.array([*off, shifts[0] / _FREE_SPREAD, shifts[1] / _WEIGHTS_SPREAD])

    found = least_squares(losses, np.zeros(2), bounds=([-0.5, -1.0], [0.5, 1.0]), loss="soft_l1", f_scale=3.0)
    return _moved(profile, found.x)


def _usable(profile: Profile, fact: PoolFact) -> tuple[PoolFact, SchedulerFlags] | None:
    try:
        flags = parse_argv(fact.argv, profile)
    except BadArgumentError:
        return None
    if fact.minimum_mem_fraction is not None:
        return fact, flags
    is_limited = flags.max_total_tokens is not None and (fact.tokens or 0) >= flags.max_total_tokens
    return None if fact.tokens is None or is_limited else (fact, flags)


def _error(profile: Profile, fact: PoolFact, flags: SchedulerFlags) -> float:
    """Return the logarithm of the expected pool (or least fraction) over the one that was told."""
    has, weights_gib = profile.memory, _weights_gib(profile, flags)
    if fact.minimum_mem_fraction is not None:
        minimum = memory.minimum_mem_fraction(free_gib=has.free_gib, weights_gib=weights_gib)
        return float(np.log(minimum / fact.minimum_mem_fraction))
    fraction = flags.mem_fraction if fact.mem_fraction is None else fact.mem_fraction
    pool_gib = memory.kv_pool_gib(free_gib=has.free_gib, weights_gib=weights_gib, mem_fraction=fraction)
    tokens = max(pool_gib * _GIB / has.cell_bytes, 1.0)
    return float(np.log(tokens / max(fact.tokens or 1, 1)))


def _weights_gib(profile: Profile, flags: SchedulerFlags) -> float:
    has = profile.memory
    return memory.weights_gib(
        whole_gib=has.weights_gib * profile.tensor_parallel,
        attention_gib=has.attention_gib,
        tp=flags.tp,
        pp=flags.pp,
        dp=flags.dp,
    )


def _moved(profile: Profile, shifts: NDArray[np.float64]) -> Profile:
    free_gib, weights_gib = np.exp(shifts) * (profile.memory.free_gib, profile.memory.weights_gib)
    update = {"free_gib": float(free_gib), "weights_gib": float(weights_gib)}
    return profile.model_copy(update={"memory": profile.memory.model_copy(update=update)})
