"""Every plot as PNG and SVG for slides, with matplotlib (optional: `pip install autotune[bench-png]`).

In: the plots of a study. Out: files in a folder, two a chart. Draws what `chart.py` says, as the page does;
a browser, which could save the page's own, is not on machines that run engines. Invariant: pictures of
simulated numbers say so.
"""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from autotune.errors import ConfigError, InfrastructureError
from autotune.report.chart import LIGHT, Chart, Look, Number, Plot, Series
from autotune.report.language import say
from autotune.report.marks import marked_name
from autotune.report.plots.every import every_plot
from autotune.report.seen import Measurements
from autotune.report.units import significant
from autotune.search.study_history import StudyHistory

_SIZE_INCHES = (10, 5.625)
_DOTS_PER_INCH = 150
_FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
)
_MARKERS = {
    "star": "*",
    "circle": "o",
    "circle-open": "o",
    "triangle-up-open": "^",
    "x-thin-open": "x",
    "square-x-open": "s",
    "diamond-open": "D",
    "x": "X",
    "dot": ".",
    "none": "",
}
_ALERT = "#9a2c00"


def write_pictures(history: StudyHistory, folder: Path) -> tuple[Path, ...]:
    """Write every chart as PNG and SVG, in the language of the moment; return the files.

    Raises:
        ConfigError: matplotlib is not installed.
        InfrastructureError: the folder cannot be written.
    """
    try:
        library = importlib.import_module("matplotlib")
        importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError:
        raise ConfigError("--images needs matplotlib: pip install 'autotune[bench-png]'") from None
    title = marked_name(history)
    found: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with library.rc_context(_style(library)):
            for plot in every_plot(Measurements(history)):
                found += _write_plot(library, plot, title, folder)
    except OSError as error:
        raise InfrastructureError(
            f"{error.filename or folder} cannot be written: {error.strerror}"
        ) from error
    return tuple(found)


def _style(library: Any) -> dict[str, object]:
    """Return the settings: the fonts that there are, Chinese among them, and files always the same."""
    manager = importlib.import_module("matplotlib.font_manager").fontManager
    has = {font.name for font in manager.ttflist}
    return {
        "font.family": [font for font in _FONTS if font in has] or ["sans-serif"],
        "svg.hashsalt": library.__name__,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
    }


def _write_plot(library: Any, plot: Plot, title: str, folder: Path) -> Iterator[Path]:
    for chart in plot.charts:
        figure = _figure(library, chart, f"{title}: {plot.title}")
        name = f"{plot.key}-{chart.key}" if chart.key else plot.key
        for ending, options in (("png", {"dpi": _DOTS_PER_INCH}), ("svg", {"metadata": {"Date": None}})):
            path = folder / f"{name}.{ending}"
            figure.savefig(path, format=ending, **options)
            yield path


def _figure(library: Any, chart: Chart, title: str) -> Any:
    figure = library.figure.Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    for series in chart.series:
        _draw(axes, chart, series)
    for limit in chart.limits:
        line = axes.axvline if limit.axis == "x" else axes.axhline
        line(
            limit.value * chart.scale(limit.axis)[0],
            color=_ALERT,
            linestyle="--",
            linewidth=1,
            label=limit.name,
        )
    axes.set_title(title, loc="left")
    _dress(axes, chart)
    strip = _scaled([x for x in chart.unplaced_x if x is not None], chart.scale("x")[0])
    axes.plot(strip, [0.015] * len(strip), "x", color=_ALERT, transform=axes.get_xaxis_transform())
    if chart.unplaced:
        what = say("{count} trials have no place here", count=len(chart.unplaced))
        axes.annotate(what, (1, 1.01), xycoords="axes fraction", ha="right", fontsize=9, color="#57606a")
    if len(chart.series) + len(chart.limits) > 1:
        figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    return figure


def _dress(axes: Any, chart: Chart) -> None:
    """Give the axes titles, scales and labels."""
    for name, about in (("x", chart.x), ("y", chart.y)):
        unit = chart.scale(name)[1]
        getattr(axes, f"set_{name}label")(f"{about.title} ({unit})" if unit else about.title)
        axis = getattr(axes, f"{name}axis")
        if chart.is_logarithmic(name):
            getattr(axes, f"set_{name}scale")("log")
            axis.set_major_formatter(lambda value, _: significant(value))
            axis.set_minor_formatter(lambda *_: "")
        if about.labels:
            axis.set_ticks(range(len(about.labels)), about.labels)
        if about.is_reversed:
            axis.set_inverted(True)


def _draw(axes: Any, chart: Chart, series: Series) -> None:
    colour = LIGHT[series.colour % len(LIGHT)]
    x, y = (_scaled(getattr(series, name), chart.scale(name)[0]) for name in ("x", "y"))
    look: dict[str, Any] = {"color": colour, "label": series.name}
    match series.look:
        case Look.BARS:
            axes.barh(y, x, color=colour)
        case Look.LIMIT:
            axes.plot(x, y, **look, marker="_", markersize=34, markeredgewidth=3, linestyle="")
        case Look.SPAN:
            axes.plot(x, y, **look, linewidth=max(1.5, min(6.0, 900 / len(x))), solid_capstyle="butt")
        case Look.STEPS:
            axes.step(x, y, **look, where="post")
        case Look.LINE:
            style = "--" if series.colour else "-"
            axes.errorbar(
                x, y, **_intervals(chart, series), **look, **_marker(series, colour), linestyle=style
            )
        case Look.POINTS:
            axes.errorbar(x, y, **_intervals(chart, series), **look, **_marker(series, colour), linestyle="")


def _marker(series: Series, colour: str) -> dict[str, Any]:
    is_open = series.symbol.endswith("-open")
    size = 12 if series.symbol == "star" else 6
    return {
        "marker": _MARKERS[series.symbol],
        "markersize": size,
        "markerfacecolor": "none" if is_open else colour,
        "capsize": 2,
        "elinewidth": 0.8,
    }


def _intervals(chart: Chart, series: Series) -> dict[str, Any]:
    """Return the lengths of the error bars."""
    found = {}
    for name in ("x", "y"):
        low, high = getattr(series, f"{name}_low"), getattr(series, f"{name}_high")
        if low:
            factor = chart.scale(name)[0]
            middle = _scaled(getattr(series, name), factor)
            found[f"{name}err"] = (
                [value - least for value, least in zip(middle, _scaled(low, factor), strict=True)],
                [most - value for value, most in zip(middle, _scaled(high, factor), strict=True)],
            )
    return found


def _scaled(values: Sequence[Number], factor: float) -> list[float]:
    return [float("nan") if value is None else value * factor for value in values]
