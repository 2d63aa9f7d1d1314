"""A deployed service for tests: the simulated SGLang as a process, fifty times as fast as the real one."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.support.ports import free_port

_PROGRAM = "from autotune.cli import main; main()"
_PATIENCE_S = 60.0


@contextmanager
def simulated_server() -> Iterator[str]:
    """Serve while the context lasts; give the address."""
    port = free_port()
    words = ["simulate-server", "llama-8b-1xh100", "--time-scale", "50", "--start-scale", "0.001"]
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *words, "--model-path", "any/model", "--port", str(port)],
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _await_health(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE_S)


def _await_health(url: str, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _PATIENCE_S
    while time.monotonic() < give_up:
        assert process.poll() is None
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("the simulated server does not answer")
