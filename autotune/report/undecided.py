"""What would decide an undecided ceiling: how much more load, by what was seen so far. Pure.

In: an SLO and the verdict on one of its ceilings. Out: a sentence with the remedy. Invariant: it promises
nothing, it extrapolates the share over the limit that was seen.
"""

import math

from autotune.interval import SeenShare
from autotune.load.arrivals import LoadPoint
from autotune.metrics import opening_wave
from autotune.report.language import say
from autotune.slo import ERROR_RATE, CeilingVerdict, Decision, Slo
from autotune.slo.verdict import decide_share

MOST = 50.0
"""Beyond so many times the load there is no point in asking for more of it."""
_STEP = 1.05


def remedy_text(slo: Slo, verdict: CeilingVerdict) -> str:
    """Return what to change in the SLO file so that the ceiling can be decided."""
    ceiling = next(each for each in slo.ceilings if each.text == verdict.ceiling)
    point = next(each for each in slo.load if each.label == ceiling.quantity.load)
    key, amount = ("duration_s", point.duration_s) if point.requests is None else ("requests", point.requests)
    change = say(
        "give {load} more {key} than {amount} in the SLO file",
        load=point.label,
        key=key,
        amount=f"{amount or 0:g}",
    )
    factor = load_factor(slo, verdict)
    if factor is None:
        return say("To decide it, {change}; a value so near to its limit may stay undecided.", change=change)
    enough = _rounded_up(_enough(point, amount or 0, factor))
    return say(
        "By the share seen so far about {enough} would decide it: {change} (that is a new study).",
        enough=f"{enough:g}",
        change=change,
    )


def load_factor(slo: Slo, verdict: CeilingVerdict) -> float | None:
    """Return how many times as much load would decide the ceiling, None if it is not to be told."""
    ceiling = next(each for each in slo.ceilings if each.text == verdict.ceiling)
    seen, factor = verdict.seen, _STEP
    while seen is not None and factor <= MOST:
        more = SeenShare(seen.share, seen.independent * factor, seen.clusters * factor)
        if decide_share(ceiling, more, ERROR_RATE) is not Decision.UNDECIDED:
            return factor
        factor *= _STEP
    return None


def _enough(point: LoadPoint, amount: float, factor: float) -> float:
    """Return what to ask for so that `factor` times as much counts: a closed loop's opening wave does not."""
    if point.requests is None or point.concurrency is None:
        return amount * factor
    counted = (amount - opening_wave(point.requests, point.concurrency)) * factor
    return counted + (point.concurrency if counted >= point.concurrency else 0)


def _rounded_up(value: float) -> float:
    """Return the next number of two significant digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit
