"""Studies over the hosts of a test bed, with autotune's own simulator behind HTTP as their engine."""

import os
import subprocess
import sys
from pathlib import Path

from tests.testbed.bed import Bed

_ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-c", "from autotune.cli import main; main()")
_SIMULATOR = [
    "python3", "-c", PROGRAM[-1], "simulate-server", "llama-8b-1xh100",
    "--time-scale", "20", "--start-scale", "0.02",
]  # fmt: skip
SLO = """
workload: {input_tokens: 256, output_tokens: 32, seed: 7}
load:
  - {concurrency: 4, requests: 24}
ceilings:
  - ttft p50 < 60s at concurrency 4
objective: maximise output_throughput at concurrency 4
"""


def simulator_keys() -> dict[str, object]:
    """What makes the simulator, behind HTTP, the engine of a search space."""
    return {
        "command": _SIMULATOR,
        "flags": {"tp-size": 2},
        # 0.05 of the GPU does not hold the weights: the engine fails with what it would need.
        "tune": {
            "chunked-prefill-size": {"choices": [512, 2048, 8192]},
            "mem-fraction-static": {"choices": [0.05, 0.8]},
        },
        "baseline": {"chunked-prefill-size": 2048, "mem-fraction-static": 0.8},
        "ready_timeout_s": 60,
    }


def tune_command(folder: Path, *options: str) -> list[str]:
    """The command that tunes the files of a folder."""
    files = (str(folder / "space.yaml"), str(folder / "slo.yaml"), "--study", "two-hosts")
    fixed = ("--sampler", "random", "--finalists", "1", "--rounds", "2")
    return [*PROGRAM, "tune", *files, *fixed, *options]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(_ROOT)}


def left_on(bed: Bed) -> list[str]:
    """Names of all containers on the nodes."""
    return [name for host in bed.hosts for name in names_on(host.unix)]


def names_on(address: str) -> list[str]:
    done = subprocess.run(
        ["docker", "-H", address, "ps", "-a", "--format", "{{.Names}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()
