"""Numbers as people read them: three significant digits and a unit. Pure.

In: seconds, ratios, rates and flag values. Out: short texts without control characters; `-` where there is
no number. Invariant: no text from outside passes through unfiltered, because these go to terminals.
"""

import math
from collections.abc import Mapping

from autotune.metrics import Metric
from autotune.report.language import say
from autotune.search.gains import Gain
from autotune.slo import parse_ceiling
from autotune.space import FlagValue

ABSENT = "-"
_MILLI = 1e-3


def significant(value: float | None, digits: int = 3) -> str:
    """Return the number rounded to `digits` significant digits, thousands grouped."""
    if value is None or math.isnan(value):
        return ABSENT
    if value == 0 or math.isinf(value):
        return f"{value:.0f}"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    if exponent < -digits:
        return f"{value:.{digits - 1}e}"
    places = digits - 1 - exponent
    return f"{round(value, places):,.{max(places, 0)}f}"


def latency(value_s: float | None) -> str:
    """Return seconds as s, ms or us, whichever reads without leading zeros."""
    if value_s is None:
        return ABSENT
    rounded_s = abs(float(f"{value_s:.2e}"))
    if rounded_s >= 1 or rounded_s == 0:
        return f"{significant(value_s)} s"
    if rounded_s >= _MILLI:
        return f"{significant(value_s / _MILLI)} ms"
    return f"{significant(value_s * 1e6)} us"


def duration(value_s: float | None) -> str:
    """Return seconds as `43.1 s`, `12 min 3 s` or `3 h 5 min`."""
    if value_s is None:
        return ABSENT
    whole = round(value_s)
    if whole < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{significant(value_s)} s"
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return say("{hours} h {minutes} min", hours=hours, minutes=minutes)
    return say("{minutes} min {seconds} s", minutes=minutes, seconds=seconds)


def percent(ratio: float | None, digits: int = 3) -> str:
    """Return a ratio in percent."""
    return ABSENT if ratio is None else f"{significant(ratio * 100, digits)} %"


def signed_percent(ratio: float) -> str:
    """Return a ratio in percent, its sign always written."""
    return f"{'-' if ratio < 0 else '+'}{percent(abs(ratio))}"


def gain_text(gain: Gain) -> str:
    """Return a gain with its interval."""
    low, high = signed_percent(gain.low), signed_percent(gain.high)
    return f"{signed_percent(gain.estimate)} [{low} .. {high}]"


def whole(value: int | None) -> str:
    """Return a count, all its digits kept."""
    return ABSENT if value is None else f"{value:,}"


def metric_value(metric: Metric, value: float | None) -> str:
    """Return a metric's value (seconds, per second, or a ratio) in the unit it is usually given."""
    match metric:
        case _ if value is None:
            return ABSENT
        case Metric.TTFT | Metric.TPOT | Metric.ITL | Metric.E2E:
            return latency(value)
        case Metric.ERROR_RATIO:
            return percent(value)
        case Metric.OUTPUT_THROUGHPUT | Metric.TOTAL_THROUGHPUT:
            return f"{significant(value)} tok/s"
        case Metric.REQUEST_THROUGHPUT | Metric.GOODPUT:
            return f"{significant(value)} req/s"


def ceiling_value(ceiling: str, value: float | None) -> str:
    """Return a value in the unit of the ceiling it is compared with."""
    return metric_value(parse_ceiling(ceiling)["quantity"].metric, value)


def flag_value(value: FlagValue | None) -> str:
    """Return a flag's value as a command line spells it; None is what the engine chooses by itself."""
    match value:
        case None:
            return say("(engine's default)")
        case bool():
            return "true" if value else "false"
        case tuple():
            return printable(" ".join(str(item) for item in value))
        case _:
            return printable(str(value))


def flag_list(flags: Mapping[str, FlagValue | None]) -> str:
    """Return flags on one line."""
    return ", ".join(f"{printable(name)} {flag_value(value)}" for name, value in flags.items())


def printable(text: str) -> str:
    """Return the text with every control character replaced, so that it cannot steer a terminal."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
