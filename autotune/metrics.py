"""Raw request records to a measurement: latency samples, rates, error ratio.

Pure; the only place where samples become metrics. Latencies of a request are those of `latency`.

Rates are per second of the window: output_throughput = tokens that arrived in it, request_throughput =
requests that ended well in it, total_throughput = tokens that arrived and prompts of requests that ended well
in it, goodput = requests that ended well in it within every limit given. error_ratio = failed / sent.
Open loop: ttft and e2e count from the scheduled time, so that a late client or engine cannot hide a queue.
Steady window of a closed loop with at least two waves: from the first completion, or the end of the opening
wave if that is later, to the last dispatch. The opening wave (as many requests as there are slots, those that
were sent first) is left out of the latencies. Percentiles interpolate linearly.

Failed requests have no latency. A summary's latencies are those of the requests that ended well; whoever
judges or compares adds the failed ones of the same window (`Samples.with_failed`), with a value that suits
the purpose, so that nothing looks fast by dropping what is slow. With f failed and m good requests, of whose
N samples h are over a limit, the share over it is (h + f N/m) / (N + f N/m). Requests that we stopped
ourselves are not among the failed.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autotune.document import Frozen
from autotune.interval import SeenShare, autocorrelation_time, percentile_interval
from autotune.latency import e2e_s, has_latency, token_gaps_s, tpot_s, ttft_s
from autotune.request import RequestFailureKind, RequestRecord


class Metric(StrEnum):
    """What can be limited or optimised."""

    TTFT = "ttft"
    TPOT = "tpot"
    ITL = "itl"
    E2E = "e2e"
    ERROR_RATIO = "error_ratio"
    OUTPUT_THROUGHPUT = "output_throughput"
    TOTAL_THROUGHPUT = "total_throughput"
    REQUEST_THROUGHPUT = "request_throughput"
    GOODPUT = "goodput"


_NOTHING = np.empty(0, dtype=np.int64)
_ABOVE = 1 + 1e-6
"""What is above a value by more than rounding."""
_FAR = 2.0
"""Chosen: of samples that come in clumps, with their percentile at the limit, one lies above half of it."""
LATENCIES = (Metric.TTFT, Metric.TPOT, Metric.ITL, Metric.E2E)


@dataclass(frozen=True, eq=False)
class Samples:
    """Latency samples in seconds; `owner[i]` is the request that sample i belongs to.

    `failed`: the requests of the same window that failed and so left no sample.
    """

    values: NDArray[np.float64]
    owner: NDArray[np.int64]
    failed: NDArray[np.int64] = field(default_factory=lambda: _NOTHING)

    def with_failed(self, value_s: float) -> "Samples":
        """Return the samples with those of the failed requests, all of them `value_s`.

        A failed request stands for as many samples as a good one has on average.
        """
        if not len(self.failed):
            return self
        each = max(round(len(self.values) / max(_distinct(self.owner), 1)), 1)
        return Samples(
            np.append(self.values, np.full(each * len(self.failed), value_s)),
            np.append(self.owner, np.repeat(self.failed, each)),
        )

    def followed_by(self, requests: int, value_s: float) -> "Samples":
        """Return the samples with those of so many more requests, all of them `value_s`."""
        first = int(self.owner.max(initial=-1)) + 1
        return replace(self, failed=np.arange(first, first + requests)).with_failed(value_s)

    @property
    def requests(self) -> int:
        """How many requests left samples."""
        return _distinct(self.owner)

    @property
    def clumping(self) -> float:
        """How many requests in a row are worth one, by the autocorrelation of their latencies' ranks.

        Latencies within a microsecond are the same.
        """
        latencies_s = np.round(self._by_request(self.values), 6)
        _, places, counts = np.unique(latencies_s, return_inverse=True, return_counts=True)
        return autocorrelation_time((np.cumsum(counts) - counts / 2)[places])

    def share_over(self, limit_s: float, percent: float | None = None) -> SeenShare:
        """Return the share of samples over a limit, and how many independent samples it rests on.

        Samples of one request (its gaps) are correlated. With N samples of m requests, of which the worst
        has w samples over the limit, they are worth max(m, N / w) independent ones, and m if w = 0: hits are
        taken to come w at a time, the largest design effect that the data allow (Korn and Graubard 1998
        divide by an estimate of it, which falls when one more request has a hit).

        Requests that were prefilled together, or stood in the same queue, are slow together. `percent` is the
        percentile that the limit is for: then all that is divided by the autocorrelation time of the share
        over it from request to request, in the order in which they were sent. Where fewer samples lie over
        the limit than the percentile leaves, it is taken at the percentile itself: how the slowest come in
        clumps shows although they are fast enough. A limit of `_FAR` times the slowest sample or more is out
        of their reach: then requests count as they are.
        """
        over = self.values > limit_s
        requests = _distinct(self.owner)
        worst = float(np.bincount(self.owner, weights=over).max(initial=0.0))
        independent = max(requests, len(over) / worst) if worst else requests
        clump = 1.0
        if percent is not None and len(over) and limit_s < _FAR * self.values.max():
            tail = self.values > min(limit_s, self.percentile(percent) * _ABOVE)
            clump = autocorrelation_time(self._by_request(tail))
        share = float(over.mean()) if len(over) else 0.0
        return SeenShare(share, float(independent) / clump, requests / clump)

    def _by_request(self, weights: NDArray[np.bool_ | np.float64]) -> NDArray[np.float64]:
        """Return the mean of what each request's samples weigh, in the order of the requests."""
        counts = np.bincount(self.owner)
        sums = np.bincount(self.owner, weights=weights)
        shares: NDArray[np.float64] = sums[counts > 0] / counts[counts > 0]
        return shares

    def percentile(self, percent: float) -> float:
        """Return the percentile in seconds, linearly interpolated."""
        return float(np.percentile(self.values, percent))


