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
    """One picture; `unplaced` are trials without a place on it, which the page shows on a strip below."""

    name: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    limits: tuple[Limit, ...] = ()
    unplaced: tuple[int, ...] = ()


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
