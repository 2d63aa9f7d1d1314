"""What one load point of one launch showed, and what a schedule says it should have shown.

In: a measured summary, or single numbers. Out: a `Case`, and the logarithms of its statistics by a replay.
Pure. Invariant: statistics are those of `metrics`: of the steady window where there is one, opening wave and
ramp left out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autotune.metrics import LEAST_WINDOW, Metric, PointSummary, opening_wave
from autotune.request import OfferedLoad
from autotune.simulator.replay import Served

Statistic: TypeAlias = tuple[Metric, str]
Vector = NDArray[np.float64]

_KEPT: tuple[Statistic, ...] = (
    (Metric.OUTPUT_THROUGHPUT, ""),
    (Metric.TTFT, "mean"),
    (Metric.TTFT, "p50"),
    (Metric.TTFT, "p90"),
    (Metric.TTFT, "p95"),
    (Metric.TPOT, "mean"),
    (Metric.TPOT, "p50"),
    (Metric.TPOT, "p95"),
    (Metric.E2E, "mean"),
    (Metric.E2E, "p95"),
)
_LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class Case:
    """One load on one launch. `shown`: what was measured, in seconds or per second, all above zero.

    `label` names it in reports; `trial` is its launch, `None` if it has no number. `whole`: the statistics
    are those of all requests and the whole time, not of the steady window.
    """

    label: str
    trial: int | None
    argv: tuple[str, ...]
    load: OfferedLoad
    shown: Mapping[Statistic, float]
    whole: bool = False

    @property
    def weights(self) -> Vector:
        """One weight a statistic: those of one metric say much the same and count as one together."""
        metrics = [metric for metric, _ in self.shown]
        return np.array([metrics.count(metric) ** -0.5 for metric in metrics])

    @property
    def logs(self) -> Vector:
        """The logarithms of what was measured."""
        return np.asarray(np.log(np.array(list(self.shown.values()))))

    def expected(self, served: Served) -> Vector:
        """Return the logarithms of the same statistics by a replay."""
        return np.asarray(np.log(np.maximum(statistics(served, self.shown, whole=self.whole), _LEAST)))


def shown_by(summary: PointSummary) -> dict[Statistic, float]:
    """Return the statistics of a measured summary that a fit can use."""
    told = ((key, summary.value(key[0], key[1] or None)) for key in _KEPT)
    return {key: value for key, value in told if value is not None and value > 0}


def statistics(served: Served, wanted: Iterable[Statistic], *, whole: bool = False) -> Vector:
    """Return statistics of a replay: `mean`, `min`, `max`, `pNN` of a latency, or a throughput."""
    window = _Window.everything(served) if whole else _Window.of(served)
    samples: dict[Metric, Vector] = {}
    found = []
    for metric, statistic in wanted:
        if metric in _RATES:
            found.append(window.rate(metric))
            continue
        if metric not in samples:
            samples[metric] = np.sort(window.samples(metric))
        found.append(_statistic(samples[metric], statistic))
    return np.array(found)


_RATES = frozenset({Metric.OUTPUT_THROUGHPUT, Metric.TOTAL_THROUGHPUT, Metric.REQUEST_THROUGHPUT})


@dataclass(frozen=True)
class _Window:
    """The requests whose latencies count, and the time over which rates are taken."""

    served: Served
    steady: NDArray[np.bool_]
    begin_s: float
    end_s: float

    @classmethod
    def everything(cls, served: Served) -> "_Window":
        """Return all requests and the time until the last ended."""
        ended = served.sent_s + served.e2e_s
        return cls(served, np.ones(len(ended), dtype=bool), 0.0, float(ended.max(initial=0.0)))

    @classmethod
    def of(cls, served: Served) -> "_Window":
        """Return the window that `metrics.measure` takes."""
        sent, ended = served.sent_s, served.sent_s + served.e2e_s
        opening = opening_wave(len(sent), served.schedule.concurrency)
        if not opening:
            return cls.everything(served)
        order = np.argsort(sent, kind="stable")
        begin_s, end_s = max(float(ended.min()), float(sent[order[opening - 1]])), float(sent[order[-1]])
        if end_s - begin_s <= LEAST_WINDOW * _statistic(np.sort(served.e2e_s), "p50"):
            return cls.everything(served)
        steady = np.zeros(len(sent), dtype=bool)
        steady[order[opening:]] = True
        return cls(served, steady, begin_s, end_s)

    def samples(self, metric: Metric) -> Vector:
        """Return a latency of each steady request; gaps between tokens are taken to be even."""
        match metric:
            case Metric.TTFT:
                return self.served.ttft_s[self.steady]
            case Metric.E2E:
                return self.served.e2e_s[self.steady]
            case _:
                gaps = self.served.schedule.output_tokens - 1
                known = self.steady & (gaps > 0)
                return (self.served.e2e_s - self.served.ttft_s)[known] / gaps[known]

    def rate(self, metric: Metric) -> float:
        """Return a throughput per second of the window."""
        tokens = self.served.output_rate(self.begin_s, self.end_s)
        if metric is Metric.OUTPUT_THROUGHPUT:
            return tokens
        ended = self.served.sent_s + self.served.e2e_s
        inside = (ended > self.begin_s) & (ended <= self.end_s)
        length_s = max(self.end_s - self.begin_s, _LEAST)
        if metric is Metric.REQUEST_THROUGHPUT:
            return float(inside.sum()) / length_s
        return tokens + float(self.served.schedule.input_tokens[inside].sum()) / length_s


def _statistic(ordered: Vector, statistic: str) -> float:
    """Return a statistic of samples in order; numpy's own percentile takes far longer than the replay."""
    if not len(ordered):
        return 0.0
    match statistic:
        case "mean":
            return float(ordered.mean())
        case "min":
            return float(ordered[0])
        case "max":
            return float(ordered[-1])
        case _:
            place = (len(ordered) - 1) * float(statistic.removeprefix("p")) / 100
            below = int(place)
            above = min(below + 1, len(ordered) - 1)
            return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))
