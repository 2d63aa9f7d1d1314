"""The fault matrix of the docker launcher: python -m tests.benchmarks.docker_faults [WORDS OF A ROW]

Makes two Docker hosts, lets every fault happen once to an engine over both, and prints what was noticed,
after how many seconds, how long the clean-up took, and what was left. Exits 1 if a row is not as promised.
"""

import os
import sys
import tempfile
from pathlib import Path

from tests.support.docker_faults import CLEAN, Fault, Seen, faults, happen
from tests.testbed.bed import Bed, reason_against
from tests.testbed.image import load_everywhere


def main() -> None:
    reason = reason_against()
    if reason is not None:
        sys.exit(f"no Docker hosts can be had on this machine: {reason}")
    bed = Bed(f"m{os.getpid() % 100000}")
    words = " ".join(sys.argv[1:])
    try:
        bed.up()
        load_everywhere(bed)
        os.environ["PATH"] = f"{bed.folder}/bin:{os.environ['PATH']}"
        print(f"{'fault':40} {'noticed as':24} {'after s':>8} {'clean-up s':>10} {'left':>4}  end")
        wrong = [fault.name for fault in faults(bed) if words in fault.name and not shown(bed, fault)]
    finally:
        bed.wipe()
    if wrong:
        sys.exit(f"not as promised: {', '.join(wrong)}")


def shown(bed: Bed, fault: Fault) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        seen = happen(bed, fault, Path(folder))
    kind = "(goes on)" if seen.kind is None else seen.kind.value
    detection = "-" if seen.kind is None else f"{seen.detection_s:.1f}"
    end = "clean" if seen.ends == CLEAN else seen.ends[:60]
    print(f"{fault.name:40} {kind:24} {detection:>8} {seen.teardown_s:10.1f} {len(seen.left):4}  {end}")
    return is_as_promised(fault, seen)


def is_as_promised(fault: Fault, seen: Seen) -> bool:
    is_in_time = seen.kind is None or seen.detection_s <= fault.limit_s
    is_right_end = seen.ends == CLEAN if fault.ends == CLEAN else fault.ends in seen.ends
    return seen.kind in fault.kinds and not seen.left and is_in_time and is_right_end


if __name__ == "__main__":
    main()
