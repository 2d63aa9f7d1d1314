"""The load generator's view of itself, and whether its measurement may be believed.

In: the event loop's own lateness, finished transcripts; a `LoadResult`. Out: `ClientHealth`; a reason why a
result is invalid.
Invariant: a failing engine is never called a failing generator.
"""

import asyncio
import time
from typing import TYPE_CHECKING

import numpy as np

from autotune.request import ClientHealth, LoadResult, OfferedLoad, RequestRecord

if TYPE_CHECKING:
    from autotune.load.transcript import Transcript
    from autotune.load.transport.clock import ReceiveClock

ERROR_SHARE = 0.05
"""The most of what is measured that the client's own error may be."""
SHARED_READS = 1.05
"""The most events per read for which the share of gaps without a stamp of their own is no matter."""

SHORTEST_GAP_S = 0.005
"""Below it the stamps of single gaps are not judged: engines so fast send several tokens at once."""

_TICK_S = 0.010
_LONGEST_LAG_S = 0.050
_ROUNDED_S = 0.01


class SelfCheck:
    """Watches one run of the generator: lateness of its event loop, CPU, requests in flight."""

    def __init__(self) -> None:
        self._lags_s: list[float] = []
        self._delays_s: list[float] = []
        self._events = 0
        self._reads = 0
        self._in_flight = 0
        self._peak_in_flight = 0
        self.begin()

    def begin(self) -> None:
        """Count time and CPU from here on."""
        self._began_s = time.perf_counter()
        self._began_cpu_s = time.process_time()

    async def tick(self) -> None:
        """Measure the loop's lateness a hundred times a second until cancelled."""
        while True:
            due_s = time.perf_counter() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self._lags_s.append(max(time.perf_counter() - due_s, 0.0))

    def begin_request(self) -> None:
        """Count a request in flight."""
        self._in_flight += 1
        self._peak_in_flight = max(self._peak_in_flight, self._in_flight)

    def end_request(self) -> None:
        """Count it out."""
        self._in_flight -= 1

    def add(self, transcript: "Transcript") -> None:
        """Take in how a request was dispatched and read."""
        if (delay_s := transcript.dispatch_delay_s()) is not None:
            self._delays_s.append(delay_s)
        events, reads = transcript.attempt.events_and_reads
        self._events += events
        self._reads += reads

    def health(self, clock: "ReceiveClock") -> ClientHealth:
        """Return what was seen since the start."""
        wall_s = time.perf_counter() - self._began_s
        cpu_s = time.process_time() - self._began_cpu_s
        return ClientHealth(
            loop_lag_p99_s=_p99(self._lags_s),
            cpu_ratio=cpu_s / max(wall_s, 1e-9),
            peak_in_flight=self._peak_in_flight,
            dispatch_delay_p99_s=_p99(self._delays_s),
            dispatch_delay_mean_s=float(np.mean(self._delays_s)) if self._delays_s else 0.0,
            tokens_per_read=self._events / self._reads if self._reads else 1.0,
            cpu_s_per_1000_tokens=1000 * cpu_s / self._events if self._events else 0.0,
            clock_drift_s=clock.drift_ns() / 1e9,
            has_kernel_stamps=clock.is_kernel,
        )


def invalid_reason(result: LoadResult, offered: OfferedLoad) -> str | None:
    """Return why the generator, and not the engine, spoilt this measurement; None if it did not.

    The rule: what the client itself may have added is at most `ERROR_SHARE` of what is measured.

    - event loop: lag p99 at most 50 ms or that share of the median gap between tokens, whichever is more;
    - stamps: a read with several events has one stamp, late by no more than the loop was; so with more than
      `SHARED_READS` events per read, or without kernel stamps, the lag p99 is at most that share of a gap
      (this and the next not for gaps under `SHORTEST_GAP_S`);
    - clocks: realtime moved against monotonic by at most that share of a gap;
    - dispatch: an open loop's delay p99 is at most 50 ms or that share of the median request's duration,
      whichever is more; a closed loop's mean delay is at most 5 ms or that share of the mean duration, so
      that the mean concurrency is within it;
    - the concurrency asked was reached, and requests lasted until the time was over.

    A concurrency or a supply that failing requests explain is no reason. In virtual time only the supply is
    judged.
    """
    if not result.records:
        return "no request was sent" if len(offered.requests) else None
    return (
        _lag_reason(result)
        or _stamp_reason(result)
        or _dispatch_reason(result, offered)
        or _concurrency_reason(result, offered)
        or _supply_reason(result, offered)
    )


