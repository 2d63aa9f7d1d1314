"""When a server has gone silent: requests are in flight, and no byte of any answer comes. Pure.

In: the pulses of every process of a load. Out: for how long it has been silent.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pulse:
    """What one process saw (monotonic ns): the last byte of any answer, and since when it waits for some.

    `ended`: how many of its requests are over.
    """

    last_byte_ns: int | None
    busy_since_ns: int | None
    ended: int = 0


def silent_s(pulses: Sequence[Pulse], now_ns: int) -> float:
    """Return for how long no byte came to anyone although somebody waited, 0 if nobody waits."""
    waiting_ns = [pulse.busy_since_ns for pulse in pulses if pulse.busy_since_ns is not None]
    if not waiting_ns:
        return 0.0
    bytes_ns = [pulse.last_byte_ns for pulse in pulses if pulse.last_byte_ns is not None]
    return max(now_ns - max([min(waiting_ns), *bytes_ns]), 0) / 1e9
