"""Load points: how many requests are offered and when. Reads a trace if one is replayed, else pure.

In: one `load` entry of an SLO file. Out: a `LoadPoint` and, for open loop, the due time of every request on
an absolute schedule that starts at 0.
All open loops are one construction: gaps with mean 1 give the times of a process of rate 1, and those are
carried through the inverse of the expected count of arrivals by then, which is a line for a steady rate and a
chain of lines for steps. Gaps are scaled so that the last request is due exactly where it is expected.
"""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, model_validator

from autotune.document import Frozen
from autotune.errors import ConfigError, Problem
from autotune.load.trace import read_trace, trace_rate_rps

_ROUNDING = 1e-12
"""50 requests/s in 1.1 s are 55.00000000000001, and 55."""


class LoadPoint(Frozen):
    """One offered load: `concurrency` requests kept in flight, or `rate` requests per second.

    It ends after `requests` requests or after `duration_s` seconds of dispatching, whichever was given.
    `warm_up` requests are sent before it, at the same concurrency, and thrown away.
    Closed loop: the first requests start at once or, with `ramp_s`, spread evenly over that time.
    Open loop: gaps are exponential (Poisson), constant, gamma with shape `burstiness` (1 is Poisson, below
    it bursts, above it evener), or those of the `trace`, sped up or slowed down to `rate` on the mean.
    With `steps`, the rate goes from one to the next after equal times, and `rate` is the highest.
    """

    concurrency: int | None = Field(default=None, ge=1)
    rate: float | None = Field(default=None, gt=0)
    arrivals: Literal["poisson", "constant", "gamma"] | None = None
    burstiness: float | None = Field(default=None, gt=0)
    ramp_s: float | None = Field(default=None, gt=0)
    steps: tuple[PositiveFloat, ...] | None = Field(default=None, min_length=2)
    trace: Path | None = None
    requests: int | None = Field(default=None, ge=1)
    duration_s: float | None = Field(default=None, gt=0)
    warm_up: int | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _rate_of_steps(cls, data: Any) -> Any:
        """Steps bring their rate along, the highest of them."""
        if (
            isinstance(data, dict)
            and data.get("rate") is None
            and isinstance(data.get("steps"), list | tuple)
        ):
            numbers = [step for step in data["steps"] if isinstance(step, int | float)]
            return data | {"rate": max(numbers, default=None)}
        return data

    @model_validator(mode="after")
    def _one_of_each(self) -> "LoadPoint":
        if (self.concurrency is None) == (self.rate is None):
            raise ValueError("give either concurrency (closed loop) or rate (open loop, requests/s)")
        if (self.requests is None) == (self.duration_s is None):
            raise ValueError("give either requests (a count) or duration_s (seconds)")
        if self.concurrency is not None and self.arrivals is not None:
            raise ValueError("arrivals belongs to a rate; a closed loop has none")
        if self.concurrency is not None and (self.burstiness or self.steps or self.trace):
            raise ValueError("burstiness, steps and trace belong to a rate; a closed loop has none")
        if self.rate is not None and self.ramp_s is not None:
            raise ValueError("ramp_s belongs to a concurrency; a rate climbs by steps")
        return self

    @model_validator(mode="after")
    def _one_kind_of_arrival(self) -> "LoadPoint":
        if (self.burstiness is not None) != (self.arrivals == "gamma"):
            raise ValueError("arrivals: gamma and its burstiness belong together (1 is Poisson)")
        if self.trace is not None and (self.arrivals or self.steps):
            raise ValueError("a trace brings its own arrivals and steps")
        if self.steps is not None and self.rate != max(self.steps):
            raise ValueError("rate is the highest of the steps; leave it out")
        return self

    @property
    def label(self) -> str:
        """How ceilings and reports name this point: `concurrency 50` or `rate 4`."""
        return f"concurrency {self.concurrency}" if self.rate is None else f"rate {self.rate:g}"

    @property
    def mean_rate_rps(self) -> float:
        """Requests per second over the whole of an open loop, 0 for a closed one."""
        return float(np.mean(self.steps)) if self.steps else self.rate or 0.0

    def due_within(self, duration_s: float) -> int:
        """Return how many requests an open loop sends in less than that time, but for rounding."""
        return math.ceil(duration_s * self.mean_rate_rps * (1 - _ROUNDING))

    @property
    def warm_up_requests(self) -> int:
        """How many requests are sent before the measurement; by default one wave, at most 16."""
        if self.warm_up is not None:
            return self.warm_up
        return min(self.concurrency or 4, 16)


def due_times_s(point: LoadPoint, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return when each of `count` open-loop requests is due, first at 0, in order.

    The total is exactly the expected one ((count - 1) / rate at a steady rate), which leaves the conditional
    distribution of a Poisson process and removes the noise of its length.

    Raises:
        ConfigError: the trace cannot be read, or has fewer requests.
        ValueError: the point is a closed loop.
    """
    if point.rate is None:
        raise ValueError("a closed loop has no due times")
    if point.trace is not None:
        return _replayed_s(point.trace, point.rate, count)
    arrived = _unit_arrivals(point, count, generator)
    if point.steps is None:
        return arrived / point.rate
    return _climbed_s(arrived, point.steps, count if point.requests else None, point.duration_s)


def _unit_arrivals(point: LoadPoint, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return `count` arrivals of rate 1, the first at 0 and the last at `count - 1`."""
    if point.arrivals == "constant" or count <= 1:
        return np.arange(count, dtype=np.float64)
    shape = point.burstiness
    gaps = generator.exponential(size=count - 1) if shape is None else generator.gamma(shape, size=count - 1)
    total = gaps.sum()
    if not total:  # a tiny shape draws gaps that no float can hold: all but one request come together
        gaps[-1] = total = 1.0
    return np.concatenate(([0.0], np.cumsum(gaps * ((count - 1) / total))))


def _climbed_s(
    arrived: NDArray[np.float64], steps: tuple[float, ...], count: int | None, duration_s: float | None
) -> NDArray[np.float64]:
    """Carry arrivals of rate 1 to the times at which as many are expected; all steps last equally long."""
    each_s = (duration_s or 0.0) / len(steps) if count is None else count / sum(steps)
    expected = np.concatenate(([0.0], np.cumsum(np.array(steps) * each_s)))
    due_s: NDArray[np.float64] = np.interp(arrived, expected, np.arange(len(steps) + 1) * each_s)
    return due_s


def _replayed_s(path: Path, rate: float, count: int) -> NDArray[np.float64]:
    rows = read_trace(path)
    if count > len(rows):
        raise ConfigError([Problem(f"has {len(rows)} requests, {count} were asked", path)])
    times_s = np.array([row.at_s for row in rows[:count]], dtype=np.float64)
    return times_s * (trace_rate_rps(rows) / rate)