class LatencySummary(Frozen):
    """What is kept of the latencies of requests that ended well; seconds.

    The interval is that of p95, None if it is open.
    """

    count: int
    mean: float
    minimum: float
    maximum: float
    p50: float
    p90: float
    p95: float
    p99: float
    p95_low: float | None
    p95_high: float | None


class PointSummary(Frozen):
    """A measurement without its samples: what reports and searches read."""

    sent: int
    succeeded: int
    failures: dict[str, int]
    window_s: float
    is_steady: bool
    ttft: LatencySummary | None
    tpot: LatencySummary | None
    itl: LatencySummary | None
    e2e: LatencySummary | None
    error_ratio: float
    output_throughput_tps: float
    total_throughput_tps: float
    request_throughput_rps: float
    cached_ratio: float

    def value(self, metric: Metric, statistic: str | None) -> float | None:
        """Return a stored statistic: mean, min, max, p50, p90, p95, p99 of a latency, or a rate."""
        rates = {
            Metric.ERROR_RATIO: self.error_ratio,
            Metric.OUTPUT_THROUGHPUT: self.output_throughput_tps,
            Metric.TOTAL_THROUGHPUT: self.total_throughput_tps,
            Metric.REQUEST_THROUGHPUT: self.request_throughput_rps,
        }
        if metric in rates:
            return rates[metric]
        if metric is Metric.GOODPUT:
            return None
        latency = getattr(self, metric.value)
        if not isinstance(latency, LatencySummary):
            return None
        field = {"min": "minimum", "max": "maximum"}.get(statistic or "", statistic or "")
        value = getattr(latency, field, None)
        return float(value) if isinstance(value, float | int) else None


