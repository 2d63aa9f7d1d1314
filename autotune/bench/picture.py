"""A bench report's plots as one PNG, with matplotlib (optional: `pip install autotune[bench-png]`).

In: a `BenchReport`. Out: the file, or the reason why there is none. Plotly's own PNG needs a browser, which
machines that run engines do not have.
"""

import importlib
import os
from pathlib import Path
from typing import Any

from autotune.bench.curves import Chart, charts
from autotune.bench.rows import BenchReport

_DOTS_PER_INCH = 120


def write_picture(report: BenchReport, path: Path) -> str | None:
    """Write the plots one under the other; return why not, None if they were written."""
    drawn = charts(report)
    if not drawn:
        return "no sweep has two points to be joined by a line"
    try:
        library = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError:
        return "matplotlib is not installed: pip install 'autotune[bench-png]'"
    figure = library.Figure(figsize=(9, 4 * len(drawn)), layout="constrained")
    for chart, axes in zip(drawn, figure.subplots(len(drawn), squeeze=False)[:, 0], strict=True):
        _draw(chart, axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    figure.savefig(part, format="png", dpi=_DOTS_PER_INCH)
    part.replace(path)
    return None


def _draw(chart: Chart, axes: Any) -> None:
    for series in chart.series:
        down = [value - low for low, value in zip(series.low, series.y, strict=True)]
        up = [high - value for high, value in zip(series.high, series.y, strict=True)]
        axes.errorbar(series.x, series.y, yerr=(down, up), label=series.name, marker="o", capsize=3)
    axes.set(title=chart.title, xlabel=chart.x_title, ylabel=chart.y_title)
    if chart.is_log:
        axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
