"""How much better one contender is than another in one objective, from fresh launches alone. Pure.

In: the values of an objective, per contender one a launch. Out: `LaunchModel`, which gives the `Gain` of any
contender over any other. Invariant: what the launches cannot tell is None, never zero.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotune.document import Frozen
from autotune.interval import student_quantile
from autotune.search.confirmation import Place
from autotune.slo import Objective


class Gain(Frozen):
    """One objective relative to another contender's: 0.1 is 10 % better, whichever way better is.

    The interval holds for all comparisons of an answer at once.
    """

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class LaunchModel:
    """The means of the logarithms, and the variance from launch to launch that all contenders share.

    Student's quantile is corrected for the number of comparisons.
    """

    means: Mapping[int, float]
    launches: Mapping[int, int]
    variance: float
    quantile: float
    sign: float

    def span(self, number: int) -> tuple[float, float] | None:
        """Return the interval of a contender's own value, None if the launches do not tell."""
        if math.isnan(self.quantile) or number not in self.means:
            return None
        reach = self.quantile * math.sqrt(self.variance / self.launches[number])
        return math.exp(self.means[number] - reach), math.exp(self.means[number] + reach)

    def gain(self, number: int, over: int) -> Gain | None:
        """Return the gain of one contender over another, None if the launches do not tell."""
        if math.isnan(self.quantile) or not {number, over} <= self.means.keys():
            return None
        middle = self.sign * (self.means[number] - self.means[over])
        spread = self.variance * (1 / self.launches[number] + 1 / self.launches[over])
        reach = self.quantile * math.sqrt(spread)
        low, estimate, high = (math.expm1(middle + side * reach) for side in (-1, 0, 1))
        return Gain(estimate=estimate, low=low, high=high)


def fit(
    values: Mapping[int, Sequence[float]],
    objective: Objective,
    *,
    error_rate: float,
    comparisons: int,
    places: Mapping[int, Sequence[Place]] | None = None,
) -> LaunchModel:
    """Return the one-way model of the logarithms of an objective.

    `places`: where each value was measured. Every contender was launched as often on each of them, so what a
    place adds to all of them is taken off, at the price of a degree of freedom.

    Student's t with Bonferroni's correction for the number of comparisons. One value per contender leaves
    no degree of freedom, hence no gain; a contender with a value that is not positive has none either.
    """
    plain = {number: np.log(each) for number, each in values.items() if each and min(each) > 0}
    logs, effects = _levelled(plain, places or {})
    freedom = max(sum(len(log) - 1 for log in logs.values()) - effects, 0)
    squares = sum(float(((log - log.mean()) ** 2).sum()) for log in logs.values())
    side = error_rate / 2 / max(comparisons, 1)
    return LaunchModel(
        means={number: float(log.mean()) for number, log in logs.items()},
        launches={number: len(log) for number, log in logs.items()},
        variance=squares / freedom if freedom else math.nan,
        quantile=student_quantile(1 - side, freedom) if freedom else math.nan,
        sign=1.0 if objective.direction == "maximise" else -1.0,
    )


def _levelled(
    logs: Mapping[int, NDArray[np.float64]], places: Mapping[int, Sequence[Place]]
) -> tuple[Mapping[int, NDArray[np.float64]], int]:
    """Return the logarithms without what each place adds to all, and how many such effects were estimated."""
    off: dict[Place, list[float]] = {}
    for number, log in logs.items():
        for place, each in zip(places.get(number, ()), log - log.mean(), strict=False):
            off.setdefault(place, []).append(float(each))
    if len(off) <= 1:
        return logs, 0
    effects = {place: float(np.mean(each)) for place, each in off.items()}
    levelled = {
        number: log - np.array([effects[each] for each in places[number]]) for number, log in logs.items()
    }
    return levelled, len(effects) - 1
