"""A process that has imported the engine and forks its servers, as seen from the controller.

In: the command of a rank whose engine can be preloaded. Out: servers that can be asked and ended like child
processes. Talks to the dialect's preload program over a Unix socket that it inherits. Invariant: the program
and its servers end with this object, with this process, and with each other.
"""

import itertools
import json
import os
import select
import signal
import socket
import subprocess
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO
from weakref import WeakValueDictionary

import psutil

from autotune.engine.process_tree import MARK_ROOM, MARK_VARIABLE, Mark
from autotune.errors import InfrastructureError

_MESSAGE_BYTES = 1 << 16
_POLITE_S = 0.5
_KILLED = -int(signal.SIGKILL)
# The trial in the mark of a preloaded process itself.
PRELOAD = "preload"


class Preloading:
    """Starts ranks from one preload program, which begins with the first of them and stays for the next."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._engine: PreloadedEngine | None = None

    def start(
        self, argv: Sequence[str], environment: Mapping[str, str], mark: Mark, log: IO[bytes]
    ) -> "PreloadedServer":
        """Fork a rank; a new program is started if there is none for such a command and environment.

        Raises:
            InfrastructureError: the command cannot be preloaded or its interpreter not be started.
        """
        if self._engine is None or not self._engine.can_start(argv, environment):
            self.stop()
            self._engine = PreloadedEngine(self._program, argv, environment, mark.study, log)
        return self._engine.fork(argv, mark, log)

    def stop(self) -> None:
        """End the program."""
        if self._engine is not None:
            self._engine.stop()


class PreloadedEngine:
    """One preload program; it imports while the first servers that were asked for wait."""

    def __init__(
        self, program: Path, argv: Sequence[str], environment: Mapping[str, str], study: str, log: IO[bytes]
    ) -> None:
        """Start it for commands that begin like `argv`: an interpreter, -m, a module.

        What it says while it imports goes to `log`, the log of the launch that waits for it.

        Raises:
            InfrastructureError: it cannot be started.
        """
        interpreter, module = _preloadable(argv)
        self._command = tuple(argv[:3])
        self._environment = dict(environment)
        self._numbers = itertools.count()
        self._servers: WeakValueDictionary[int, PreloadedServer] = WeakValueDictionary()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, ExitStack() as if_it_fails:
            if_it_fails.enter_context(self._control)
            self._process = _started(
                [interpreter, str(program), str(theirs.fileno()), module],
                {**environment, MARK_VARIABLE: str(Mark.of(study, PRELOAD)).ljust(MARK_ROOM)},
                theirs,
                log,
            )
            if_it_fails.pop_all()
        self._control.settimeout(0)
        self._end = weakref.finalize(self, _ended, self._process, self._control)

    def fork(self, argv: Sequence[str], mark: Mark, log: IO[bytes]) -> "PreloadedServer":
        """Ask for a server with the flags of a command that begins as this one's; does not wait for it."""
        server = PreloadedServer(self)
        number = next(self._numbers)
        self._servers[number] = server
        request = json.dumps({"id": number, "argv": argv[3:], "mark": str(mark)}).encode()
        with suppress(BrokenPipeError):  # it died; the server will be found dead
            socket.send_fds(self._control, [request], [log.fileno()])
        return server

    def can_start(self, argv: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether it lives and would run this command in this environment."""
        self.await_news(0)
        return self._end.alive and (tuple(argv[:3]), environment) == (self._command, self._environment)

    @property
    def pid(self) -> int:
        """The program's own process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How the program ended, None while it lives."""
        return self._process.poll()

    def await_news(self, patience_s: float) -> None:
        """Wait until the program says something or ends, and take in what it said."""
        if not self._end.alive:
            return
        news = select.poll()
        news.register(self._control, select.POLLIN)
        if news.poll(patience_s * 1000):
            self._take_in()

    def _take_in(self) -> None:
        with suppress(BlockingIOError, ConnectionResetError):
            while text := self._control.recv(_MESSAGE_BYTES):
                told = json.loads(text)
                server = self._servers.get(told.pop("id"))
                if server is not None:  # its launch may be over
                    server.note(**told)
            self.stop()  # it closed its end, so it is about to end, and its servers with it

    def stop(self) -> None:
        """End the program, and with it every server that still runs."""
        self._end()


def _preloadable(argv: Sequence[str]) -> tuple[str, str]:
    match argv:
        case [interpreter, "-m", module, *_]:
            return interpreter, module
        case _:
            raise InfrastructureError(
                f"{' '.join(argv[:3])!r} cannot be preloaded: it is not PYTHON -m MODULE"
            )


def _started(
    argv: list[str], environment: Mapping[str, str], control: socket.socket, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - argv comes from the user's own search space
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[control.fileno()],
            start_new_session=True,
        )
    except OSError as error:
        raise InfrastructureError(f"{argv[0]!r} cannot be started: {error.strerror}") from error


def _ended(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    """End the program with what it started to look at the GPUs; its servers die by their parent's death."""
    control.close()
    with suppress(subprocess.TimeoutExpired):  # it imports, and does not listen
        process.wait(_POLITE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class PreloadedServer:
    """A server, forked or about to be; until then its process is the program that will fork it."""

    def __init__(self, engine: PreloadedEngine) -> None:
        self._engine = engine
        self._process: psutil.Process | None = None
        self._status: int | None = None

    def note(self, pid: int | None = None, status: int | None = None) -> None:
        """Take in what the program said of this server."""
        self._status = status
        if pid is not None:
            with suppress(psutil.NoSuchProcess):
                self._process = psutil.Process(pid)

    @property
    def pid(self) -> int:
        """The server's process, or the one that it will come from."""
        return self._engine.pid if self._process is None else self._process.pid

    def poll(self) -> int | None:
        """Return how it ended as `Popen.poll` does, None while it lives."""
        self._engine.await_news(0)
        if self._status is None and (code := self._engine.exit_code) is not None:
            self._status = code if self._process is None else _KILLED
        return self._status

    def wait(self, timeout: float) -> int:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not, `timeout` seconds later.
        """
        give_up_s = time.monotonic() + timeout
        while (status := self.poll()) is None:
            left_s = give_up_s - time.monotonic()
            if left_s <= 0:
                raise subprocess.TimeoutExpired([], timeout)
            self._engine.await_news(left_s)
        return status

    def terminate(self) -> None:
        """Ask it to stop; one that is not forked yet never will be."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.poll() is not None:
            return
        if self._process is None:
            self._engine.stop()
        else:
            with suppress(psutil.NoSuchProcess):
                self._process.send_signal(number)
