"""Pareto dominance among points of which every coordinate is to be small. Pure.

In: points of equal length without NaN (negate what is to be large). Out: which of them nothing dominates.
"""

from collections.abc import Sequence


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is nowhere worse than `other` and somewhere better."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def pareto_front(points: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """Return the positions of the points that no other dominates, in order; equal points stay together."""
    return tuple(
        index for index, point in enumerate(points) if not any(dominates(other, point) for other in points)
    )
