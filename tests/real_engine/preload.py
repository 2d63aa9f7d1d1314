"""Imports SGLang once and forks a server for each request, which makes a start cost a tenth.

usage: preload.py SOCKET      (in the virtual environment and with the environment of cpu.py)
A request is one line of JSON with the server's flags and environment, and two file descriptors for its
output. The answers are the server's pid, and its exit status when it has ended. Each server is a real one,
with its own session, scheduler and detokenizer.
"""

import array
import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback

import cpu  # type: ignore[import-not-found] # lies beside this file, which runs as a program


def main(path: str) -> None:
    for module in cpu.MODULES:
        importlib.import_module(module)
    gc.freeze()  # imported objects stay out of the collector, so that their pages stay shared
    clients: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as ready, socket.socket(socket.AF_UNIX) as listener:
        ready.register(woken_by_children(), selectors.EVENT_READ, "children")
        ready.register(listener, selectors.EVENT_READ, "request")
        listener.bind(path)
        listener.listen()
        while True:
            for key, _ in ready.select():
                if key.data == "request":
                    start(listener, clients)
                else:
                    key.fileobj.recv(4096)  # type: ignore[union-attr] # it is the socket registered above
                    reap(clients)


def woken_by_children() -> socket.socket:
    wake, woken = socket.socketpair()
    wake.setblocking(False)
    woken.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(os.dup(wake.fileno()), warn_on_full_buffer=False)
    wake.detach()
    return woken


def start(listener: socket.socket, clients: dict[int, socket.socket]) -> None:
    client, _ = listener.accept()
    first, outputs, _, _ = socket.recv_fds(client, 1, 2)
    request = json.loads(first + client.makefile("rb").readline())
    pid = os.fork()
    if pid == 0:
        become_session(outputs)
        adopt(request["environment"])
        serve(request["flags"])
    for output in array.array("i", outputs):
        os.close(output)
    clients[pid] = client
    client.sendall(f"{pid}\n".encode())


def become_session(outputs: list[int]) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for output, number in zip(outputs, (1, 2), strict=True):
        os.dup2(output, number)
        os.close(output)


def adopt(environment: dict[str, str]) -> None:
    """Take over the caller's environment, its mark also where /proc shows it.

    /proc shows the memory that the process was started with, so the mark is written there.
    """
    own = cpu.environment()
    os.environ.update(
        {name: value for name, value in environment.items() if name not in {*own, cpu.MARK_VARIABLE}}
    )
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    mark = environment.get(cpu.MARK_VARIABLE, "").encode()[: cpu.MARK_ROOM - 1]
    ctypes.memmove(getenv(cpu.MARK_VARIABLE.encode()), mark.ljust(cpu.MARK_ROOM, b"\0"), cpu.MARK_ROOM)
    os.environ[cpu.MARK_VARIABLE] = mark.decode()  # for what the server starts


def serve(flags: list[str]) -> None:
    code = 1
    try:
        sys.argv = ["launch_server", *flags]
        arguments = importlib.import_module("sglang.srt.server_args").prepare_server_args(flags)
        importlib.import_module("sglang.launch_server").run_server(arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - the child must end here, whatever happens
        traceback.print_exc()
    finally:
        importlib.import_module("sglang.srt.utils").kill_process_tree(os.getpid(), include_parent=False)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def reap(clients: dict[int, socket.socket]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            with clients.pop(pid) as client, contextlib.suppress(OSError):  # its caller may be dead
                client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1])
