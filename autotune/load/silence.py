"""What the processes of a load tell while it runs, and when the server has gone silent. Pure.

In: the pulses of every process of a load. Out: for how long requests have been in flight without a byte of
any answer; what an onlooker may see.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from autotune.request import RequestRecord


@dataclass(frozen=True, slots=True)
class Pulse:
    """What one process saw (monotonic ns): the last byte of any answer, and since when it waits for some.

    `ended`: how many of its requests are over. `records`: those that have become known since its last pulse,
    if somebody looks on; of the requests that were due before `open_since_s`, all are.
    """

    last_byte_ns: int | None
    busy_since_ns: int | None
    ended: int = 0
    open_since_s: float = 0.0
    records: tuple[RequestRecord, ...] = ()


def silent_s(pulses: Sequence[Pulse], now_ns: int) -> float:
    """Return for how long no byte came to anyone although somebody waited, 0 if nobody waits."""
    waiting_ns = [pulse.busy_since_ns for pulse in pulses if pulse.busy_since_ns is not None]
    if not waiting_ns:
        return 0.0
    bytes_ns = [pulse.last_byte_ns for pulse in pulses if pulse.last_byte_ns is not None]
    return max(now_ns - max([min(waiting_ns), *bytes_ns]), 0) / 1e9