@dataclass(frozen=True, eq=False)
class Measurement:
    """One load point, measured once or, after `join`, several times in a row.

    `steady`: the records whose latencies count. `windows_s`: start and end of what the rates are taken over.
    """

    records: tuple[RequestRecord, ...]
    steady: tuple[RequestRecord, ...]
    windows_s: tuple[tuple[float, float], ...]
    is_steady: bool
    is_open_loop: bool
    _samples: dict[Metric, Samples] = field(default_factory=dict, repr=False)

    @property
    def served(self) -> int:
        """How many requests ended well, the opening wave included."""
        return sum(record.failure is None for record in self.records)

    @property
    def error_ratio(self) -> float:
        """Failed requests over all that were sent, the opening wave included."""
        return (len(self.records) - self.served) / max(len(self.records), 1)

    def samples(self, metric: Metric) -> Samples:
        """Return a latency's samples over the good requests of the steady window, and which failed."""
        if metric not in self._samples:
            self._samples[metric] = self._gather(metric)
        return self._samples[metric]

    def rate(self, metric: Metric) -> float:
        """Return a throughput per second of the window: tokens by arrival, requests by completion."""
        match metric:
            case Metric.OUTPUT_THROUGHPUT:
                return self._per_second(self._output_tokens)
            case Metric.TOTAL_THROUGHPUT:
                prompts = self._completed(lambda record: record.input_tokens)
                return self._per_second(self._output_tokens + prompts)
            case Metric.REQUEST_THROUGHPUT:
                return self._per_second(self._completed(lambda _: 1))
            case _:
                raise ValueError(f"{metric} is not a rate of its own")

    def goodput_rps(self, limits_s: dict[Metric, float]) -> float:
        """Return requests per second that ended well within every limit (ttft, tpot, e2e)."""

        def is_good(record: RequestRecord) -> int:
            return int(all(_within(self._latency_s(record, each), limit) for each, limit in limits_s.items()))

        return self._per_second(self._completed(is_good))

    def summary(self) -> PointSummary:
        """Return what the storage keeps."""
        failures = Counter(
            f"{record.failure.kind}/{record.failure.phase}" for record in self.records if record.failure
        )
        prompt = sum(record.input_tokens for record in self.steady)
        cached = sum(record.cached_tokens or 0 for record in self.steady)
        return PointSummary(
            sent=len(self.records),
            succeeded=self.served,
            failures=dict(sorted(failures.items())),
            window_s=self._length_s,
            is_steady=self.is_steady,
            **{str(metric): _summarise(self.samples(metric)) for metric in LATENCIES},
            error_ratio=self.error_ratio,
            output_throughput_tps=self.rate(Metric.OUTPUT_THROUGHPUT),
            total_throughput_tps=self.rate(Metric.TOTAL_THROUGHPUT),
            request_throughput_rps=self.rate(Metric.REQUEST_THROUGHPUT),
            cached_ratio=cached / prompt if prompt else 0.0,
        )

    def _gather(self, metric: Metric) -> Samples:
        good = list(filter(has_latency, self.steady))
        failed = np.array([record.index for record in self.steady if _has_failed(record)], dtype=np.int64)
        if metric is Metric.ITL:
            return Samples(*token_gaps_s(good), failed)
        values = [(self._latency_s(record, metric), record.index) for record in good]
        known = [(value, index) for value, index in values if value is not None]
        return Samples(
            np.array([value for value, _ in known], dtype=np.float64),
            np.array([index for _, index in known], dtype=np.int64),
            failed,
        )

    def _latency_s(self, record: RequestRecord, metric: Metric) -> float | None:
        """Return one request's ttft, tpot or e2e; None for the tpot of a single token."""
        if metric is Metric.TPOT:
            return tpot_s(record)
        return (ttft_s if metric is Metric.TTFT else e2e_s)(record, from_scheduled=self.is_open_loop)

    @property
    def _length_s(self) -> float:
        return sum(end - start for start, end in self.windows_s)

    def _per_second(self, amount: float) -> float:
        return amount / self._length_s if self._length_s > 0 else 0.0

    @cached_property
    def _output_tokens(self) -> int:
        """Tokens that arrived within the windows, those of requests that failed later included."""
        return sum(_tokens_within(self.records, *window) for window in self.windows_s)

    def _completed(self, weight: Callable[[RequestRecord], int]) -> int:
        return sum(
            weight(record)
            for start, end in self.windows_s
            for record in self.records
            if record.failure is None and start < record.ended_s <= end
        )


