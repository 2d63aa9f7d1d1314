"""Who launched a container: a token that tells whether that controller still lives.

In: this process. Out: text for a label, and the reverse. Talks to /proc and to /etc/machine-id.
Invariant: only a controller of this very machine is ever called dead; of another machine nothing is known.
"""

import hashlib
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from autotune.engine.process_tree import is_running

_MACHINE_ID = Path("/etc/machine-id")


@dataclass(frozen=True)
class Controller:
    """One autotune process."""

    machine: str
    pid: int
    started_s: int

    @classmethod
    def here(cls) -> "Controller":
        """Return this process."""
        process = psutil.Process()
        return cls(_machine(), process.pid, int(process.create_time()))

    @classmethod
    def parse(cls, text: str) -> "Controller | None":
        """Read a token back, None if the text is none."""
        parts = text.rsplit("/", 2)
        if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):  # noqa: PLR2004 - as printed
            return None
        return cls(parts[0], int(parts[1]), int(parts[2]))

    def __str__(self) -> str:
        return f"{self.machine}/{self.pid}/{self.started_s}"

    @property
    def is_dead(self) -> bool:
        """Whether it is known that the process is gone."""
        return self.machine == _machine() and not is_running(self.pid, self.started_s)


def _machine() -> str:
    """Return a name for this machine; host names repeat, so its id is part of it."""
    identity = _MACHINE_ID.read_bytes() if _MACHINE_ID.exists() else b""
    return f"{socket.gethostname()}-{hashlib.sha256(identity).hexdigest()[:8]}"
