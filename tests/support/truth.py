"""The truth server: built with the machine's C compiler, started, and what it saw."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

SOURCE = Path(__file__).parent / "truth_server" / "truth_server.c"


@dataclass
class Truth:
    """What one request was given, in monotonic nanoseconds."""

    received_ns: int
    sent_ns: NDArray[np.int64]


@dataclass
class TruthServer:
    """`seen` is filled, by serial number, when the server has ended, and `cpu_s`, which it has used."""

    url: str
    seen: dict[int, Truth] = field(default_factory=dict)
    cpu_s: float = 0.0


def build(folder: Path) -> Path:
    """Compile the server; raises CalledProcessError or FileNotFoundError where there is no C compiler."""
    program = folder / "truth_server"
    subprocess.run(["cc", "-O2", "-o", program, SOURCE], check=True)
    return program


@contextmanager
def telling_the_truth(program: Path, ttft_s: float, itl_s: float, tokens: int) -> Iterator[TruthServer]:
    """Run the server until the context ends."""
    file = program.with_suffix(".truth")
    arguments: list[str | Path] = [program, f"{ttft_s * 1e9:.0f}", f"{itl_s * 1e9:.0f}", str(tokens), file]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        server = TruthServer(f"http://127.0.0.1:{process.stdout.readline().strip()}")
        try:
            yield server
        finally:
            used = psutil.Process(process.pid).cpu_times()
            server.cpu_s = used.user + used.system
            process.send_signal(signal.SIGTERM)
            process.wait()
    server.seen.update(read_truth(file))


def read_truth(file: Path) -> Iterator[tuple[int, Truth]]:
    """Return what the server wrote, by serial number."""
    numbers = np.fromfile(file, dtype=np.int64)
    place = 0
    while place < len(numbers):
        serial, received_ns, count = numbers[place : place + 3].tolist()
        place += 3 + count
        yield serial, Truth(received_ns, numbers[place - count : place])
