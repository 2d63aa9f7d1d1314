"""One of several processes that offer a load together: `python -m autotune.load.worker FD`.

In: a `Job`, then the beginning, then perhaps a stop, over the socket that its starter left open as FD.
Out: `READY`, pulses, and a `LoadResult` or the text of a `LoadError`.
Invariant: it ends when its starter does; in a process group of its own, it is not told of Ctrl-C.
"""

import asyncio
import os
import sys
import time
from multiprocessing.connection import Connection

from autotune.errors import LoadError
from autotune.load.generator import Job, Run, run_job

READY = "ready"
PULSE_S = 0.2


def main(connection: Connection) -> None:
    """Serve one job."""
    job: Job = connection.recv()
    starter = _Starter(connection)
    answer: object
    try:
        answer = run_job(job, starter.start, starter.beside)
    except LoadError as error:
        answer = str(error)
    os.set_blocking(connection.fileno(), True)
    connection.send(answer)


class _Starter:
    """The process that started this one, as seen from the event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def start(self) -> int:
        """Say that everything is prepared and wait for the beginning."""
        self._connection.send(READY)
        await self._something()
        os.set_blocking(self._connection.fileno(), True)
        began_ns: int = self._connection.recv()
        await asyncio.sleep((began_ns - time.monotonic_ns()) / 1e9)
        return began_ns

    async def beside(self, run: Run) -> None:
        """Send pulses until anything comes back: a stop, or the end of the starter."""
        while not self._connection.poll():
            self._connection.send(run.pulse())
            await asyncio.sleep(PULSE_S)

    async def _something(self) -> None:
        arrived, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_reader(self._connection.fileno(), arrived.set)
        try:
            await arrived.wait()
        finally:
            loop.remove_reader(self._connection.fileno())


if __name__ == "__main__":
    try:
        main(Connection(int(sys.argv[1])))
    except (EOFError, ConnectionError):
        sys.exit("the process that started this one is gone")
