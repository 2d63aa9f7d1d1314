"""Exact intervals: a share, a percentile by order statistics, and Student's t. Pure.

Also the autocorrelation time of a series, which says how many independent samples it is worth.
Sources: Clopper and Pearson 1934 (share); David and Nagaraja, Order Statistics, section 7.1 (percentile).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrik, betaincinv, stdtrit


@dataclass(frozen=True)
class Interval:
    """Both bounds belong to the interval; infinite where the data say nothing."""

    low: float
    high: float


def share_interval(hits: float, count: float, *, error_rate: float) -> Interval:
    """Return the Clopper-Pearson interval of a share seen as `hits` of `count`.

    Both may be fractional (an effective sample size). Each side misses with at most `error_rate` / 2.
    """
    if count <= 0:
        return Interval(0.0, 1.0)
    side = error_rate / 2
    low = 0.0 if hits <= 0 else float(betaincinv(hits, count - hits + 1, side))
    high = 1.0 if hits >= count else float(betaincinv(hits + 1, count - hits, 1 - side))
    return Interval(low, high)


@dataclass(frozen=True)
class SeenShare:
    """A share seen in samples that come in clusters, as a request's gaps do.

    `independent`: how many independent samples they are worth, at least `clusters`, their number of clusters.
    """

    share: float
    independent: float
    clusters: float

    def interval(self, *, error_rate: float) -> Interval:
        """Return the Clopper-Pearson interval of the share over the independent samples.

        Its upper bound is at least that of no hit in `clusters` samples: a few hits tell nothing of how large
        a cluster of them can be, so they must not make the claim surer than none would.
        """
        seen = share_interval(self.share * self.independent, self.independent, error_rate=error_rate)
        without_hits = share_interval(0, self.clusters, error_rate=error_rate)
        return Interval(seen.low, max(seen.high, without_hits.high))


def pool_shares(shares: Sequence[SeenShare]) -> SeenShare:
    """Return what was seen of one share in several independent measurements."""
    independent = sum(each.independent for each in shares)
    hits = sum(each.share * each.independent for each in shares)
    return SeenShare(
        hits / independent if independent else 0.0, independent, sum(each.clusters for each in shares)
    )


def percentile_interval(
    ordered: NDArray[np.float64], percent: float, *, error_rate: float = 0.05
) -> Interval:
    """Return the order-statistic interval of a percentile of independent samples in ascending order."""
    count, share = len(ordered), percent / 100
    if count == 0:
        return Interval(-np.inf, np.inf)
    below = int(np.floor(bdtrik(error_rate / 2, count, share))) if 0 < share < 1 else count - 1
    above = int(np.ceil(bdtrik(1 - error_rate / 2, count, share))) if 0 < share < 1 else count - 1
    low = float(ordered[below]) if below >= 0 else -np.inf
    high = float(ordered[above]) if above < count else np.inf
    return Interval(low, high)


def autocorrelation_time(series: NDArray[np.float64]) -> float:
    """Return how many successive values are worth one independent value; at least 1, 1 for a constant.

    Geyer's initial positive sequence (1992): autocorrelations are added in pairs for as long as a pair is
    positive. Of independent values it is 1.13 on average for 250 of them, 1.07 for 1000.
    """
    count = len(series)
    deviation = series - series.mean() if count else series
    if not deviation.any():
        return 1.0
    spectrum = np.fft.rfft(deviation, 2 * count)
    correlation = np.fft.irfft(spectrum * spectrum.conj())[: count // 2]
    whole = len(correlation) // 2 * 2
    pairs = (correlation[:whole] / correlation[0]).reshape(-1, 2).sum(1) if whole else np.empty(0)
    ends = np.flatnonzero(pairs <= 0)
    return max(1.0, 2 * float(pairs[: ends[0] if len(ends) else None].sum()) - 1)


def student_quantile(probability: float, degrees: float) -> float:
    """Return the quantile of Student's t distribution."""
    return float(stdtrit(degrees, probability))
