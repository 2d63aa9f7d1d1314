"""One load point taken apart: every latency from every clock, with sample sizes and exact intervals.

Pure. In: a `Measurement`. Out: a `Breakdown`, plain data for tables and files. Over the good requests of the
steady window (see `metrics`), with latencies as in `latency`:
    ttft, e2e       from sent, whatever the loop; ttft_scheduled, e2e_scheduled: a queue in the client shows
    itl, chunk_gap  per token and per chunk: the two views of a chunk with several tokens
    ramp_ttft       ttft of the requests before the steady window
    hit_ttft        ttft where at least half of the prompt was cached, by the server; cold_ttft: the others;
                    neither where no answer told cached tokens (if some did, the silent ones had none)
    stalls          requests of all that were sent in which `stalls` finds one, as a share with its interval
    single_stream   1 / (median tpot): tokens per second that one user reads
Percentiles interpolate linearly. Their intervals are of order statistics (`interval`, 95 %). The gaps of one
request are not independent, so gaps get the interval of as many samples as there were requests: wider than
needed, never surer. An interval's open side is None. Failed requests have no latency; they stand by kind.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autotune.document import Frozen
from autotune.interval import percentile_interval, share_interval
from autotune.latency import (
    chunk_gaps_s,
    dispatch_delay_s,
    e2e_s,
    has_latency,
    token_gaps_s,
    tpot_s,
    ttft_s,
)
from autotune.metrics import Measurement, Metric
from autotune.request import RequestRecord
from autotune.stalls import Stall, StallLimit, stalls

PERCENTS = (50, 90, 95, 99)
_ERROR_RATE = 0.05
_HIT_SHARE = 0.5


class Percentile(Frozen):
    """A percentile with its 95 % interval."""

    value: float
    low: float | None
    high: float | None


class Distribution(Frozen):
    """Samples of one latency in seconds; `requests` is how many independent ones they come from."""

    samples: int
    requests: int
    mean: float
    minimum: float
    maximum: float
    p50: Percentile
    p90: Percentile
    p95: Percentile
    p99: Percentile


class Share(Frozen):
    """How many of how many, with the exact interval of the share behind them."""

    hits: int
    count: int
    low: float
    high: float


class StallRow(Frozen):
    """One stalled request."""

    index: int
    began_s: float
    lasted_s: float
    rate_tps: float


class Breakdown(Frozen):
    """A load point's figures; seconds, and per second. None where nothing of the kind was seen."""

    sent: int
    succeeded: int
    errors: dict[str, Share]
    window_s: float
    is_steady: bool
    ttft: Distribution | None
    ttft_scheduled: Distribution | None
    ramp_ttft: Distribution | None
    cold_ttft: Distribution | None
    hit_ttft: Distribution | None
    tpot: Distribution | None
    itl: Distribution | None
    chunk_gap: Distribution | None
    e2e: Distribution | None
    e2e_scheduled: Distribution | None
    dispatch_delay: Distribution | None
    stalls: Share
    stalled: tuple[StallRow, ...]
    output_throughput_tps: float
    total_throughput_tps: float
    request_throughput_rps: float
    goodput_rps: float | None
    single_stream_tps: float | None
    input_tokens: int
    cached_tokens: int | None
    output_tokens: int


def break_down(
    measurement: Measurement, stall: StallLimit, limits_s: dict[Metric, float] | None = None
) -> Breakdown:
    """Return a measurement's figures; `limits_s` are per-request limits on ttft, tpot and e2e for goodput."""
    good = list(filter(has_latency, measurement.steady))
    steady = {record.index for record in measurement.steady}
    ramp = [record for record in measurement.records if has_latency(record) and record.index not in steady]
    tpot = _distribution([each for record in good if (each := tpot_s(record)) is not None])
    found = stalls(measurement.records, stall)
    return Breakdown(
        sent=len(measurement.records),
        succeeded=measurement.served,
        errors=_errors(measurement.records),
        window_s=sum(end - start for start, end in measurement.windows_s),
        is_steady=measurement.is_steady,
        **_latencies(good),
        ramp_ttft=_distribution([ttft_s(record) for record in ramp]),
        tpot=tpot,
        stalls=_share(len(found), len(measurement.records)),
        stalled=tuple(map(_stall_row, found)),
        output_throughput_tps=measurement.rate(Metric.OUTPUT_THROUGHPUT),
        total_throughput_tps=measurement.rate(Metric.TOTAL_THROUGHPUT),
        request_throughput_rps=measurement.rate(Metric.REQUEST_THROUGHPUT),
        goodput_rps=None if limits_s is None else measurement.goodput_rps(limits_s),
        single_stream_tps=1 / tpot.p50.value if tpot is not None and tpot.p50.value > 0 else None,
        input_tokens=sum(record.input_tokens for record in measurement.records),
        cached_tokens=_cached_tokens(measurement.records),
        output_tokens=sum(record.output_tokens for record in measurement.records),
    )


