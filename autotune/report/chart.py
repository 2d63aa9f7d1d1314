"""What a plot shows, without saying how it is drawn: the page, the pictures and the tables draw the same.

In: numbers in base units (seconds, per second, ratios). Out: `Plot`s of `Chart`s of `Series`. Pure.
Invariant: what a mark stands for is told by its shape as well as by its colour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from autotune.metrics import Metric
from autotune.report.language import say
from autotune.slo import Quantity

Number = float | int | None

# After Okabe and Ito 2008: told apart with any colour vision, each at least 4.5 : 1 against its ground.
LIGHT = (
    "#0072b2",
    "#c04a00",
    "#00795a",
    "#a8457f",
    "#8a6100",
    "#2a78a6",
    "#6b7280",
    "#b00020",
    "#5c4b9a",
    "#1b1f24",
)
DARK = (
    "#5db4f0",
    "#ff9a4d",
    "#3ecf9e",
    "#eb9fcb",
    "#f2b632",
    "#9ad2f5",
    "#a3acb8",
    "#ff8a80",
    "#b9a7ff",
    "#e4e7eb",
)
_SPREAD = 20
"""Values of which the largest is more times the smallest are drawn on a logarithmic axis."""


_MEASURED = ("s", "tok/s", "req/s")


class Look(StrEnum):
    """How a series is drawn. LIMIT: short horizontal dashes. SPAN: thick lines, None between two of them."""

    POINTS = "points"
    LINE = "line"
    STEPS = "steps"
    LIMIT = "limit"
    SPAN = "span"
    BARS = "bars"


@dataclass(frozen=True)
class Axis:
    """One axis; `unit` is s, h, tok/s, req/s, ratio, or nothing. `labels` replace the numbers 0, 1, 2, ...

    `ticks`: the only places that are labelled, with their numbers.
    """

    title: str
    unit: str = ""
    is_log: bool = False
    is_reversed: bool = False
    labels: tuple[str, ...] = ()
    ticks: tuple[float, ...] = ()


@dataclass(frozen=True)
class Series:
    """Marks of one kind. `x_low`, `x_high`, `y_low`, `y_high`: intervals, where they are known.

    `trials`: the trial each mark belongs to, if they do to any. `colour`: its place in the palette.
    """

    name: str
    look: Look
    x: Sequence[Number]
    y: Sequence[Number]
    colour: int = 0
    symbol: str = "circle"
    trials: Sequence[int | None] = ()
    x_low: Sequence[Number] = ()
    x_high: Sequence[Number] = ()
    y_low: Sequence[Number] = ()
    y_high: Sequence[Number] = ()


@dataclass(frozen=True)
class Limit:
    """A line across the whole chart at a value of one axis (`x` or `y`)."""

    name: str
    axis: str
    value: float


@dataclass(frozen=True)
class Chart:
    """One picture; `key` tells it from the others of its plot, in any language, in letters fit for a file.

    `unplaced` are trials without a place on it, which stand on a strip below: at `unplaced_x` (None
    where it is not known), or in a row without it.
    """

    key: str
    name: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    limits: tuple[Limit, ...] = ()
    unplaced: tuple[int, ...] = ()
    unplaced_x: tuple[Number, ...] = ()

    def values(self, axis: str) -> list[float]:
        """Return every number on an axis (`x` or `y`)."""
        numbers = [value for series in self.series for value in getattr(series, axis)]
        strip = self.unplaced_x if axis == "x" else ()
        limits = (limit.value for limit in self.limits if limit.axis == axis)
        return [value for value in (*numbers, *strip, *limits) if value is not None]

    def is_logarithmic(self, axis: str) -> bool:
        """Whether an axis is drawn logarithmically."""
        values, about = self.values(axis), self.x if axis == "x" else self.y
        is_wide = (
            about.unit in _MEASURED and min(values, default=0) > 0 and max(values) > _SPREAD * min(values)
        )
        return about.is_log or is_wide

    def scale(self, axis: str) -> tuple[float, str]:
        """Return what an axis's numbers are multiplied with to be read, and the unit they then have."""
        unit = (self.x if axis == "x" else self.y).unit
        largest = max((abs(value) for value in self.values(axis)), default=0.0)
        if unit == "ratio":
            return 100.0, "%"
        return (1000.0, "ms") if unit == "s" and 0 < largest < 1 else (1.0, unit)


@dataclass(frozen=True)
class Plot:
    """Charts of one kind, of which the page shows one at a time; `note` says how to read them."""

    key: str
    title: str
    note: str
    charts: tuple[Chart, ...]


def unit_of(metric: Metric) -> str:
    """Return the unit of a metric."""
    match metric:
        case Metric.TTFT | Metric.TPOT | Metric.ITL | Metric.E2E:
            return "s"
        case Metric.ERROR_RATIO:
            return "ratio"
        case Metric.OUTPUT_THROUGHPUT | Metric.TOTAL_THROUGHPUT:
            return "tok/s"
        case Metric.REQUEST_THROUGHPUT | Metric.GOODPUT:
            return "req/s"


def key_of(*parts: str | None) -> str:
    """Return a chart's key of its parts."""
    return "-".join(part.replace(" ", "-") for part in parts if part)


def quantity_text(quantity: Quantity) -> str:
    """Return what is measured, in the words of the SLO file."""
    return say("{what} at {load}", what=statistic_text(quantity), load=load_text(quantity.load))


def statistic_text(quantity: Quantity) -> str:
    """Return the metric and its statistic, `ttft p95`."""
    return f"{quantity.metric} {quantity.statistic or ''}".strip()


def load_text(load: str) -> str:
    """Return a load point's label in the language of the moment."""
    kind, number = load.split()
    if kind == "rate":
        return say("rate {number}", number=number)
    return say("concurrency {number}", number=number)


def quantity_axis(quantity: Quantity) -> Axis:
    """Return the axis of a quantity."""
    return Axis(quantity_text(quantity), unit_of(quantity.metric))
