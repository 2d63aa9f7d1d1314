"""A clock that is off, as a Docker engine would tell it: python late_clock.py SOCKET TRUE_SOCKET OFF_S

The nodes of a test bed share this machine's clock, so this stands before an engine's socket: every time stamp
that the engine tells (its own clock, containers, log lines) is shifted, and times that it is asked about
(`since=`) are shifted back. Bytes are otherwise left alone, and stamps keep their length.
"""

import re
import select
import socket
import sys
import threading
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

_STAMP = re.compile(
    rb"(?<!\d)[2-9]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d"
)  # not 0001-01-01, which is Docker's "never"
_SINCE = re.compile(rb"(?<=since=)\d{10}")
_BEGUN = re.compile(rb"\d[\d\-T:]{0,17}$")
_PATIENCE_S = 0.05


def shifted(data: bytes, off_s: int) -> bytes:
    """Return an engine's words with all stamps moved."""

    def move(found: re.Match[bytes]) -> bytes:
        moved = datetime.fromisoformat(found[0].decode()) + timedelta(seconds=off_s)
        return moved.isoformat().encode()

    return _STAMP.sub(move, data)


def shifted_back(data: bytes, off_s: int) -> bytes:
    """Return a question in the engine's own time."""
    return _SINCE.sub(lambda found: b"%d" % (int(found[0]) - off_s), data)


def tell(engine: socket.socket, caller: socket.socket, off_s: int) -> None:
    """Pass on what the engine says; a stamp that has only begun waits a moment for its rest."""
    held = b""
    with suppress(OSError):
        while True:
            is_readable = select.select([engine], [], [], _PATIENCE_S if held else None)[0]
            data = engine.recv(65536) if is_readable else b""
            whole = held + data
            begun = _BEGUN.search(whole) if data else None
            held = begun[0] if begun else b""
            caller.sendall(shifted(whole[: len(whole) - len(held)], off_s))
            if is_readable and not data:
                break
        caller.shutdown(socket.SHUT_WR)


def ask(caller: socket.socket, engine: socket.socket, off_s: int) -> None:
    """Pass on what the engine is asked."""
    with suppress(OSError):
        while data := caller.recv(65536):
            engine.sendall(shifted_back(data, off_s))
        engine.shutdown(socket.SHUT_WR)


def main(path: str, true_path: str, off_s: int) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        print("up", flush=True)
        while True:
            caller, _ = listener.accept()
            threading.Thread(target=serve, args=(caller, true_path, off_s), daemon=True).start()


def serve(caller: socket.socket, true_path: str, off_s: int) -> None:
    with caller, socket.socket(socket.AF_UNIX) as engine:
        engine.connect(true_path)
        asking = threading.Thread(target=ask, args=(caller, engine, off_s), daemon=True)
        asking.start()
        tell(engine, caller, off_s)
        asking.join(_PATIENCE_S)


if __name__ == "__main__":
    Path(sys.argv[1]).unlink(missing_ok=True)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
