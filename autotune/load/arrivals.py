"""Load points: how many requests are offered and when. Pure.

In: one `load` entry of an SLO file. Out: a `LoadPoint` and, for open loop, the due time of every request on
an absolute schedule that starts at 0.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from autotune.document import Frozen


class LoadPoint(Frozen):
    """One offered load: `concurrency` requests kept in flight, or `rate` requests per second (Poisson).

    It ends after `requests` requests or after `duration_s` seconds of dispatching, whichever was given.
    `warm_up` requests are sent before it, at the same concurrency, and thrown away.
    """

    concurrency: int | None = Field(default=None, ge=1)
    rate: float | None = Field(default=None, gt=0)
    arrivals: Literal["poisson", "constant"] | None = None
    requests: int | None = Field(default=None, ge=1)
    duration_s: float | None = Field(default=None, gt=0)
    warm_up: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_of_each(self) -> "LoadPoint":
        if (self.concurrency is None) == (self.rate is None):
            raise ValueError("give either concurrency (closed loop) or rate (open loop, requests/s)")
        if (self.requests is None) == (self.duration_s is None):
            raise ValueError("give either requests (a count) or duration_s (seconds)")
        if self.concurrency is not None and self.arrivals is not None:
            raise ValueError("arrivals belongs to a rate; a closed loop has none")
        return self

    @property
    def label(self) -> str:
        """How ceilings and reports name this point: `concurrency 50` or `rate 4`."""
        return f"concurrency {self.concurrency}" if self.rate is None else f"rate {self.rate:g}"

    @property
    def warm_up_requests(self) -> int:
        """How many requests are sent before the measurement; by default one wave, at most 16."""
        if self.warm_up is not None:
            return self.warm_up
        return min(self.concurrency or 4, 16)


def due_times_s(point: LoadPoint, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return when each of `count` open-loop requests is due, first at 0, in order.

    Poisson: exponential gaps scaled so that the total is exactly (count - 1) / rate, which leaves the
    conditional distribution of a Poisson process and removes the noise of its length.
    """
    if point.rate is None:
        raise ValueError("a closed loop has no due times")
    if point.arrivals == "constant" or count <= 1:
        return np.arange(count, dtype=np.float64) / point.rate
    gaps = generator.exponential(size=count - 1)
    gaps *= (count - 1) / point.rate / gaps.sum()
    return np.concatenate(([0.0], np.cumsum(gaps)))
