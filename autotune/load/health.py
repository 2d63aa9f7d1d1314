"""The load generator's view of itself, and whether its measurement may be believed.

In: the event loop's own lateness; a `LoadResult`. Out: `ClientHealth`; a reason why a result is invalid.
Invariant: a failing engine is never called a failing generator.
"""

import asyncio
import time

import numpy as np

from autotune.request import ClientHealth, LoadResult, OfferedLoad, RequestRecord

_TICK_S = 0.010
_LONGEST_LAG_S = 0.050
_LONGEST_LAG_PER_ITL = 0.05


class SelfCheck:
    """Watches one run of the generator: lateness of its event loop, CPU, requests in flight."""

    def __init__(self) -> None:
        self._lags_s: list[float] = []
        self._in_flight = 0
        self._peak_in_flight = 0
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

    def health(self) -> ClientHealth:
        """Return what was seen since the start."""
        wall_s = time.perf_counter() - self._began_s
        return ClientHealth(
            loop_lag_p99_s=float(np.percentile(self._lags_s, 99)) if self._lags_s else 0.0,
            cpu_ratio=(time.process_time() - self._began_cpu_s) / max(wall_s, 1e-9),
            peak_in_flight=self._peak_in_flight,
        )


def invalid_reason(result: LoadResult, offered: OfferedLoad) -> str | None:
    """Return why the generator, and not the engine, spoilt this measurement; None if it did not.

    Limits: loop lag p99 at most 50 ms or 5 % of the median gap between tokens, whichever is more; the
    concurrency asked was reached; requests lasted until the time was over. A concurrency or a supply that
    failing requests explain is no reason. In virtual time only the supply is judged.
    """
    if not result.records:
        return "no request was sent" if len(offered.requests) else None
    return _lag_reason(result) or _concurrency_reason(result, offered) or _supply_reason(result, offered)


def _lag_reason(result: LoadResult) -> str | None:
    if result.client is None:
        return None
    limit_s = max(_LONGEST_LAG_S, _LONGEST_LAG_PER_ITL * _median_gap_s(result.records))
    lag_s = result.client.loop_lag_p99_s
    if lag_s <= limit_s:
        return None
    return f"the load generator ran {lag_s * 1e3:.0f} ms late (p99; at most {limit_s * 1e3:.0f} ms)"


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
