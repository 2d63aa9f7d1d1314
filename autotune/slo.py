"""The promise to users: workload, load points, ceilings, objectives; and the verdict on a measurement.

In: `slo/*.yaml` and `Measurement`s. Out: `Slo`, `Verdict`. Pure.
A ceiling is one line: `ttft p95 < 10s at concurrency 50`, `error_ratio < 0.1% at rate 4`,
`output_throughput > 900tok/s at concurrency 50`. Invariant: a limit always has a unit.
"""

import math
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, model_serializer, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from autotune.document import Frozen
from autotune.errors import did_you_mean
from autotune.interval import share_interval
from autotune.load.arrivals import LoadPoint
from autotune.load.workload import Workload
from autotune.metrics import LATENCIES, Measurement, Metric

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
        """Return the measured value (seconds, per second, or a ratio), None if nothing was measured."""
        match self.metric:
            case Metric.ERROR_RATIO:
                return measurement.error_ratio
            case Metric.GOODPUT:
                return measurement.goodput_rps(limits_s)
            case Metric.OUTPUT_THROUGHPUT | Metric.TOTAL_THROUGHPUT | Metric.REQUEST_THROUGHPUT:
                return measurement.rate(self.metric)
            case _:
                return self._latency_s(measurement)

    def _latency_s(self, measurement: Measurement) -> float | None:
        values = measurement.samples(self.metric).values
        if not len(values):
            return None
        if self.percent is not None:
            return measurement.samples(self.metric).percentile(self.percent)
        match self.statistic:
            case "mean":
                return float(values.mean())
            case "min":
                return float(values.min())
            case _:
                return float(values.max())

    def __str__(self) -> str:
        return " ".join(part for part in (self.metric, self.statistic, "at", self.load) if part)


class Ceiling(Frozen):
    """One line of the SLO; `limit` is in seconds, per second, or a ratio. Floors are turned round."""

    text: str
    quantity: Quantity
    is_floor: bool
    limit: float = Field(gt=0)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return parse_ceiling(value) if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "examples": ["ttft p95 < 10s at concurrency 50"]}

    @model_serializer
    def _to_text(self) -> str:
        return self.text

    def margin_ratio(self, value: float | None) -> float:
        """Return the room left as a share of the limit; negative if missed, at worst -10."""
        if value is None:
            return -10.0
        room = (value - self.limit) if self.is_floor else (self.limit - value)
        return max(room / self.limit, -10.0)


class Objective(Frozen):
    """What is optimised among candidates whose ceilings are met."""

    text: str
    quantity: Quantity
    direction: Literal["maximise", "minimise"]

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return parse_objective(value) if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "examples": ["maximise output_throughput at concurrency 50"]}

    @model_serializer
    def _to_text(self) -> str:
        return self.text


class Slo(Frozen):
    """Workload, load points, ceilings and one or several objectives."""

    workload: Workload
    load: tuple[LoadPoint, ...] = Field(min_length=1)
    ceilings: tuple[Ceiling, ...] = ()
    objective: Objective | None = None
    objectives: tuple[Objective, ...] = ()

    @model_validator(mode="after")
    def _parts_refer_to_each_other(self) -> Self:
        if (self.objective is None) == (not self.objectives):
            raise ValueError("give either objective (one line) or objectives (a list)")
        labels = [point.label for point in self.load]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two load points are both {label!r}")
        for ceiling in self.ceilings:
            _refuse_unknown_load(ceiling.text, ceiling.quantity.load, labels)
        for goal in self.goals:
            _refuse_unknown_load(goal.text, goal.quantity.load, labels)
        return self

    @property
    def goals(self) -> tuple[Objective, ...]:
        """The objectives, at least one."""
        return self.objectives if self.objective is None else (self.objective,)

    def request_limits_s(self, load: str) -> dict[Metric, float]:
        """Return the per-request ceilings at a load point, which define its goodput."""
        return {
            ceiling.quantity.metric: ceiling.limit
            for ceiling in self.ceilings
            if ceiling.quantity.load == load
            and ceiling.quantity.metric in (Metric.TTFT, Metric.TPOT, Metric.E2E)
        }


class Decision(StrEnum):
    """What a ceiling's data say."""

    MET = "met"
    MISSED = "missed"
    UNDECIDED = "undecided"


class CeilingVerdict(Frozen):
    """A ceiling against a measurement.

    `value` and `limit` as in the ceiling (s, per s, ratio); value None if nothing was seen. `samples` counts
    requests or gaps. `share_over` and `independent_samples` are kept for percentiles, so that the verdicts of
    several launches can be pooled.
    """

    ceiling: str
    decision: Decision
    value: float | None
    limit: float
    margin_ratio: float
    samples: int
    share_over: float | None = None
    independent_samples: float | None = None


