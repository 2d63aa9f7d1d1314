"""The charts of a bench report, in the form that the page and the picture draw. Pure.

In: a `BenchReport`. Out: `Chart`s: those of each sweep with two points or more. Points that the client spoilt
are on no line: they stand apart, hollow. An interval's open end stands at the value.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from autotune.bench.points import Sweep
from autotune.bench.rows import BenchReport, BenchRow
from autotune.breakdown import Distribution
from autotune.metrics import Metric
from autotune.report.chart import Axis, Chart, Limit, Look, Series, unit_of
from autotune.slo import parse_ceiling

SPOILT_SYMBOL = "circle-open"

_FEWEST_POINTS = 2
_LOG_FROM_RATIO = 32
_FAR_ABOVE = 3.0
_AXES = {
    Sweep.LENGTH: "prompt tokens",
    Sweep.CONCURRENCY: "requests in flight",
    Sweep.RATE: "requests per second",
    Sweep.SEARCH: "load searched",
}


@dataclass(frozen=True)
class _Value:
    """A row's value with its interval."""

    y: float
    low: float
    high: float


@dataclass(frozen=True)
class _Line:
    """What a line shows of each row; None where nothing was measured."""

    name: str
    value_of: Callable[[BenchRow], _Value | None]


@dataclass(frozen=True)
class _Kind:
    """What a chart shows; the ceilings of `metrics` belong to it, and their unit."""

    title: str
    y_title: str
    metrics: tuple[Metric, ...]
    lines: tuple[_Line, ...]


def charts(report: BenchReport) -> list[Chart]:
    """Return the plots of a report."""
    return [chart for sweep in _AXES for chart in _charts_of(sweep, report)]


def _charts_of(sweep: Sweep, report: BenchReport) -> Iterator[Chart]:
    rows = sorted((row for row in report.rows if row.sweep is sweep), key=lambda row: row.x)
    places = sorted({row.x for row in rows})
    if len(places) < _FEWEST_POINTS:
        return
    ticks = () if sweep is Sweep.SEARCH else tuple(places)
    x = Axis(_AXES[sweep], is_log=places[-1] / places[0] >= _LOG_FROM_RATIO, ticks=ticks)
    for kind in _KINDS[:1] if sweep is Sweep.LENGTH else _KINDS:
        series = tuple(_series(kind, rows))
        if series:
            y = Axis(kind.y_title, unit_of(kind.metrics[0]))
            name = f"{kind.title} by {sweep}"
            key = name.lower().replace(" ", "-")
            yield Chart(key, name, x, y, series, _limits(kind, rows, series))


def _series(kind: _Kind, rows: Sequence[BenchRow]) -> Iterator[Series]:
    for colour, line in enumerate(kind.lines):
        found = [(row, value) for row in rows if (value := line.value_of(row)) is not None]
        good = [(row.x, value) for row, value in found if row.invalid is None]
        spoilt = [(row.x, value) for row, value in found if row.invalid is not None]
        if good:
            yield _drawn(line.name, Look.LINE, colour, "circle", good)
        if spoilt:
            yield _drawn(f"{line.name}, spoilt by this client", Look.POINTS, colour, SPOILT_SYMBOL, spoilt)


def _drawn(name: str, look: Look, colour: int, symbol: str, found: Sequence[tuple[float, _Value]]) -> Series:
    return Series(
        name,
        look,
        x=[x for x, _ in found],
        y=[value.y for _, value in found],
        colour=colour,
        symbol=symbol,
        y_low=[value.low for _, value in found],
        y_high=[value.high for _, value in found],
    )


def _limits(kind: _Kind, rows: Sequence[BenchRow], series: Sequence[Series]) -> tuple[Limit, ...]:
    """Return the ceilings that hold at every row and are not far above everything measured."""
    highest = max(y for each in series for y in each.y if y is not None)
    limits = []
    for each in rows[0].ceilings:
        metric = parse_ceiling(f"{each.text} at concurrency 1")["quantity"].metric
        is_everywhere = all(each.text in {other.text for other in row.ceilings} for row in rows)
        if is_everywhere and metric in kind.metrics and each.limit <= _FAR_ABOVE * highest:
            limits.append(Limit(each.text, "y", each.limit))
    return tuple(limits)


def _latency(name: str, metric: str, percentile: str) -> _Line:
    def value_of(row: BenchRow) -> _Value | None:
        latency: Distribution | None = getattr(row.figures, metric)
        if latency is None:
            return None
        found = getattr(latency, percentile)
        low = found.value if found.low is None else min(found.low, found.value)
        high = found.value if found.high is None else max(found.high, found.value)
        return _Value(found.value, low, high)

    return _Line(name, value_of)


def _output(row: BenchRow) -> _Value:
    rate_tps = row.figures.output_throughput_tps
    return _Value(rate_tps, rate_tps, rate_tps)


_KINDS = (
    _Kind(
        "Time to first token",
        "TTFT",
        (Metric.TTFT,),
        (_latency("p50", "ttft", "p50"), _latency("p95", "ttft", "p95")),
    ),
    _Kind(
        "Time per token",
        "time per token",
        (Metric.TPOT, Metric.ITL),
        (_latency("TPOT p50", "tpot", "p50"), _latency("ITL p99", "itl", "p99")),
    ),
    _Kind("Output throughput", "output", (Metric.OUTPUT_THROUGHPUT,), (_Line("output", _output),)),
)
