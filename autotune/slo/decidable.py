"""Whether a load point has requests enough to decide its percentile ceilings. Pure.

In: an `Slo`. Out: a problem for each ceiling that no measurement could show to be met.
"""

import math
from bisect import bisect_left

from autotune.errors import Problem
from autotune.interval import SeenShare
from autotune.load.arrivals import LoadPoint
from autotune.metrics import opening_wave
from autotune.slo.ceiling import Ceiling
from autotune.slo.promise import Slo
from autotune.slo.verdict import ERROR_RATE, FRESH_LAUNCHES, LOOKS, Decision, decide_share

_LOOKS_IN_ALL = FRESH_LAUNCHES * LOOKS


def undecidable(slo: Slo, *, error_rate: float = ERROR_RATE) -> tuple[Problem, ...]:
    """Return a problem for each percentile ceiling that not even a perfect confirmation can show to be met.

    A confirmation pools what its fresh launches saw in all their looks (`verdict.pool`).

    A closed loop that is limited by time is left out: how many requests it sends depends on the engine.
    """
    points = {point.label: point for point in slo.load}
    problems = []
    for index, ceiling in enumerate(slo.ceilings):
        point = points[ceiling.quantity.load]
        sent = _planned_requests(point)
        if ceiling.quantity.percent is None or sent is None:
            continue
        samples = _LOOKS_IN_ALL * (sent - opening_wave(sent, point.concurrency))
        least = _least_samples(ceiling, error_rate)
        if samples < least:
            message = (
                f"no confirmation can show {ceiling.text!r} to be met: {FRESH_LAUNCHES} launches of {LOOKS} "
                f"looks give {samples} requests that count, and {ceiling.quantity.statistic} needs {least} "
                "even if all are well"
            )
            remedy = f"Give {point.label} {_enough(point, math.ceil(least / _LOOKS_IN_ALL))} or more."
            problems.append(Problem(message, key=f"ceilings.{index}", remedy=remedy))
    return tuple(problems)


def _planned_requests(point: LoadPoint) -> int | None:
    if point.rate is not None and point.duration_s is not None:
        return math.ceil(point.mean_rate_rps * point.duration_s)
    return point.requests


def _least_samples(ceiling: Ceiling, error_rate: float) -> int:
    """Return how many samples, all of them on the right side, show that a percentile is met."""

    def is_met(samples: int) -> bool:
        seen = SeenShare(float(ceiling.is_floor), samples, samples)
        return decide_share(ceiling, seen, error_rate) is Decision.MET

    return 1 + bisect_left(range(1, 10**9), x=True, key=is_met)


def _enough(point: LoadPoint, samples: int) -> str:
    """Return the load point's key with the value that gives so many samples a look."""
    if point.rate is not None and point.duration_s is not None:
        return f"duration_s: {math.ceil(samples / point.mean_rate_rps)}"
    opening = point.concurrency or 0
    return f"requests: {samples + (opening if samples >= opening else 0)}"
