"""A supervised ssh connection to a node's Docker socket: a local socket that comes back when the link does.

In: `ssh://user@host[:port][/path/to/docker.sock]`. Out: a `unix://` address on this machine. Talks to the ssh
program, with the user's own configuration and known_hosts; a host key that is not known there is refused.
Invariants: a dead link ends ssh within about 8 s, which closes all connections through it; ssh ends when this
process does, however that ends (its remote command reads a pipe that we hold); a folder that a killed process
left is removed by the next tunnel on its machine.
"""

import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from autotune.engine.docker.faults import UnreachableError
from autotune.engine.docker.tunnel_folder import make_folder

DEFAULT_SOCKET = "/var/run/docker.sock"
_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=5",
    "ServerAliveInterval=2",
    "ServerAliveCountMax=3",
    "StrictHostKeyChecking=yes",
    "ExitOnForwardFailure=yes",
    "StreamLocalBindUnlink=yes",
    "ControlMaster=no",
    "ControlPath=none",
)
_OPEN_S = 15.0
_PAUSES_S = (0.1, 0.5, 1.0, 2.0)
_END_S = 2.0
_POLL_S = 0.02


def ssh_command(url: str, local: Path) -> tuple[str, ...]:
    """Return the ssh command that makes the remote Docker socket appear as `local`."""
    parts = urlsplit(url)
    target = parts.hostname or ""
    if parts.username:
        target = f"{parts.username}@{target}"
    port = ("-p", str(parts.port)) if parts.port else ()
    options = (word for option in _OPTIONS for word in ("-o", option))
    forward = f"{local}:{parts.path if parts.path not in ('', '/') else DEFAULT_SOCKET}"
    return ("ssh", "-T", *options, "-L", forward, *port, target, "cat")


class Tunnel:
    """One ssh process at a time, started again whenever it ends, until the tunnel is closed."""

    def __init__(self, node: str, url: str) -> None:
        self._node = node
        self._url = url
        self._folder = make_folder()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._last_words = ""
        self._supervisor = threading.Thread(target=self._supervise, name=f"ssh {node}", daemon=True)

    @property
    def address(self) -> str:
        """Where docker-py connects to."""
        return f"unix://{self._local}"

    @property
    def last_words(self) -> str:
        """What ssh said when it last ended."""
        return self._last_words

    def __enter__(self) -> Self:
        with ExitStack() as unless_open:
            unless_open.callback(self.close)
            self._supervisor.start()
            self._await_open()
            unless_open.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End ssh and remove the local socket."""
        self._closed.set()
        with self._lock:
            if self._process is not None:
                self._process.terminate()
        self._supervisor.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _local(self) -> Path:
        return self._folder / "docker.sock"

    def _await_open(self) -> None:
        """Wait for the first connection; an ssh that ends before it is not tried again."""
        give_up_s = time.monotonic() + _OPEN_S
        while not _answers(self._local):
            if self._last_words:
                raise UnreachableError(self._node, f"ssh: {self._last_words}", is_refused=False)
            if time.monotonic() >= give_up_s:
                raise UnreachableError(self._node, f"no ssh connection in {_OPEN_S:g} s", is_refused=False)
            time.sleep(_POLL_S)

    def _supervise(self) -> None:
        ends = 0
        while not self._closed.is_set():
            began_s = time.monotonic()
            self._run_once()
            ends = 0 if time.monotonic() - began_s > _OPEN_S else ends + 1
            self._closed.wait(_PAUSES_S[min(ends, len(_PAUSES_S) - 1)])

    def _run_once(self) -> None:
        log = self._folder / "ssh.log"
        with log.open("wb") as errors, self._lock:
            if self._closed.is_set():
                return
            process = subprocess.Popen(  # noqa: S603 - the words are ours, the target is the user's own node
                ssh_command(self._url, self._local),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for autotune: the tunnel must outlive the clean-up
                env={**os.environ, "LC_ALL": "C"},
            )
            self._process = process
        with process:
            _wait_or_kill(process, self._closed)
        lines = log.read_text(errors="replace").strip().splitlines()
        self._last_words = lines[-1] if lines else f"ended with code {process.returncode}"


def _wait_or_kill(process: subprocess.Popen[bytes], closed: threading.Event) -> None:
    while process.poll() is None:
        if closed.wait(_POLL_S * 5):
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(local: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(local))
        except OSError:
            return False
    return True
