"""The largest load that keeps its ceilings, found with few measurements. Pure.

In: a question, whether a load keeps them. Out: a `Found`. The load is doubled until it misses, then halved on
a logarithmic scale between the largest that kept and the smallest that missed, until they are close enough.
Invariant: no load is measured twice, and none above the least that missed; what is kept at one load is taken
to be kept at every lower one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Where to look: from `low` to `high`; whole numbers for a concurrency.

    `close_ratio`: how near the answer's neighbours are, as a share; `most_points`: measurements at most.
    """

    low: float
    high: float
    is_whole: bool
    close_ratio: float = 0.1
    most_points: int = 12


@dataclass(frozen=True)
class Found:
    """The largest load seen to keep the ceilings, the smallest seen to miss them; None if there is none."""

    kept: float | None
    missed: float | None
    points: int


def largest_kept(keeps: Callable[[float], bool], where: Range) -> Found:
    """Return the largest load that keeps what `keeps` asks.

    Raises:
        ValueError: the range is empty.
    """
    if not 0 < where.low <= where.high:
        raise ValueError("a search goes from a low load, above 0, to a higher one")
    kept, missed, points = None, None, 0
    load: float | None = where.low
    while load is not None and points < where.most_points:
        points += 1
        if keeps(load):
            kept = load
        else:
            missed = load
        load = _next(kept, missed, where)
    return Found(kept, missed, points)


def _next(kept: float | None, missed: float | None, where: Range) -> float | None:
    """Return the next load worth measuring, None if there is none."""
    if kept is None or kept >= where.high:
        return None
    if missed is None:
        return min(2 * kept, where.high)
    if missed / kept <= 1 + where.close_ratio:
        return None
    middle = math.sqrt(kept * missed)
    if where.is_whole:
        middle = float(math.floor(middle + 0.5))
    return middle if kept < middle < missed else _between(kept, missed, where)


def _between(kept: float, missed: float, where: Range) -> float | None:
    """Return a whole number between two whole numbers, None if there is none."""
    return kept + 1 if where.is_whole and missed - kept > 1 else None