def _latencies(good: Sequence[RequestRecord]) -> dict[str, Distribution | None]:
    hits, cold = _by_cache(good)
    per_token, _ = token_gaps_s(good)
    return {
        "ttft": _distribution([ttft_s(record) for record in good]),
        "ttft_scheduled": _distribution([ttft_s(record, from_scheduled=True) for record in good]),
        "cold_ttft": _distribution([ttft_s(record) for record in cold]),
        "hit_ttft": _distribution([ttft_s(record) for record in hits]),
        "itl": _distribution(per_token, requests=len(good)),
        "chunk_gap": _distribution(chunk_gaps_s(good), requests=len(good)),
        "e2e": _distribution([e2e_s(record) for record in good]),
        "e2e_scheduled": _distribution([e2e_s(record, from_scheduled=True) for record in good]),
        "dispatch_delay": _distribution([dispatch_delay_s(record) for record in good]),
    }


def _by_cache(good: Sequence[RequestRecord]) -> tuple[list[RequestRecord], list[RequestRecord]]:
    """Return the cache's hits and the others; neither where nobody told."""
    if all(record.cached_tokens is None for record in good):
        return [], []
    hits = [record for record in good if (record.cached_tokens or 0) >= _HIT_SHARE * record.input_tokens]
    is_hit = {record.index for record in hits}
    return hits, [record for record in good if record.index not in is_hit]


def _cached_tokens(records: Sequence[RequestRecord]) -> int | None:
    told = [record.cached_tokens for record in records if record.cached_tokens is not None]
    return sum(told) if told else None


def _distribution(
    values: Sequence[float] | NDArray[np.float64], *, requests: int | None = None
) -> Distribution | None:
    """Return what samples say; `requests`: how many requests they come from, if one has several."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not len(ordered):
        return None
    independent = len(ordered) if requests is None else min(requests, len(ordered))
    return Distribution(
        samples=len(ordered),
        requests=independent,
        mean=float(ordered.mean()),
        minimum=float(ordered[0]),
        maximum=float(ordered[-1]),
        **{f"p{percent}": _percentile(ordered, percent, independent) for percent in PERCENTS},
    )


def _percentile(ordered: NDArray[np.float64], percent: float, independent: int) -> Percentile:
    basis = ordered
    if independent < len(ordered):
        basis = np.quantile(ordered, (np.arange(independent) + 0.5) / independent)
    interval = percentile_interval(basis, percent, error_rate=_ERROR_RATE)
    return Percentile(
        value=float(np.percentile(ordered, percent)),
        low=interval.low if np.isfinite(interval.low) else None,
        high=interval.high if np.isfinite(interval.high) else None,
    )


def _errors(records: Sequence[RequestRecord]) -> dict[str, Share]:
    kinds = Counter(str(record.failure.kind) for record in records if record.failure is not None)
    return {kind: _share(hits, len(records)) for kind, hits in sorted(kinds.items())}


def _share(hits: int, count: int) -> Share:
    interval = share_interval(hits, count, error_rate=_ERROR_RATE)
    return Share(hits=hits, count=count, low=interval.low, high=interval.high)


def _stall_row(stall: Stall) -> StallRow:
    return StallRow(
        index=stall.index, began_s=stall.began_s, lasted_s=stall.lasted_s, rate_tps=stall.rate_tps
    )
