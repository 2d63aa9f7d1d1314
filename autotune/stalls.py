"""Stalls: requests whose decoding all but stops while they run. Pure.

In: request records and what counts as a stall. Out: the `Stall`s, the longest of each request.
Definition: a request stalls when there is a stretch of `longer_than_s` seconds between its first token and
its end in which fewer than `below_tps * longer_than_s` tokens arrived (after its beginning, up to its end).
Stretches that overlap are one stall; its rate is the tokens that arrived within it over its length. A mean
over the request would hide it. The count in a stretch changes only where the beginning passes an arrival or
the end does, so one look between any two such places sees every stretch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotune.request import RequestRecord

BELOW_TPS = 1.0
LONGER_THAN_S = 5.0


@dataclass(frozen=True, slots=True)
class StallLimit:
    """Fewer than `below_tps` tokens/s for more than `longer_than_s` seconds is a stall."""

    below_tps: float = BELOW_TPS
    longer_than_s: float = LONGER_THAN_S


@dataclass(frozen=True, slots=True)
class Stall:
    """The longest stall of request `index`: when it began, how long it lasted, its tokens per second."""

    index: int
    began_s: float
    lasted_s: float
    rate_tps: float


def stalls(records: Sequence[RequestRecord], limit: StallLimit) -> tuple[Stall, ...]:
    """Return the stalls; a request that failed after its first token runs until it failed."""
    found = (_longest(record, limit) for record in records)
    return tuple(stall for stall in found if stall is not None)


def _longest(record: RequestRecord, limit: StallLimit) -> Stall | None:
    times_s = record.chunk_times_s
    if not len(times_s):
        return None
    end_s = record.ended_s if record.failure is not None else float(times_s[-1])
    last_begin_s = end_s - limit.longer_than_s
    if last_begin_s < times_s[0]:
        return None
    until = np.concatenate(([0], np.cumsum(record.chunk_tokens)))
    begins_s = _places(times_s, limit.longer_than_s, last_begin_s)
    looks_s = (begins_s[:-1] + begins_s[1:]) / 2
    tokens = _arrived(times_s, until, looks_s, looks_s + limit.longer_than_s)
    is_slow = tokens < limit.below_tps * limit.longer_than_s
    if not is_slow.any():
        return None
    began_s, stopped_s = _longest_union(
        begins_s[:-1][is_slow], np.minimum(begins_s[1:][is_slow] + limit.longer_than_s, end_s)
    )
    within = (times_s > began_s) & (times_s < stopped_s)
    rate_tps = float(record.chunk_tokens[within].sum()) / (stopped_s - began_s)
    return Stall(record.index, began_s, stopped_s - began_s, rate_tps)


def _places(times_s: NDArray[np.float64], length_s: float, last_s: float) -> NDArray[np.float64]:
    """Return where the count of a stretch changes, by its beginning; at least two places, in order."""
    places_s = np.unique(np.concatenate((times_s, times_s - length_s, [last_s])))
    places_s = places_s[(places_s >= times_s[0]) & (places_s <= last_s)]
    return places_s if len(places_s) > 1 else np.repeat(places_s, 2)


def _arrived(
    times_s: NDArray[np.float64],
    until: NDArray[np.int64],
    after_s: NDArray[np.float64],
    up_to_s: NDArray[np.float64],
) -> NDArray[np.int64]:
    ends, begins = (np.searchsorted(times_s, each, side="right") for each in (up_to_s, after_s))
    return until[ends] - until[begins]


def _longest_union(begins_s: NDArray[np.float64], ends_s: NDArray[np.float64]) -> tuple[float, float]:
    """Return the longest of what stretches, in order, join to."""
    starts = np.flatnonzero(np.concatenate(([True], begins_s[1:] > ends_s[:-1])))
    firsts_s, lasts_s = begins_s[starts], ends_s[np.concatenate((starts[1:] - 1, [len(ends_s) - 1]))]
    longest = int(np.argmax(lasts_s - firsts_s))
    return float(firsts_s[longest]), float(lasts_s[longest])
