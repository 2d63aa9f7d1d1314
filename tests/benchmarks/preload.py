"""What preloading saves: seconds until the real SGLang on this machine's CPU is ready, and until it is gone.

usage: AUTOTUNE_SGLANG_CPU=DIR python -m tests.benchmarks.preload [LAUNCHES]
DIR is what tests/real_engine/setup.sh made. Prints a table; the first preloaded launch waits for the import.

Measured on two cores, at real-time priority beside other work (SGLang 0.5.23, 6 launches each):
| start | first ready, s | later ready, s: median (range) | gone, s | bad flag refused, s |
| each by itself | 9.3 | 9.4 (9.2 to 10.0) | 5.2 | 5.6 |
| preload: true | 10.2 | 2.9 (2.9 to 3.0) | 5.0 | 0.4 |
"""

import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

from autotune.engine.launcher import Launcher
from autotune.engine.launchers import open_launcher
from autotune.engine.plan import plan_launch
from autotune.failure import EngineError
from autotune.space import Candidate, FlagValue, SearchSpace
from tests.real_engine import cpu


def space(*, preload: bool) -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "version": "0.5.23",
            "model": str(cpu.folder() / "model"),
            "launcher": "process",
            "command": [cpu.python(), "-m", "sglang.launch_server"],
            "environment": cpu.environment(),
            "preload": preload,
            "flags": cpu.flags(),
            "tune": {"max-running-requests": {"int": [1, 8]}, "schedule-policy": {"choices": ["fcfs", "no"]}},
            "port": 31777,
        }
    )


def timed(name: str, launches: int, *, preload: bool) -> str:
    """Launch the default several times and a bad flag once; return a row of the table."""
    asked = space(preload=preload)
    launcher = open_launcher(asked, seed=0)
    runs = [seconds_of(launcher, asked, {"max-running-requests": 8}) for _ in range(launches)]
    _, refused_s = seconds_of(launcher, asked, {"schedule-policy": "no"})
    first, *later = (ready_s for ready_s, _ in runs)
    gone_s = median(seconds for _, seconds in runs)
    shown = f"{median(later):.1f} ({min(later):.1f} to {max(later):.1f})"
    return f"| {name} | {first:.1f} | {shown} | {gone_s:.1f} | {refused_s:.1f} |"


def seconds_of(launcher: Launcher, asked: SearchSpace, flags: dict[str, FlagValue]) -> tuple[float, float]:
    """Return the seconds until it was ready, and from then until gone; the first are 0 if it never was."""
    plan = plan_launch(asked, Candidate.of(flags), study="bench", trial="1")
    began_s = time.monotonic()
    ready_s = began_s
    with (
        tempfile.TemporaryDirectory() as folder,
        suppress(EngineError),
        launcher.launch(plan, Path(folder), lambda _: None),
    ):
        ready_s = time.monotonic()
    return ready_s - began_s, time.monotonic() - ready_s


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    print("| start | first ready, s | later ready, s: median (range) | gone, s | bad flag refused, s |")
    print("|---|---|---|---|---|")
    print(timed("each by itself", count, preload=False), flush=True)
    print(timed("preload: true", count, preload=True), flush=True)