LEAST_WINDOW = 0.5
"""A steady window is longer than this share of a usual request: waves in step end and start at once, and a
rate over the moment between two of them would be many times the engine's."""


def opening_wave(requests: int, concurrency: int | None) -> int:
    """Return how many of the requests of a load point are left out of its latencies."""
    return concurrency if concurrency is not None and requests >= 2 * concurrency else 0


def measure(records: Sequence[RequestRecord], *, concurrency: int | None) -> Measurement:
    """Return the measurement of one load point; `concurrency` None means open loop."""
    ordered = tuple(sorted(records, key=lambda record: record.index))
    whole = ((0.0, max((record.ended_s for record in ordered), default=0.0)),)
    opening = opening_wave(len(ordered), concurrency)
    if not opening:
        return Measurement(ordered, ordered, whole, is_steady=False, is_open_loop=concurrency is None)
    started = sorted(ordered, key=lambda record: (record.scheduled_s, record.index))
    first_end_s = min(record.ended_s for record in ordered)
    window = (max(first_end_s, started[opening - 1].scheduled_s), started[-1].scheduled_s)
    usual_s = float(np.median([record.ended_s - record.scheduled_s for record in ordered]))
    if window[1] - window[0] <= LEAST_WINDOW * usual_s:
        return Measurement(ordered, ordered, whole, is_steady=False, is_open_loop=False)
    return Measurement(ordered, tuple(started[opening:]), (window,), is_steady=True, is_open_loop=False)


def join(first: Measurement, second: Measurement) -> Measurement:
    """Return both as one measurement, the second placed after the first in time and in request numbers."""
    shift_s = max((record.ended_s for record in first.records), default=0.0)
    start = max((record.index for record in first.records), default=-1) + 1

    def later(record: RequestRecord) -> RequestRecord:
        return replace(
            record,
            index=record.index + start,
            scheduled_s=record.scheduled_s + shift_s,
            sent_s=None if record.sent_s is None else record.sent_s + shift_s,
            ended_s=record.ended_s + shift_s,
            chunk_times_s=record.chunk_times_s + shift_s,
        )

    return Measurement(
        records=(*first.records, *map(later, second.records)),
        steady=(*first.steady, *map(later, second.steady)),
        windows_s=(
            *first.windows_s,
            *((begin + shift_s, end + shift_s) for begin, end in second.windows_s),
        ),
        is_steady=first.is_steady and second.is_steady,
        is_open_loop=first.is_open_loop,
    )


def _tokens_within(records: Sequence[RequestRecord], start: float, end: float) -> int:
    """Return the tokens that arrived in (start, end]; all arrive after the request was due and by its end."""
    counts = [_NOTHING]
    for record in records:
        if record.scheduled_s > start and record.ended_s <= end:
            counts.append(record.chunk_tokens)
        elif record.ended_s > start and record.scheduled_s <= end:
            first, after = record.chunk_times_s.searchsorted((start, end), side="right").tolist()
            counts.append(record.chunk_tokens[first:after])
    return int(np.concatenate(counts).sum())


def _within(value: float | None, limit: float) -> bool:
    return value is None or value <= limit


def _has_failed(record: RequestRecord) -> bool:
    return record.failure is not None and record.failure.kind is not RequestFailureKind.STOPPED


def _distinct(owner: NDArray[np.int64]) -> int:
    return int(np.count_nonzero(np.bincount(owner)))


def _summarise(samples: Samples) -> LatencySummary | None:
    if not len(samples.values):
        return None
    ordered = np.sort(samples.values)
    p50, p90, p95, p99 = (float(value) for value in np.percentile(ordered, (50, 90, 95, 99)))
    interval = percentile_interval(ordered, 95)
    return LatencySummary(
        count=len(ordered),
        mean=float(ordered.mean()),
        minimum=float(ordered[0]),
        maximum=float(ordered[-1]),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        p95_low=interval.low if np.isfinite(interval.low) else None,
        p95_high=interval.high if np.isfinite(interval.high) else None,
    )
