"""Seconds since the load began, out of monotonic nanoseconds. All processes of a load share the beginning."""

import time
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class LoadClock:
    """`began_ns` is CLOCK_MONOTONIC, the same for every process of this machine."""

    began_ns: int

    def now_s(self) -> float:
        """Return the present."""
        return (time.monotonic_ns() - self.began_ns) / 1e9

    def seconds(self, at_ns: int) -> float:
        """Return a stamp as a time of this load."""
        return (at_ns - self.began_ns) / 1e9

    def seconds_of(self, stamps_ns: Iterable[int]) -> list[float]:
        """Return many stamps as times of this load."""
        began_ns = self.began_ns
        return [(at_ns - began_ns) / 1e9 for at_ns in stamps_ns]
