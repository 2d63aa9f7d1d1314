"""Copies one container's log to a file while it is written, over connections that may break.

In: a container that runs or has run. Out: the log's bytes in a file, each message once and in order. Talks
to the Docker engine in a thread of its own. The engine is asked for time stamps, which are cut off again;
after a break it is asked for everything since some whole second, and what is known is skipped by count.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from docker import APIClient
from docker.types import CancellableStream

from autotune.engine.docker.connection import SLOW_S, Connection
from autotune.engine.docker.faults import NodeError

_BETWEEN_TRIES_S = 0.3
_OVERLAP_S = 2
_KEPT_S = 10


class Progress:
    """How far a log was copied: enough to go on after a break without a gap or a double."""

    def __init__(self) -> None:
        self._seen: Counter[int] = Counter()
        self._latest_s = 0
        self._to_skip = 0

    def resume(self) -> int | None:
        """Return since when to ask, None for everything; what is known from then on will be skipped."""
        if not self._latest_s:
            return None
        since_s = self._latest_s - _OVERLAP_S
        self._to_skip = sum(count for second, count in self._seen.items() if second >= since_s)
        return since_s

    def take(self, message: bytes) -> bytes:
        """Return the part of a message that is to be written, nothing if it is known."""
        stamp, _, text = message.partition(b" ")
        if self._to_skip:
            self._to_skip -= 1
            return b""
        second = _second_of(stamp)
        self._seen[second] += 1
        self._latest_s = max(self._latest_s, second)
        for old in [each for each in self._seen if each < self._latest_s - _KEPT_S]:
            del self._seen[old]
        return text


class IsRunning(Protocol):
    """Tells whether a container still writes."""

    def __call__(self) -> bool:
        """Return False once it has ended or is gone for good."""
        ...


class LogCopy:
    """A thread that copies until the container has ended and its last message was written."""

    def __init__(self, connection: Connection, container: str, path: Path, is_running: IsRunning) -> None:
        self._connection = connection
        self._container = container
        self._path = path
        self._is_running = is_running
        self._progress = Progress()
        self._closed = threading.Event()
        self._stream: CancellableStream[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=f"log of {container[:12]}", daemon=True)

    def start(self) -> None:
        """Begin to copy."""
        self._thread.start()

    def reconnect(self) -> None:
        """Leave a connection that may be dead; the copy goes on over a new one."""
        stream = self._stream
        if stream is not None:
            stream.close()

    def finish(self, patience_s: float) -> None:
        """Wait for the last message of a container that has ended, and then stop."""
        self._thread.join(patience_s)
        self._closed.set()
        self.reconnect()
        self._thread.join(patience_s)

    def await_end(self, patience_s: float) -> None:
        """Wait for the last message of a container that has ended."""
        self._thread.join(patience_s)

    def _run(self) -> None:
        with self._path.open("ab") as output, self._connection.client(SLOW_S) as client:
            while not self._closed.is_set():
                was_running = self._is_running()
                is_whole = self._copy(client, output)
                if is_whole and not was_running:
                    return
                self._closed.wait(_BETWEEN_TRIES_S)

    def _copy(self, client: APIClient, output: BinaryIO) -> bool:
        """Copy until the stream ends; return whether it ended without an error."""
        try:
            with self._connection.errors():
                for message in self._messages(client):
                    output.write(self._progress.take(message))
                    output.flush()
        except NodeError:
            return False
        return True

    def _messages(self, client: APIClient) -> Iterator[bytes]:
        self._stream = client.logs(
            self._container, stream=True, follow=True, timestamps=True, since=self._progress.resume()
        )
        yield from self._stream


def _second_of(stamp: bytes) -> int:
    """Return the whole second of `2026-11-24T11:52:46.123456789Z`."""
    return int(datetime.strptime(stamp[:19].decode(), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp())
