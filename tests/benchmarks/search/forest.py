"""Extremely randomised trees (Geurts 2006) that tell how likely a candidate is infeasible: what SCOOT learns.

In: points and labels (1 infeasible). Out: the share of trees' leaves that say so. Numpy only.
"""

import numpy as np

TREES = 40


def infeasible_chance(
    points: np.ndarray, labels: np.ndarray, wanted: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Return the mean label of the leaves that each wanted point falls into, over all trees."""
    total = np.zeros(len(wanted))
    for _ in range(TREES):
        drawn = generator.integers(len(points), size=len(points))
        everything = np.arange(len(wanted))
        _grow(
            points[drawn],
            labels[drawn],
            wanted=wanted,
            rows=everything,
            total=total,
            generator=generator,
        )
    return total / TREES


def _grow(
    points: np.ndarray,
    labels: np.ndarray,
    *,
    wanted: np.ndarray,
    rows: np.ndarray,
    total: np.ndarray,
    generator: np.random.Generator,
) -> None:
    """Add the label of the leaf that each of these rows of `wanted` falls into."""
    spans = np.ptp(points, axis=0)
    if labels.min() == labels.max() or not spans.any():
        total[rows] += labels.mean()
        return
    column = int(generator.choice(np.flatnonzero(spans)))
    low = points[:, column].min()
    cut = generator.uniform(low, low + spans[column])
    left, to_left = points[:, column] <= cut, wanted[rows, column] <= cut
    for side, mine in ((left, to_left), (~left, ~to_left)):
        if side.any():
            _grow(
                points[side],
                labels[side],
                wanted=wanted,
                rows=rows[mine],
                total=total,
                generator=generator,
            )
        else:
            total[rows[mine]] += labels.mean()