class Verdict(Frozen):
    """The ceilings of the load points that were measured."""

    ceilings: tuple[CeilingVerdict, ...]

    @property
    def decision(self) -> Decision:
        """Missed if any ceiling is, met if all are."""
        decisions = {ceiling.decision for ceiling in self.ceilings}
        for decision in (Decision.MISSED, Decision.UNDECIDED):
            if decision in decisions:
                return decision
        return Decision.MET

    @property
    def binding(self) -> CeilingVerdict | None:
        """The ceiling with the least room, None if there are no ceilings."""
        return min(self.ceilings, key=lambda ceiling: ceiling.margin_ratio, default=None)


def judge(slo: Slo, measurements: Mapping[str, Measurement], *, error_rate: float = 0.05) -> Verdict:
    """Return the verdict on the load points that were measured, by label.

    A percentile ceiling is a statement about the share of samples over its limit: it is decided when the
    exact binomial interval of that share, wrong with at most `error_rate`, lies on one side. Everything
    else is decided by its value.
    """
    return Verdict(
        ceilings=tuple(
            _judge_ceiling(ceiling, measurements[ceiling.quantity.load], slo, error_rate)
            for ceiling in slo.ceilings
            if ceiling.quantity.load in measurements
        )
    )


def pool(verdicts: Sequence[Verdict], slo: Slo, *, error_rate: float = 0.05) -> Verdict:
    """Return one verdict over several launches of one candidate.

    The value of a ceiling is the worst one. A launch that missed decides; otherwise a percentile is decided
    on the pooled share, and everything else is met only if every launch met it.
    """
    pooled = []
    for ceiling in slo.ceilings:
        each = [
            judged for verdict in verdicts for judged in verdict.ceilings if judged.ceiling == ceiling.text
        ]
        if each:
            pooled.append(_pool_ceiling(ceiling, each, error_rate))
    return Verdict(ceilings=tuple(pooled))


def _judge_ceiling(ceiling: Ceiling, measurement: Measurement, slo: Slo, error_rate: float) -> CeilingVerdict:
    quantity = ceiling.quantity
    value = quantity.of(measurement, slo.request_limits_s(quantity.load))
    margin = ceiling.margin_ratio(value)
    decision = Decision.MET if margin >= 0 else Decision.MISSED
    share = independent = None
    samples = len(measurement.records)
    if quantity.metric in LATENCIES:
        latencies = measurement.samples(quantity.metric)
        samples = len(latencies.values)
        if samples and quantity.percent is not None:
            share, independent = latencies.share_over(ceiling.limit)
            decision = _decide_share(ceiling, share, independent, error_rate)
    return CeilingVerdict(
        ceiling=ceiling.text,
        decision=decision,
        value=value,
        limit=ceiling.limit,
        margin_ratio=margin,
        samples=samples,
        share_over=share,
        independent_samples=independent,
    )


def _pool_ceiling(ceiling: Ceiling, each: Sequence[CeilingVerdict], error_rate: float) -> CeilingVerdict:
    worst = min(each, key=lambda judged: judged.margin_ratio)
    independent = sum(judged.independent_samples or 0.0 for judged in each)
    decision = worst.decision
    share = None
    if any(judged.decision is Decision.MISSED for judged in each):
        decision = Decision.MISSED
    elif independent:
        hits = sum((judged.share_over or 0.0) * (judged.independent_samples or 0.0) for judged in each)
        share = hits / independent
        decision = _decide_share(ceiling, share, independent, error_rate)
    return worst.model_copy(
        update={
            "decision": decision,
            "samples": sum(judged.samples for judged in each),
            "share_over": share,
            "independent_samples": independent or None,
        }
    )


def _decide_share(ceiling: Ceiling, share: float, independent: float, error_rate: float) -> Decision:
    """Decide `pNN < limit`: at most 1 - NN/100 of the samples lie over the limit (a floor: at least)."""
    interval = share_interval(share * independent, independent, error_rate=error_rate)
    allowed = 1 - (ceiling.quantity.percent or 0.0) / 100
    below, above = interval.high <= allowed, interval.low > allowed
    if ceiling.is_floor:
        below, above = above, below
    if below:
        return Decision.MET
    return Decision.MISSED if above else Decision.UNDECIDED


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


def _refuse_unknown_load(text: str, load: str, labels: list[str]) -> None:
    if load not in labels:
        raise ValueError(f"{text!r} names no load point of this file; there are {', '.join(labels)}")


def violation(verdict: CeilingVerdict) -> float:
    """Return the signed violation that Optuna takes as a constraint: at most 0 if and only if met.

    An undecided ceiling counts by its measured value.
    """
    return -verdict.margin_ratio if math.isfinite(verdict.margin_ratio) else 10.0
