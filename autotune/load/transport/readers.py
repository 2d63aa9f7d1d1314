"""Many sockets behind one reader of the event loop, read in rounds when much arrives.

In: sockets and what is to be called when one can be read. Out: those calls. Talks to epoll (Linux).
Waking a process costs more than reading a token. Where the kernel stamps arrivals it does not matter when
they are read: so after a round that followed close upon another, the next waits for `PAUSE_S`, and its reads
share one wake-up. Invariant: a socket that can be read is read in the next round.
"""

import asyncio
import select
import socket
import time
from collections.abc import Callable
from typing import Protocol

PAUSE_S = 0.001
"""Below the shortest gap between tokens that is judged, so that no two of a stream share a read for it."""
_BUSY_NS = 2_000_000


class Readers(Protocol):
    """What an event loop does for sockets that are read."""

    def add_reader(self, sock: socket.socket, call: Callable[[], None], /) -> object:
        """Call this whenever the socket can be read."""
        ...

    def remove_reader(self, sock: socket.socket, /) -> object:
        """Call it no more."""
        ...


class ReadInRounds:
    """The sockets of one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._last_ns = 0
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._epoll.fileno(), self._round)

    def add_reader(self, sock: socket.socket, call: Callable[[], None], /) -> None:
        """Call this whenever the socket can be read."""
        self._calls[sock.fileno()] = call
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def remove_reader(self, sock: socket.socket, /) -> None:
        """Call it no more; before the socket is closed."""
        if not self._epoll.closed:
            self._epoll.unregister(sock.fileno())
        del self._calls[sock.fileno()]

    def close(self) -> None:
        """Give up the loop's reader."""
        if self._epoll.closed:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _round(self) -> None:
        began_ns = time.monotonic_ns()
        is_busy = began_ns - self._last_ns < _BUSY_NS
        self._last_ns = began_ns
        try:
            self._read()
        finally:
            if is_busy and not self._epoll.closed:
                self._loop.remove_reader(self._epoll.fileno())
                self._pause = self._loop.call_later(PAUSE_S, self._after_pause)

    def _after_pause(self) -> None:
        self._pause = None
        self._loop.add_reader(self._epoll.fileno(), self._round)
        self._round()

    def _read(self) -> None:
        calls = self._calls
        for number, _ in self._epoll.poll(0):
            call = calls.get(number)
            if call is not None:  # one that was called before it may have closed this one
                call()
