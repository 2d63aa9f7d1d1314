"""How the ranks of one simulated engine find each other, and how the others learn that rank 0 stops.

In: an address, a rank and how many there are. Out: a `Meeting` that every rank holds while it lives. Talks
TCP: rank 0 listens, the others dial until it does. A connection that ends is a rank that died.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

_GO = b"go\n"
_SHUTDOWN = b"shutdown\n"
_BETWEEN_DIALS_S = 0.05


class RendezvousError(Exception):
    """The ranks did not meet; the message is torch's or SGLang's own line."""


@dataclass(frozen=True)
class Meeting:
    """The connections to the other ranks: all of them at rank 0, the one to rank 0 elsewhere."""

    peers: tuple[tuple[asyncio.StreamReader, asyncio.StreamWriter], ...] = ()

    async def first_loss(self) -> bool:
        """Wait until a peer ends; return whether it said so before (rank 0's shutdown)."""
        if not self.peers:
            await asyncio.Event().wait()
        reads = [asyncio.ensure_future(_last_word(reader)) for reader, _ in self.peers]
        try:
            done, _ = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
            return any(read.result() == _SHUTDOWN for read in done)
        finally:
            for read in reads:
                read.cancel()

    async def close(self, *, say_shutdown: bool = False) -> None:
        """Leave, at rank 0 with or without a word."""
        for _, writer in self.peers:
            with suppress(ConnectionError):
                if say_shutdown:
                    writer.write(_SHUTDOWN)
                writer.close()
                await writer.wait_closed()


async def meet(address: str, *, rank: int, ranks: int, timeout_s: float) -> Meeting:
    """Meet the other ranks at `host:port`.

    Raises:
        RendezvousError: not all came in time, or rank 0 cannot listen there.
    """
    host, _, port = address.rpartition(":")
    if rank == 0:
        return await _receive(host, int(port), ranks, timeout_s)
    return await _dial(host, int(port), rank, timeout_s)


async def _last_word(reader: asyncio.StreamReader) -> bytes:
    word = b""
    with suppress(ConnectionError):
        while line := await reader.readline():
            word = line
    return word


async def _receive(host: str, port: int, ranks: int, timeout_s: float) -> Meeting:
    arrivals: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    try:
        server = await asyncio.start_server(lambda *peer: arrivals.put_nowait(peer), host, port)
    except OSError as error:
        line = f"ValueError: dist_init_port at {port} is not available in 30 seconds. {error.strerror}"
        raise RendezvousError(line) from error
    peers: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        async with asyncio.timeout(timeout_s):
            while len(peers) < ranks - 1:
                peers.append(await arrivals.get())
    except TimeoutError:
        await Meeting(tuple(peers)).close()
        line = (
            f"torch.distributed.DistStoreError: Timed out after {timeout_s + 1:.0f} seconds waiting for "
            f"clients. {len(peers) + 1}/{ranks} clients joined."
        )
        raise RendezvousError(line) from None
    finally:
        server.close()
    for _, writer in peers:
        writer.write(_GO)
    return Meeting(tuple(peers))


async def _dial(host: str, port: int, rank: int, timeout_s: float) -> Meeting:
    line = (
        "torch.distributed.DistNetworkError: The client socket has timed out after "
        f"{timeout_s * 1000:.0f}ms while trying to connect to ({host}, {port})."
    )
    meeting = Meeting()
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await _connect(host, port)
            meeting = Meeting(((reader, writer),))
            writer.write(f"rank {rank}\n".encode())
            if await reader.readline() == _GO:
                return meeting
    except (TimeoutError, ConnectionError):
        pass
    await meeting.close()
    raise RendezvousError(line)


async def _connect(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(_BETWEEN_DIALS_S)
