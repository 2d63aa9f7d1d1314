"""The kernel's receive times on the monotonic clock.

In: the ancillary data of `recvmsg`. Out: nanoseconds of CLOCK_MONOTONIC, the clock of every other stamp.
The kernel stamps in CLOCK_REALTIME when a segment arrives, however late the process reads it; the distance
between the clocks is bracketed once and measured again at the end, since the realtime clock may be set.
Without kernel stamps (not Linux) the time of the read is taken, and `is_kernel` says so.
"""

import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import TypeAlias

Ancillary: TypeAlias = Sequence[tuple[int, int, bytes]]

ANCILLARY_BYTES = 64
_SO_TIMESTAMPNS = 35  # Linux, include/uapi/asm-generic/socket.h: SO_TIMESTAMPNS_OLD, 64-bit time_t
_unpacked = struct.Struct("@ll").unpack  # a timespec
_BRACKETS = 32


class ReceiveClock:
    """Turns what the kernel says about a read into monotonic nanoseconds."""

    def __init__(self) -> None:
        self.is_kernel = sys.platform == "linux"
        self._offset_ns, self.bracket_ns = _measured_offset_ns()

    def arm(self, sock: socket.socket) -> None:
        """Ask the kernel to stamp what this socket receives."""
        if self.is_kernel:
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def stamp_ns(self, ancillary: Ancillary) -> int:
        """Return when the bytes of a read arrived; the present where the kernel has not said."""
        if not ancillary:
            return time.monotonic_ns()
        seconds, nanoseconds = _unpacked(ancillary[0][2])
        if not seconds:
            return time.monotonic_ns()
        stamp_ns: int = seconds * 1_000_000_000 + nanoseconds - self._offset_ns
        return stamp_ns

    def drift_ns(self) -> int:
        """Return how far the two clocks have moved apart since the start, at most (ns, not negative)."""
        offset_ns, bracket_ns = _measured_offset_ns()
        return max(abs(offset_ns - self._offset_ns) - bracket_ns - self.bracket_ns, 0)


def _measured_offset_ns() -> tuple[int, int]:
    """Return realtime less monotonic, and the width of the narrowest bracket it was read in."""
    best = (0, sys.maxsize)
    for _ in range(_BRACKETS):
        before_ns = time.monotonic_ns()
        real_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after_ns = time.monotonic_ns()
        if after_ns - before_ns < best[1]:
            best = (real_ns - (before_ns + after_ns) // 2, after_ns - before_ns)
    return best
