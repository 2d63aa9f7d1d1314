"""Connections to one server: a free list, last used first, and how new ones are opened.

In: host, port, TLS. Out: connections that nobody else uses. Talks to the resolver and the server.
Invariant: taking and giving back cost the same however many connections there are; every socket opened is
closed by `close`.
"""

import asyncio
import errno
import os
import socket
import ssl
from contextlib import ExitStack
from typing import TypeAlias

import httpx

from autotune.load.transport.clock import ReceiveClock
from autotune.load.transport.connection import READ_BYTES, Connection
from autotune.load.transport.framing import Limits
from autotune.load.transport.readers import ReadInRounds
from autotune.load.transport.tls import TlsSession

KEEP_ALIVE_S = 2.0
"""Below uvicorn's 5 s, so that the server never closes a connection while a request is on its way."""
_PREPARED_AT_ONCE = 64

Place: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
Address: TypeAlias = tuple[socket.AddressFamily, Place]


class Pool:
    """The connections to `host`; with a TLS context, encrypted ones."""

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None, clock: ReceiveClock, limits: Limits
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._clock = clock
        self._limits = limits
        self._addresses: list[Address] = []
        self._free: list[Connection] = []
        self._open: set[Connection] = set()
        self._readers: ReadInRounds | None = None
        self._buffer = bytearray(READ_BYTES)

    async def prepare(self, count: int, timeout_s: float) -> None:
        """Open connections in advance; what fails now may fail again when it is needed.

        Raises:
            httpx.ConnectError: this many cannot be opened.
            httpx.ConnectTimeout: not all are open in time.
        """
        places = iter(range(count))

        async def some() -> None:
            for _ in places:
                self._free.append(await self._connect())

        try:
            async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as group:
                for _ in range(min(count, _PREPARED_AT_ONCE)):
                    group.create_task(some())
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no {count} connections within {timeout_s:g} s") from None
        except ExceptionGroup as errors:
            if errors.split(httpx.ConnectError)[1] is not None:
                raise
            raise httpx.ConnectError("connections cannot be opened") from errors

    async def take(self, timeout_s: float | None) -> Connection:
        """Return a free connection, or a new one.

        Raises:
            httpx.ConnectError: no address of the server takes connections.
            httpx.ConnectTimeout: none did in time.
        """
        while self._free:
            connection = self._free.pop()
            if connection.is_usable(KEEP_ALIVE_S):
                return connection
            connection.close()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._connect()
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no connection within {timeout_s:g} s") from None

    def close(self) -> None:
        """Close every connection, whatever it is doing."""
        for connection in tuple(self._open):
            connection.close()
        self._free.clear()
        if self._readers is not None:
            self._readers.close()
            self._readers = None

    def _released(self, connection: Connection) -> None:
        if connection.is_closed:
            self._open.discard(connection)
        else:
            self._free.append(connection)

    async def _connect(self) -> Connection:
        try:
            return await self._connect_to_any()
        except OSError as error:
            raise httpx.ConnectError(str(error) or type(error).__name__) from error

    async def _connect_to_any(self) -> Connection:
        """Try the addresses in the resolver's order; the one that answered is first from then on."""
        if not self._addresses:
            self._addresses = await _resolved(self._host, self._port)
        errors: list[OSError] = []
        for position, address in enumerate(self._addresses):
            try:
                connection = await self._connect_to(address)
            except OSError as error:
                errors.append(error)
            else:
                if position:
                    self._addresses = [address, *(other for other in self._addresses if other != address)]
                return connection
        raise OSError("; ".join(map(str, errors))) from ExceptionGroup("every address failed", errors)

    async def _connect_to(self, address: Address) -> Connection:
        family, place = address
        with ExitStack() as unless_connected:
            sock = unless_connected.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setblocking(False)  # noqa: FBT003 - the standard library takes it by position
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._clock.arm(sock)
            await _handshake(sock, place)
            session = None if self._tls is None else TlsSession(self._tls, self._host)
            if session is not None:
                await session.shake_hands(sock)
            unless_connected.pop_all()
        if self._clock.is_kernel and self._readers is None:
            self._readers = ReadInRounds()
        connection = Connection(
            sock,
            session,
            self._clock,
            self._limits,
            self._released,
            readers=self._readers,
            buffer=self._buffer,
        )
        self._open.add(connection)
        return connection


async def _handshake(sock: socket.socket, place: Place) -> None:
    """Connect; on one machine the handshake is over at once, and an event loop would only wait for a turn.

    Raises:
        OSError: nobody is there.
    """
    outcome = sock.connect_ex(place)
    if outcome == errno.EINPROGRESS:
        outcome = sock.connect_ex(place)
    if outcome == errno.EALREADY:
        await asyncio.get_running_loop().sock_connect(sock, place)
    elif outcome not in {0, errno.EISCONN}:
        raise OSError(outcome, os.strerror(outcome))


async def _resolved(host: str, port: int) -> list[Address]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, place) for family, _, _, _, place in found]
