"""The latencies of one request: the only place where they are defined. Pure.

In: `RequestRecord`s. Out: seconds. With sent = its bytes left (scheduled, if they never did), scheduled = it
was due, first and last = arrival of the first and last chunk with tokens, n = output tokens by the server's
count:
    ttft = first - sent      e2e = last - sent      tpot = (last - first) / (n - 1)
    from the scheduled time: the same with scheduled for sent
    itl       = gap before a chunk / tokens in it, once for each of those tokens
    chunk gap = gap before a chunk, once: what a reader of the stream sees
    dispatch delay = sent - scheduled
A request that failed, or brought no token, has none of them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autotune.request import RequestRecord

_NOTHING = np.empty(0, dtype=np.int64)


def has_latency(record: RequestRecord) -> bool:
    """Return whether a request ended well and brought tokens."""
    return record.failure is None and len(record.chunk_times_s) > 0


def origin_s(record: RequestRecord, *, from_scheduled: bool = False) -> float:
    """Return when a request's latencies begin to count."""
    return record.scheduled_s if from_scheduled or record.sent_s is None else record.sent_s


def ttft_s(record: RequestRecord, *, from_scheduled: bool = False) -> float:
    """Return the time to the first token."""
    return float(record.chunk_times_s[0]) - origin_s(record, from_scheduled=from_scheduled)


def e2e_s(record: RequestRecord, *, from_scheduled: bool = False) -> float:
    """Return the time to the last token."""
    return float(record.chunk_times_s[-1]) - origin_s(record, from_scheduled=from_scheduled)


def tpot_s(record: RequestRecord) -> float | None:
    """Return the mean time of a token after the first, None for a single token."""
    if record.output_tokens <= 1:
        return None
    return float(record.chunk_times_s[-1] - record.chunk_times_s[0]) / (record.output_tokens - 1)


def dispatch_delay_s(record: RequestRecord) -> float:
    """Return how late a request was sent."""
    return origin_s(record) - record.scheduled_s


def token_gaps_s(records: Sequence[RequestRecord]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the inter-token latencies of all requests and the index of the request each belongs to."""
    gaps_s, tokens, owner = _gaps(records)
    return np.repeat(gaps_s / np.maximum(tokens, 1), tokens), np.repeat(owner, tokens)


def chunk_gaps_s(records: Sequence[RequestRecord]) -> NDArray[np.float64]:
    """Return the gaps between chunks of all requests."""
    return _gaps(records)[0]


def _gaps(
    records: Sequence[RequestRecord],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the gap before every chunk but a request's first, the tokens in it, and the request's index."""
    times_s = np.concatenate([np.empty(0), *(record.chunk_times_s for record in records)])
    tokens = np.concatenate([_NOTHING, *(record.chunk_tokens for record in records)])
    chunks = np.array([len(record.chunk_times_s) for record in records], dtype=np.int64)
    owner = np.repeat(np.array([record.index for record in records], dtype=np.int64), chunks)
    is_later = np.ones(len(times_s), dtype=bool)
    is_later[(np.cumsum(chunks) - chunks)[chunks > 0]] = False
    return np.diff(times_s, prepend=0.0)[is_later], tokens[is_later], owner[is_later]
