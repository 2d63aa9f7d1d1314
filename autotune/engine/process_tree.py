"""Finds what a trial left running or holding on this machine, and ends it.

Every process of a trial inherits a mark in its environment, so that children are found however they detached
themselves. In: marks and ports. Out: psutil processes, and words about who holds what. Talks to /proc.
Only marked processes are ever signalled.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import psutil

MARK_VARIABLE = "AUTOTUNE_TRIAL"
# A process that is to write another mark in place of its own is given one padded with spaces to this.
MARK_ROOM = 400
# SGLang renames its processes with setproctitle, which else overwrites the environment that /proc shows.
KEEP_ENVIRONMENT = {"SPT_NOENV": "1"}

_SHOWN_CHARACTERS = 120
_BETWEEN_KILLS_S = 0.05


@dataclass(frozen=True)
class Mark:
    """Whose a process is: a study's trial, and the controller that launched it."""

    study: str
    trial: str
    controller_pid: int
    controller_started_s: int

    @classmethod
    def of(cls, study: str, trial: str) -> "Mark":
        """Return a mark for what this process launches."""
        controller = psutil.Process()
        return cls(study, trial, controller.pid, int(controller.create_time()))

    @classmethod
    def parse(cls, text: str) -> "Mark | None":
        """Read a mark back, None if the text is none."""
        parts = text.rstrip().rsplit("/", 3)
        if len(parts) != 4 or not (parts[2].isdigit() and parts[3].isdigit()):  # noqa: PLR2004 - as printed
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))

    def __str__(self) -> str:
        return f"{self.study}/{self.trial}/{self.controller_pid}/{self.controller_started_s}"

    @property
    def is_orphaned(self) -> bool:
        """Whether the controller is gone."""
        return not is_running(self.controller_pid, self.controller_started_s)


def is_running(pid: int, started_s: int) -> bool:
    """Whether the process that began at that second lives; its pid may be another's by now."""
    try:
        return int(psutil.Process(pid).create_time()) == started_s
    except psutil.NoSuchProcess:
        return False


def marked(is_wanted: Callable[[Mark], bool]) -> list[psutil.Process]:
    """Return the living processes whose mark is wanted."""
    return [process for process, mark in _all_marked() if is_wanted(mark)]


def _all_marked() -> Iterator[tuple[psutil.Process, Mark]]:
    for process in psutil.process_iter():
        mark = Mark.parse(_mark_text(process))
        if mark is not None and process.pid != os.getpid():
            yield process, mark


def _mark_text(process: psutil.Process) -> str:
    try:
        return process.environ().get(MARK_VARIABLE, "")
    except (psutil.Error, OSError):  # another user's, or gone meanwhile
        return ""


def descendants(pid: int) -> list[psutil.Process]:
    """Return the children of a process and theirs, none if it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run; a zombie holds nothing any more."""
    return [process for process in processes if _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(processes: Iterable[psutil.Process]) -> None:
    """Send SIGKILL; psutil refuses if a pid was given to another process meanwhile."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def kill_until_gone(find: Callable[[], list[psutil.Process]], patience_s: float) -> list[psutil.Process]:
    """Kill what `find` finds until it finds nothing (they may fork meanwhile); return what is left."""
    give_up_s = time.monotonic() + patience_s
    while (left := find()) and time.monotonic() < give_up_s:
        kill(left)
        time.sleep(_BETWEEN_KILLS_S)
    return left


def described(process: psutil.Process) -> str:
    """Return a pid with its command."""
    try:
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        command = "gone or hidden"
    return f"pid {process.pid} ({command[:_SHOWN_CHARACTERS]})"


def names_of(processes: Iterable[psutil.Process]) -> str:
    """Return pids with their commands, in one line."""
    return ", ".join(described(process) for process in processes)


def is_local(address: str) -> bool:
    """Whether this machine has the address."""
    return _bind_error(address, 0) is None


def port_holder(address: str, port: int) -> str | None:
    """Return who keeps a port from being bound, None if it is free."""
    error = _bind_error(address, port)
    if error is None:
        return None
    pids = _listeners(port)
    return (
        names_of(each for each in psutil.process_iter() if each.pid in pids)
        or f"a process of another user ({error.strerror})"
    )


def _listeners(port: int) -> set[int]:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return set()
    here = [each for each in connections if each.laddr and each.laddr.port == port and not each.raddr]
    return {each.pid for each in here if each.pid is not None}


def _bind_error(address: str, port: int) -> OSError | None:
    """Try to bind as a server would; a port in TIME_WAIT counts as free."""
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
    except OSError as error:
        return error
    return None
