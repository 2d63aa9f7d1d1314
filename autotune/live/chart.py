"""A small chart of a series as lines of block characters. Pure.

In: values, None where there is none yet. Out: lines of equal width, the highest value at the top.
"""

from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_FLOOR_SHARE = 0.15
"""How much of the height the lowest value takes, so that it is seen."""


def area_chart(series: Sequence[float | None], *, width: int, height: int) -> tuple[str, ...]:
    """Return `height` lines of at most `width` characters; empty without values.

    A series that is longer than the width is thinned out: each column shows the last value of its part.
    """
    known = [value for value in series if value is not None]
    if not known or width < 1 or height < 1:
        return ()
    low, high = min(known), max(known)
    columns = [_filled(value, low, high) for value in _thinned(series, width)]
    return tuple(
        "".join(_cell(filled * height - row) for filled in columns) for row in range(height - 1, -1, -1)
    )


def _thinned(series: Sequence[float | None], width: int) -> list[float | None]:
    """Return at most `width` values; a short series is stretched by whole columns."""
    count = len(series)
    if count >= width:
        return [series[(column + 1) * count // width - 1] for column in range(width)]
    return [value for value in series for _ in range(min(width // count, 4))]


def _filled(value: float | None, low: float, high: float) -> float:
    """Return the filled share of a column's height."""
    if value is None:
        return 0.0
    share = (value - low) / (high - low) if high > low else 1.0
    return _FLOOR_SHARE + (1 - _FLOOR_SHARE) * share


def _cell(rows: float) -> str:
    """Return the character that is filled by so many rows, cut to one."""
    return _EIGHTHS[max(0, min(8, round(rows * 8)))]
