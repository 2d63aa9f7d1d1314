"""One line of an SLO: a ceiling on, or an objective for, a statistic of a metric at a load point.

In: a line of text, or a `Measurement`. Out: `Ceiling`, `Objective`; the value and the margin. Pure.
`ttft p95 < 10s at concurrency 50`, `error_ratio < 0.1% at rate 4`, `maximise output_throughput at rate 4`.
Invariant: a limit always has a unit.
"""

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, GetJsonSchemaHandler, model_serializer, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from autotune.document import Frozen
from autotune.errors import did_you_mean
from autotune.metrics import LATENCIES, Measurement, Metric, Samples

WORST_MARGIN_RATIO = -10.0
_UNITS: Mapping[Metric, Mapping[str, float]] = {
    **{metric: {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0} for metric in LATENCIES},
    Metric.ERROR_RATIO: {"%": 0.01},
    Metric.OUTPUT_THROUGHPUT: {"tok/s": 1.0, "ktok/s": 1e3},
    Metric.TOTAL_THROUGHPUT: {"tok/s": 1.0, "ktok/s": 1e3},
    Metric.REQUEST_THROUGHPUT: {"req/s": 1.0},
    Metric.GOODPUT: {"req/s": 1.0},
}
_METRIC = r"(?P<metric>\w+)(?:\s+(?P<statistic>(?!at\b)\w[\w.]*))?"
_LOAD = r"\s+at\s+(?P<load>(?:concurrency|rate)\s+[\d.]+)"
_CEILING = re.compile(
    rf"{_METRIC}\s*(?P<sign><=?|>=?)\s*(?P<limit>\d+(?:\.\d+)?)\s*(?P<unit>[a-zA-Z%/]*){_LOAD}"
)
_OBJECTIVE = re.compile(rf"(?P<direction>maximi[sz]e|minimi[sz]e)\s+{_METRIC}{_LOAD}")
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")
_CEILING_EXAMPLE = "write it like 'ttft p95 < 10s at concurrency 50'"


class Quantity(Frozen):
    """A statistic of a metric at a load point; the statistic is None for rates and ratios."""

    metric: Metric
    statistic: str | None
    load: str

    @property
    def percent(self) -> float | None:
        """95.0 for p95, None for mean, min, max and rates."""
        found = _PERCENTILE.fullmatch(self.statistic or "")
        return float(found[1]) if found else None

    def of(self, measurement: Measurement, limits_s: dict[Metric, float]) -> float | None:
        """Return the value (seconds, per second, or a ratio), None if nothing was measured.

        A failed request counts for as slow as the slowest that ended well.
        """
        match self.metric:
            case Metric.ERROR_RATIO:
                return measurement.error_ratio
            case Metric.GOODPUT:
                return measurement.goodput_rps(limits_s)
            case Metric.OUTPUT_THROUGHPUT | Metric.TOTAL_THROUGHPUT | Metric.REQUEST_THROUGHPUT:
                return measurement.rate(self.metric)
            case _:
                samples = measurement.samples(self.metric)
                if not len(samples.values):
                    return None
                return self.statistic_of(samples.with_failed(float(samples.values.max())))

    def statistic_of(self, samples: Samples) -> float | None:
        """Return the statistic of latency samples in seconds, None if there are none."""
        if not len(samples.values):
            return None
        if self.percent is not None:
            return samples.percentile(self.percent)
        match self.statistic:
            case "mean":
                return float(samples.values.mean())
            case "min":
                return float(samples.values.min())
            case _:
                return float(samples.values.max())

    def __str__(self) -> str:
        return " ".join(part for part in (self.metric, self.statistic, "at", self.load) if part)


class _Line(Frozen):
    """What is written as one line of text, and read back from it."""

    example: ClassVar[str]

    text: str
    quantity: Quantity

    @classmethod
    @abstractmethod
    def parse(cls, text: str) -> dict[str, Any]:
        """Return the fields that a text stands for."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return cls.parse(value) if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "examples": [cls.example]}

    @model_serializer
    def _to_text(self) -> str:
        return self.text


class Ceiling(_Line):
    """One line of the SLO; `limit` is in seconds, per second, or a ratio. Floors are turned round."""

    example = "ttft p95 < 10s at concurrency 50"

    is_floor: bool
    limit: float = Field(gt=0)

    @classmethod
    def parse(cls, text: str) -> dict[str, Any]:
        """Return a ceiling's fields."""
        return parse_ceiling(text)

    def margin_ratio(self, value: float | None) -> float:
        """Return the room left as a share of the limit; negative if missed, at worst -10."""
        if value is None:
            return WORST_MARGIN_RATIO
        room = (value - self.limit) if self.is_floor else (self.limit - value)
        return max(room / self.limit, WORST_MARGIN_RATIO)


class Objective(_Line):
    """What is optimised among candidates whose ceilings are met."""

    example = "maximise output_throughput at concurrency 50"

    direction: Literal["maximise", "minimise"]

    @classmethod
    def parse(cls, text: str) -> dict[str, Any]:
        """Return an objective's fields."""
        return parse_objective(text)


def parse_ceiling(text: str) -> dict[str, Any]:
    """Return the fields of a ceiling.

    Raises:
        ValueError: not in the grammar, an unknown metric or statistic, or no unit.
    """
    found = _CEILING.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"not a ceiling; {_CEILING_EXAMPLE}")
    quantity = _quantity(found)
    units = _UNITS[quantity.metric]
    if found["unit"] not in units:
        wrong = f"unknown unit {found['unit']!r}" if found["unit"] else "the limit has no unit"
        raise ValueError(f"{wrong}; {quantity.metric} takes {', '.join(units)}")
    limit = float(found["limit"]) * units[found["unit"]]
    return {
        "text": " ".join(text.split()),
        "quantity": quantity,
        "is_floor": found["sign"].startswith(">"),
        "limit": limit,
    }


def parse_objective(text: str) -> dict[str, Any]:
    """Return the fields of an objective.

    Raises:
        ValueError: not in the grammar, or an unknown metric or statistic.
    """
    found = _OBJECTIVE.fullmatch(text.strip())
    if found is None:
        raise ValueError("not an objective; write it like 'maximise output_throughput at concurrency 50'")
    direction = "maximise" if found["direction"].startswith("max") else "minimise"
    return {"text": " ".join(text.split()), "quantity": _quantity(found), "direction": direction}


def _quantity(found: re.Match[str]) -> Quantity:
    name, statistic = found["metric"], found["statistic"]
    if name not in set(Metric):
        hint = did_you_mean(name, Metric) or f"Known: {', '.join(Metric)}."
        raise ValueError(f"unknown metric {name!r}. {hint}")
    metric = Metric(name)
    is_statistic = statistic in ("mean", "min", "max") or _PERCENTILE.fullmatch(statistic or "")
    if metric in LATENCIES and not is_statistic:
        raise ValueError(f"{metric} needs a statistic: mean, min, max or a percentile such as p95")
    if metric not in LATENCIES and statistic:
        raise ValueError(f"{metric} takes no statistic ({statistic!r})")
    return Quantity(metric=metric, statistic=statistic, load=_normal_load(found["load"]))


def _normal_load(text: str) -> str:
    kind, number = text.split()
    return f"{kind} {float(number):g}"
