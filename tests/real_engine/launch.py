"""The `command` of a search space that starts the real SGLang on this machine's CPU.

usage: launch.py [SGLang flags]
With AUTOTUNE_SGLANG_SOCKET it asks the preloaded parent (preload.py) to fork the server, which writes to
this program's own output, and stays in front of it: SIGTERM is passed on, the server's exit status is this
program's. Otherwise this program becomes the server. Standard library only.
"""

import json
import os
import signal
import socket
import sys

import cpu  # type: ignore[import-not-found] # lies beside this file, which runs as a program


def main() -> None:
    flags = [*cpu.FLAGS, *sys.argv[1:]]
    parent = os.environ.get(cpu.SOCKET_VARIABLE)
    if parent is None:
        environment = {**os.environ, **cpu.environment()}
        words = [cpu.python(), "-m", "sglang.launch_server", *flags]
        os.execve(cpu.python(), words, environment)  # noqa: S606 - a shell is not wanted
    end_like(served_by(parent, flags))


def served_by(parent: str, flags: list[str]) -> int:
    """Have the server forked and return its exit status, as `Popen.returncode` gives it."""
    request = json.dumps({"flags": flags, "environment": dict(os.environ)}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(parent)
        socket.send_fds(connection, [request[:1]], [1, 2])
        connection.sendall(request[1:])
        answers = connection.makefile()
        server = int(answers.readline())
        signal.signal(signal.SIGTERM, lambda *_: os.kill(server, signal.SIGTERM))
        return int(answers.readline())


def end_like(status: int) -> None:
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
