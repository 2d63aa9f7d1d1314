"""The curves of a bench report, for any plotting library. Pure.

In: a `BenchReport`. Out: `Chart`s: those of each sweep with two points or more, without the invalid ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autotune.bench.points import Sweep
from autotune.bench.rows import BenchReport, BenchRow
from autotune.breakdown import Distribution

_FEWEST_POINTS = 2
_AXES = {
    Sweep.LENGTH: "prompt tokens",
    Sweep.CONCURRENCY: "requests in flight",
    Sweep.RATE: "requests per second",
    Sweep.SEARCH: "load",
}


@dataclass(frozen=True)
class Series:
    """A line with its 95 % interval; an open end stands at the value."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Chart:
    """One plot; the axis of x is logarithmic where `is_log`."""

    title: str
    x_title: str
    y_title: str
    is_log: bool
    series: tuple[Series, ...]


def charts(report: BenchReport) -> list[Chart]:
    """Return the plots of a report."""
    drawn = []
    for sweep, x_title in _AXES.items():
        rows = sorted(
            (row for row in report.rows if row.sweep is sweep and row.invalid is None), key=lambda row: row.x
        )
        if len({row.x for row in rows}) >= _FEWEST_POINTS:
            drawn += _charts_of(sweep, x_title, rows)
    return drawn


def _charts_of(sweep: Sweep, x_title: str, rows: Sequence[BenchRow]) -> list[Chart]:
    is_log = sweep is Sweep.LENGTH
    waits = [_latency(rows, "ttft", name) for name in ("p50", "p95")]
    found = [Chart(f"Time to the first token by {sweep}", x_title, "TTFT (s)", is_log, _known(waits))]
    if sweep is not Sweep.LENGTH:
        gaps = [_latency(rows, "tpot", "p50"), _latency(rows, "itl", "p99")]
        found.append(Chart(f"Time per token by {sweep}", x_title, "s per token", is_log, _known(gaps)))
        rates = (_plain(rows, "output tokens/s", lambda row: row.figures.output_throughput_tps),)
        found.append(Chart(f"Output throughput by {sweep}", x_title, "tokens/s", is_log, rates))
    return [chart for chart in found if chart.series]


def _known(series: Sequence[Series]) -> tuple[Series, ...]:
    return tuple(each for each in series if each.x)


def _latency(rows: Sequence[BenchRow], metric: str, percentile: str) -> Series:
    x, y, low, high = [], [], [], []
    for row in rows:
        latency: Distribution | None = getattr(row.figures, metric)
        if latency is not None:
            found = getattr(latency, percentile)
            x.append(row.x)
            y.append(found.value)
            low.append(found.value if found.low is None else min(found.low, found.value))
            high.append(found.value if found.high is None else max(found.high, found.value))
    return Series(f"{metric} {percentile}", tuple(x), tuple(y), tuple(low), tuple(high))


def _plain(rows: Sequence[BenchRow], name: str, value: Callable[[BenchRow], float]) -> Series:
    x, y = tuple(row.x for row in rows), tuple(value(row) for row in rows)
    return Series(name, x, y, y, y)
