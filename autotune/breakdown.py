"""One load point taken apart: every latency from every clock, with sample sizes and exact intervals.

Pure. In: a `Measurement`. Out: a `Breakdown`, plain data for tables and files. Definitions, per request
(sent: its bytes left; scheduled: it was due; first, last: arrival of the first and last chunk with tokens;
n: output tokens by the server's count), over the good requests of the steady window (see `metrics`):
    ttft            first - sent               ttft_scheduled   first - scheduled (shows a client's queue)
    tpot            (last - first) / (n - 1)   e2e              last - sent; e2e_scheduled: last - scheduled
    itl             per token: gap before a chunk / tokens in it, once for each of them
    chunk_gap       per chunk: gap before a chunk, once: what a reader of the stream sees
    dispatch_delay  sent - scheduled           ramp_ttft        ttft of the requests before the steady window
    hit_ttft        ttft where at least half of the prompt was cached, by the server; cold_ttft: the others
    stalls          requests of all that were sent in which `stalls` finds one, as a share with its interval
    goodput         requests per second that kept every limit given (as in `metrics`)
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
    cached_tokens: int
    output_tokens: int


def break_down(
    measurement: Measurement, stall: StallLimit, limits_s: dict[Metric, float] | None = None
) -> Breakdown:
    """Return a measurement's figures; `limits_s` are per-request limits on ttft, tpot and e2e for goodput."""
    good = [record for record in measurement.steady if _is_good(record)]
    steady = {record.index for record in measurement.steady}
    ramp = [record for record in measurement.records if _is_good(record) and record.index not in steady]
    tpot = _distribution([each for record in good if (each := _tpot_s(record)) is not None])
    found = stalls(measurement.records, stall)
    return Breakdown(
        sent=len(measurement.records),
        succeeded=measurement.served,
        errors=_errors(measurement.records),
        window_s=sum(end - start for start, end in measurement.windows_s),
        is_steady=measurement.is_steady,
        **_latencies(good),
        ramp_ttft=_distribution([_ttft_s(record) for record in ramp]),
        tpot=tpot,
        stalls=_share(len(found), len(measurement.records)),
        stalled=tuple(map(_stall_row, found)),
        output_throughput_tps=measurement.rate(Metric.OUTPUT_THROUGHPUT),
        total_throughput_tps=measurement.rate(Metric.TOTAL_THROUGHPUT),
        request_throughput_rps=measurement.rate(Metric.REQUEST_THROUGHPUT),
        goodput_rps=None if limits_s is None else measurement.goodput_rps(limits_s),
        single_stream_tps=1 / tpot.p50.value if tpot is not None and tpot.p50.value > 0 else None,
        input_tokens=sum(record.input_tokens for record in measurement.records),
        cached_tokens=sum(record.cached_tokens for record in measurement.records),
        output_tokens=sum(record.output_tokens for record in measurement.records),
    )


def _latencies(good: Sequence[RequestRecord]) -> dict[str, Distribution | None]:
    hits = [record for record in good if record.cached_tokens >= _HIT_SHARE * record.input_tokens]
    is_hit = {record.index for record in hits}
    per_token, per_chunk = _gaps_s(good)
    return {
        "ttft": _distribution([_ttft_s(record) for record in good]),
        "ttft_scheduled": _distribution([_first_s(record) - record.scheduled_s for record in good]),
        "cold_ttft": _distribution([_ttft_s(record) for record in good if record.index not in is_hit]),
        "hit_ttft": _distribution([_ttft_s(record) for record in hits]),
        "itl": _distribution(per_token, requests=len(good)),
        "chunk_gap": _distribution(per_chunk, requests=len(good)),
        "e2e": _distribution([_last_s(record) - _sent_s(record) for record in good]),
        "e2e_scheduled": _distribution([_last_s(record) - record.scheduled_s for record in good]),
        "dispatch_delay": _distribution([_sent_s(record) - record.scheduled_s for record in good]),
    }


def _is_good(record: RequestRecord) -> bool:
    return record.failure is None and len(record.chunk_times_s) > 0


def _sent_s(record: RequestRecord) -> float:
    return record.scheduled_s if record.sent_s is None else record.sent_s


def _first_s(record: RequestRecord) -> float:
    return float(record.chunk_times_s[0])


def _last_s(record: RequestRecord) -> float:
    return float(record.chunk_times_s[-1])


def _ttft_s(record: RequestRecord) -> float:
    return _first_s(record) - _sent_s(record)


def _tpot_s(record: RequestRecord) -> float | None:
    if record.output_tokens < 2:  # noqa: PLR2004 - one token has no time per token after it
        return None
    return (_last_s(record) - _first_s(record)) / (record.output_tokens - 1)


def _gaps_s(records: Sequence[RequestRecord]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the gaps once for each token, shared evenly among a chunk's, and once for each chunk."""
    gaps = [np.diff(record.chunk_times_s) for record in records]
    tokens = [record.chunk_tokens[1:] for record in records]
    per_token = [np.repeat(gap / np.maximum(new, 1), new) for gap, new in zip(gaps, tokens, strict=True)]
    nothing: NDArray[np.float64] = np.empty(0)
    return np.concatenate([nothing, *per_token]), np.concatenate([nothing, *gaps])


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
