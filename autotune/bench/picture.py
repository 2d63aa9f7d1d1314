"""A bench report's plots as one PNG, with matplotlib (optional: `pip install autotune[bench-png]`).

In: a `BenchReport`. Out: the file, or the reason why there is none. A browser could draw the page's plots,
but machines that run engines have none.
"""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.bench.curves import charts
from autotune.bench.rows import BenchReport
from autotune.bench.table import about, heading, highlights
from autotune.report.chart import Chart, Look, Number, Series
from autotune.report.units import printable

_DOTS_PER_INCH = 120
_COLUMNS = 2
_WIDTH_INCHES, _ROW_INCHES, _HEAD_INCHES = 12.0, 3.6, 0.9
_COLOURS = ("#0072b2", "#c04a00")  # as the page has them on light ground
_LIMIT_COLOUR, _MUTED = "#9a2c00", "#57606a"
_KIBI = 1024
_KEY = "bars: 95 % intervals; hollow: spoilt by this client"


def write_picture(report: BenchReport, path: Path) -> str | None:
    """Write the plots side by side under what was measured; return why not, None if they were written."""
    drawn = charts(report)
    if not drawn:
        return "no sweep has two points to be joined by a line"
    try:
        library = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError:
        return "matplotlib is not installed: pip install 'autotune[bench-png]'"
    columns = min(_COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = library.Figure(figsize=(_WIDTH_INCHES, _HEAD_INCHES + _ROW_INCHES * rows), layout="constrained")
    head, body = figure.subfigures(2, 1, height_ratios=(_HEAD_INCHES, _ROW_INCHES * rows))
    _write_head(report, head)
    places = body.subplots(rows, columns, squeeze=False).flatten()
    for chart, axes in zip(drawn, places, strict=False):
        _draw(chart, axes)
    for axes in places[len(drawn) :]:
        axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    figure.savefig(part, format="png", dpi=_DOTS_PER_INCH)
    part.replace(path)
    return None


def _write_head(report: BenchReport, head: Any) -> None:
    lines = [*([" · ".join(highlights(report))] if highlights(report) else []), f"{about(report)} · {_KEY}"]
    head.text(0.01, 0.9, _plain(heading(report)), fontsize=14, fontweight="bold", va="top")
    for line, height in zip(lines, (0.5, 0.2), strict=False):
        head.text(0.01, height, _plain(line), fontsize=9, color=_MUTED, va="top")


def _plain(text: str) -> str:
    """Return a text that matplotlib does not read as mathematics."""
    return printable(text).replace("$", r"\$")


def _draw(chart: Chart, axes: Any) -> None:
    factor, unit = _scale(chart)
    for series in chart.series:
        _draw_series(series, factor, axes)
    for limit in chart.limits:
        style = {"color": _LIMIT_COLOUR, "linestyle": "--", "linewidth": 1.2}
        axes.axhline(limit.value * factor, label=_plain(limit.name), **style)
    axes.set_title(chart.name, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(chart.x.title, color=_MUTED)
    axes.set_ylabel(f"{chart.y.title} ({unit})", color=_MUTED)
    if chart.x.is_log:
        axes.set_xscale("log", base=2)
    if chart.x.ticks:
        axes.set_xticks(chart.x.ticks, list(map(_label, chart.x.ticks)), fontsize=9)
        axes.minorticks_off()
    axes.set_ylim(0, 1.06 * factor * max(_heights(chart)) or 1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=9)


def _draw_series(series: Series, factor: float, axes: Any) -> None:
    y, low, high = (_times(values, factor) for values in (series.y, series.y_low, series.y_high))
    down, up = _less(y, low), _less(high, y)
    colour = _COLOURS[series.colour]
    is_line = series.look is Look.LINE
    axes.errorbar(
        series.x,
        y,
        yerr=(down, up),
        fmt="o-" if is_line else "o",
        color=colour,
        markerfacecolor=colour if is_line else "white",
        markersize=5,
        elinewidth=1,
        capsize=2,
        label=series.name,
    )


def _scale(chart: Chart) -> tuple[float, str]:
    """Return a factor and the unit it leads to: milliseconds where all is below a second."""
    return (1e3, "ms") if chart.y.unit == "s" and max(_heights(chart)) < 1 else (1.0, chart.y.unit)


def _heights(chart: Chart) -> list[float]:
    """Return how high everything reaches, in base units."""
    return [
        *(limit.value for limit in chart.limits),
        *(y or 0.0 for each in chart.series for y in each.y_high),
    ]


def _label(tick: float) -> str:
    """Return a number, in a short form where it is a long round one."""
    return f"{tick / _KIBI:g}k" if tick >= 10 * _KIBI and tick % _KIBI == 0 else f"{tick:g}"


def _times(values: Sequence[Number], factor: float) -> list[float]:
    return [(value or 0.0) * factor for value in values]


def _less(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [value - other for value, other in zip(values, others, strict=True)]
