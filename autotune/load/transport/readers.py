"""Many sockets behind one reader of the event loop, read in rounds when much arrives.

In: sockets and what is to be called when one can be read. Out: those calls. Talks to epoll (Linux).
Waking a process costs more than reading a token. Where the kernel stamps arrivals it does not matter when
they are read: so while arrivals follow close upon each other there is a round every `PAUSE_S`, and only when
they no longer do does an arrival wake the loop again (to go from one to the other, the kernel looks at every
socket). Invariant: a socket that can be read is read in the next round.
"""

import asyncio
import select
import socket
import time
from collections.abc import Callable
from typing import Protocol

PAUSE_S = 0.001
"""Below the shortest gap between tokens that is judged, so that no two of a stream share a read for it."""
_CLOSE_NS = 2_000_000
_QUIET_NS = 5_000_000


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
        self._next: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._epoll.fileno(), self._woken)

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
        if self._next is not None:
            self._next.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _woken(self) -> None:
        """Read what woke the loop; if that follows close upon another read, go on in rounds."""
        now_ns = time.monotonic_ns()
        is_close = now_ns - self._last_ns < _CLOSE_NS
        self._last_ns = now_ns
        if is_close:
            self._loop.remove_reader(self._epoll.fileno())
            self._next = self._loop.call_later(PAUSE_S, self._round)
        self._read()

    def _round(self) -> None:
        """Read what has come since the last round; if it was long ago that anything did, wait to be woken."""
        now_ns = time.monotonic_ns()
        if now_ns - self._last_ns > _QUIET_NS:
            self._next = None
            self._loop.add_reader(self._epoll.fileno(), self._woken)
            return
        self._next = self._loop.call_later(PAUSE_S, self._round)
        if self._read():
            self._last_ns = now_ns

    def _read(self) -> bool:
        """Have every socket read that can be; tell whether there was one."""
        calls, ready = self._calls, self._epoll.poll(0)
        for number, _ in ready:
            call = calls.get(number)
            if call is not None:  # one that was called before it may have closed this one
                call()
        return bool(ready)
