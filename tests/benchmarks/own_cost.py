"""What autotune itself costs, beside its limits: python -m tests.benchmarks.own_cost

CPU seconds of whole processes (user and system, children included), the median of several runs, since wall
time on a shared machine says little. The last row is the tuner's own share of a real trial: what a study with
engines that take no time at all spends per trial, over the 15 minutes that a launch of a 671B model takes.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from autotune.search.budget import Budget
from autotune.tuner import tune
from tests.support.scripted import Script, ScriptedLauncher
from tests.support.trials import STUDY

INPUTS = ("search_spaces/deepseek-r1-2x8h100.yaml", "slo/ttft-p95-10s-at-50.yaml")
REAL_TRIAL_S = 15 * 60.0
PROGRAM = "from autotune.cli import main; main()"


def main() -> None:
    rows = [
        ("autotune --help, CPU s", 0.3, median_of(5, lambda: cpu_of("--help"))),
        ("40-trial simulated study, CPU s", 10.0, median_of(3, simulated_study)),
        ("tuner's own share of a 15-minute trial, %", 1.0, own_share_percent()),
    ]
    print(f"{'what':45} {'limit':>8} {'measured':>9} {'ratio':>6}")
    for what, limit, measured in rows:
        print(f"{what:45} {limit:8.3g} {measured:9.3g} {measured / limit:6.2f}")


def median_of(count: int, measure: Callable[[], float]) -> float:
    measure()  # the first run warms the file cache
    return statistics.median(measure() for _ in range(count))


def cpu_of(*arguments: str) -> float:
    before = os.times()
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=False, capture_output=True)
    after = os.times()
    assert done.returncode in (0, 1), done.stderr.decode()
    return after.children_user + after.children_system - before.children_user - before.children_system


def simulated_study() -> float:
    with tempfile.TemporaryDirectory() as runs:
        return cpu_of("tune", *INPUTS, "--launcher", "simulated", "--trials", "40", "--runs", runs)


def own_share_percent() -> float:
    launcher = ScriptedLauncher(
        lambda flags, _: Script(gap_s=2.0 / int(flags.get("max-running-requests", 32)))
    )
    with tempfile.TemporaryDirectory() as folder:
        began_s = time.perf_counter()
        tune(STUDY, launcher, Budget(launches=40), Path(folder), observe=lambda _: None)
        spent_s = time.perf_counter() - began_s
    return 100 * spent_s / len(launcher.launches) / REAL_TRIAL_S


if __name__ == "__main__":
    main()
