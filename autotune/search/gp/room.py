"""How likely a candidate crashes, by what a prior believes of the room left and what launches showed of it.

In: the room of the trials so far, which of them crashed, and the room of candidates. Out: chances. Pure.
Invariant: one trial moves the belief about every candidate, since it is the same machine's memory.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtr

from autotune.search.gp.kernel import Array

_SOFTNESS = 0.15
"""How blurred the edge is between crashing and not, in the room's standard errors."""
_REACH = 4.0
_GRID = 161


def crash_chance(room: Array, seen_room: Array, seen_crash: NDArray[np.bool_]) -> Array:
    """Return how likely each candidate crashes, given the prior's room of it and of the trials so far.

    The prior's room is believed to be off by an unknown amount, the same everywhere, with a standard error
    of one; every crash and every survival says where it is not.
    """
    off = np.linspace(-_REACH, _REACH, _GRID)
    side = np.where(seen_crash, 1.0, -1.0)[:, None]
    log_weight = -0.5 * off**2
    log_weight += log_ndtr(side * (off[None, :] - seen_room[:, None]) / _SOFTNESS).sum(0)
    weight = np.exp(log_weight - log_weight.max())
    return np.asarray(ndtr((off[None, :] - room[:, None]) / _SOFTNESS) @ weight / weight.sum())
