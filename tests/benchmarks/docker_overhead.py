"""What the docker launcher itself takes per trial over ssh: python -m tests.benchmarks.docker_overhead [N]

All of a launch but its engine's time: from the call to the proof, less the time from the start of its
containers until it serves. The first one also opens what later ones find in caches.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from autotune.engine.docker.launcher import DockerLauncher
from tests.support.docker_plans import SHORT, plan_of
from tests.testbed.bed import Bed, reason_against
from tests.testbed.image import load_everywhere


def main() -> None:
    reason = reason_against()
    if reason is not None:
        sys.exit(f"no Docker hosts can be had on this machine: {reason}")
    bed = Bed(f"o{os.getpid() % 100000}")
    try:
        bed.up()
        load_everywhere(bed)
        os.environ["PATH"] = f"{bed.folder}/bin:{os.environ['PATH']}"
        found_s = overheads_s(bed, int((sys.argv[1:] or ["10"])[0]))
    finally:
        bed.wipe()
    later_s = found_s[1:]
    print(
        f"first {found_s[0]:.2f} s, then median {statistics.median(later_s):.2f} s, most {max(later_s):.2f} s"
    )


def overheads_s(bed: Bed, launches: int) -> list[float]:
    """Return the seconds of each launch that were not its engine's."""
    launcher, found_s = DockerLauncher([rank.node for rank in plan_of(bed).ranks], SHORT), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(launches):
            began_s = time.monotonic()
            with launcher.launch(plan_of(bed), Path(folder) / str(number), lambda _: None) as engine:
                engine_s = sum(engine.phases_s.values())
            found_s.append(time.monotonic() - began_s - engine_s)
    return found_s


if __name__ == "__main__":
    main()