def _lag_reason(result: LoadResult) -> str | None:
    if result.client is None:
        return None
    limit_s = max(_LONGEST_LAG_S, ERROR_SHARE * _median_gap_s(result.records))
    lag_s = result.client.loop_lag_p99_s
    if lag_s <= limit_s:
        return None
    return f"the load generator ran {_ms(lag_s)} late (p99; at most {_ms(limit_s)})"


def _stamp_reason(result: LoadResult) -> str | None:
    client = result.client
    if client is None or (gap_s := _median_gap_s(result.records)) < SHORTEST_GAP_S:
        return None
    limit_s = ERROR_SHARE * gap_s
    if client.clock_drift_s > limit_s:
        return f"the machine's clock was moved by {_ms(client.clock_drift_s)} (at most {_ms(limit_s)})"
    if client.loop_lag_p99_s <= limit_s:
        return None
    if not client.has_kernel_stamps:
        return f"arrivals are stamped up to {_ms(client.loop_lag_p99_s)} late (p99; at most {_ms(limit_s)})"
    if client.tokens_per_read > SHARED_READS:
        return (
            f"{client.tokens_per_read:.2f} tokens share a read (at most {SHARED_READS}) while the load "
            f"generator ran {_ms(client.loop_lag_p99_s)} late (p99; at most {_ms(limit_s)})"
        )
    return None


def _dispatch_reason(result: LoadResult, offered: OfferedLoad) -> str | None:
    client = result.client
    if client is None:
        return None
    lasted_s = np.array([record.ended_s - record.scheduled_s for record in result.records])
    if offered.concurrency is None:
        delay_s, what = client.dispatch_delay_p99_s, "p99"
        limit_s = max(_LONGEST_LAG_S, ERROR_SHARE * float(np.median(lasted_s)))
    else:
        delay_s, what = client.dispatch_delay_mean_s, "mean"
        limit_s = max(SHORTEST_GAP_S, ERROR_SHARE * float(np.mean(lasted_s)))
    if delay_s <= limit_s or _any_failed(result):
        return None
    return f"requests were sent {_ms(delay_s)} late ({what}; at most {_ms(limit_s)})"


def _concurrency_reason(result: LoadResult, offered: OfferedLoad) -> str | None:
    if result.client is None or offered.concurrency is None or _any_failed(result):
        return None
    asked = min(offered.concurrency, len(offered.requests))
    reached = result.client.peak_in_flight
    return None if reached >= asked else f"{asked} requests in flight were asked and {reached} reached"


def _supply_reason(result: LoadResult, offered: OfferedLoad) -> str | None:
    if offered.concurrency is None or offered.stop_after_s is None or _any_failed(result):
        return None
    ended_s = max(record.ended_s for record in result.records)
    if len(result.records) < len(offered.requests) or ended_s >= offered.stop_after_s:
        return None
    asked_s = offered.stop_after_s
    return f"all {len(result.records)} requests were answered after {ended_s:.1f} s of {asked_s:g} s"


def _any_failed(result: LoadResult) -> bool:
    return any(record.failure is not None for record in result.records)


def _median_gap_s(records: tuple[RequestRecord, ...]) -> float:
    """Return the median over chunks of the gap before a chunk per token in it, 0 if there are no gaps."""
    gaps = [np.diff(record.chunk_times_s) / record.chunk_tokens[1:] for record in records]
    joined = np.concatenate(gaps)
    return float(np.median(joined)) if len(joined) else 0.0


def _p99(values_s: list[float]) -> float:
    return float(np.percentile(values_s, 99)) if values_s else 0.0


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.{0 if seconds >= _ROUNDED_S else 2}f} ms"
