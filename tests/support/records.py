"""Request records with known times, as a closed loop would leave them."""

from collections.abc import Sequence

import numpy as np

from autotune.request import (
    RequestFailure,
    RequestFailureKind,
    RequestPhase,
    RequestRecord,
)


def record(
    index: int = 0,
    *,
    sent_s: float = 0.0,
    chunks: Sequence[tuple[float, int]] = ((0.5, 1), (0.6, 1)),
    scheduled_s: float | None = None,
    failed: bool = False,
    input_tokens: int = 10,
    cached_tokens: int | None = 0,
) -> RequestRecord:
    """One request; `chunks` are (seconds after sending, tokens)."""
    times = np.array([sent_s + after for after, _ in chunks])
    tokens = np.array([count for _, count in chunks], dtype=np.int64)
    failure = RequestFailure(RequestFailureKind.TIMEOUT, RequestPhase.STREAM, "late") if failed else None
    return RequestRecord(
        index=index,
        scheduled_s=sent_s if scheduled_s is None else scheduled_s,
        sent_s=sent_s,
        ended_s=float(times[-1]) if len(times) else sent_s,
        input_tokens=input_tokens,
        output_tokens=int(tokens.sum()),
        cached_tokens=cached_tokens,
        chunk_times_s=times,
        chunk_tokens=tokens,
        failure=failure,
    )


def steady_records(ttft_s: Sequence[float], *, concurrency: int) -> list[RequestRecord]:
    """An opening wave and then one request per given TTFT, each followed by one more token 0.1 s later."""
    free = [0.0] * concurrency
    records = []
    for index, ttft in enumerate([0.5] * concurrency + list(ttft_s)):
        slot = free.index(min(free))
        records.append(record(index, sent_s=free[slot], chunks=((ttft, 1), (ttft + 0.1, 1))))
        free[slot] += ttft + 0.1
    return records
