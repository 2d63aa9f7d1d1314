"""Imports SGLang once and forks a server for each request: a program for the engine's own environment.

usage: preload.py CONTROL MODULE      CONTROL: number of an inherited Unix socket that keeps messages apart
In: JSON requests {id, argv, mark}, each with a file descriptor for the server's output. Out: {id, pid} when
it has been forked, {id, status} when it has ended. Standard library only, since nothing of autotune is there.
Invariants: this process opens no GPU; no server outlives it; it ends when the control socket closes.
"""

import array
import contextlib
import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import selectors
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable

import preload_cuda  # type: ignore[import-not-found] # lies beside this file, which runs as a program

# What a server imports (SGLang 0.5.16 to 0.5.23); not the module that is run, which runpy would warn of.
MODULES = (
    "sglang.srt.server_args",
    "sglang.srt.entrypoints.http_server",
    "sglang.srt.managers.detokenizer_manager",
    "sglang.srt.managers.scheduler",
    "sglang.srt.models.registry",
)
MARK_VARIABLE = "AUTOTUNE_TRIAL"
_MESSAGE_BYTES = 1 << 16
_PR_SET_PDEATHSIG = 1


class MarkInPlace:
    """The mark in the environment that /proc shows: the memory that the process was started with.

    Setting a variable gives it other memory, so the address is noted first. The variable must have been
    given padded with spaces: that is the room there is.
    """

    def __init__(self) -> None:
        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_void_p
        self._address = getenv(MARK_VARIABLE.encode())
        self._room = len(os.environ[MARK_VARIABLE].encode())

    def write(self, mark: str) -> None:
        """Show another mark from now on, here and to what this process starts."""
        text = mark.encode()
        if len(text) > self._room:
            raise ValueError(f"{MARK_VARIABLE} has room for {self._room} bytes, {mark!r} needs {len(text)}")
        ctypes.memmove(self._address, text.ljust(self._room), self._room)
        os.environ[MARK_VARIABLE] = mark


def main(control: socket.socket, module: str) -> None:
    """Import, then fork what is asked for until nobody can ask any more."""
    mark = MarkInPlace()
    fork_instead_of_spawn()
    give_back = preload_cuda.shield()
    for name in MODULES:
        with contextlib.suppress(ImportError):  # the server that needs it will tell, in its own log
            importlib.import_module(name)
    gc.freeze()  # imported objects stay out of the collector, so that their pages stay shared
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                tell_end(control, selector, key)
            elif not answer(control, selector, module, mark, give_back):
                return


def fork_instead_of_spawn() -> None:
    """Have SGLang's children forked, which spares each of them the imports; it asks for spawn."""
    original = multiprocessing.set_start_method

    def set_start_method(method: str | None, force: bool = False) -> None:  # noqa: FBT001, FBT002 - as there
        original("fork" if method == "spawn" else method, force=force)

    multiprocessing.set_start_method = set_start_method


def answer(
    control: socket.socket,
    selector: selectors.BaseSelector,
    module: str,
    mark: MarkInPlace,
    give_back: Callable[[], None],
) -> bool:
    """Fork the server that was asked for; return whether anybody still asks."""
    text, outputs, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 1)
    if not text:
        return False
    request = json.loads(text)
    parent = os.getpid()
    with warnings.catch_warnings():  # Python 3.12 warns of threads, which libraries start when imported
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            die_with(parent)
            close_all(selector)
            become_session(outputs)
            mark.write(request["mark"])
            os.register_at_fork(after_in_child=give_back)
            code = run(module, request["argv"])
        finally:
            os._exit(code)
    for output in array.array("i", outputs):
        os.close(output)
    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (request["id"], pid))
    control.send(json.dumps({"id": request["id"], "pid": pid}).encode())
    return True


def tell_end(control: socket.socket, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    """Reap a server and say how it ended."""
    request, pid = key.data
    _, status = os.waitpid(pid, 0)
    selector.unregister(key.fd)
    os.close(key.fd)
    control.send(json.dumps({"id": request, "status": os.waitstatus_to_exitcode(status)}).encode())


def die_with(parent: int) -> None:
    """End when the parent ends, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before this was asked
        os._exit(1)


def close_all(selector: selectors.BaseSelector) -> None:
    """Close what only the parent is to hold: the controller takes the socket's end for the parent's."""
    for key in list(selector.get_map().values()):
        os.close(key.fd)
    selector.close()


def become_session(outputs: list[int]) -> None:
    """Be a group of its own, with its output where it was asked for."""
    os.setsid()
    for number in (1, 2):
        os.dup2(outputs[0], number)
    os.close(outputs[0])


def run(module: str, argv: list[str]) -> int:
    """Do as `python -m module argv` does; return its exit code."""
    code: object = 0
    sys.argv = [module, *argv]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 - as the interpreter itself tells what nobody caught
        traceback.print_exc()
        code = 1
    if not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # noqa: PTH109 - as `python -m` has it, and not this file's folder
    exit_code = 0
    try:
        main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
    except BaseException:  # noqa: BLE001 - told before the socket closes, which is taken for this end
        traceback.print_exc()
        exit_code = 1
    sys.stderr.flush()
    os._exit(exit_code)
