"""The fault matrix of the docker launcher: python -m tests.benchmarks.docker_faults [WORDS OF A ROW]

Makes two Docker hosts, lets every fault happen once to an engine over both, and prints what was noticed,
after how many seconds, how long the clean-up took, and what was left. `--in-a-row N [SEED]` draws N of them
instead, and compares all that is on the hosts after each. Exits 1 if a row is not as promised.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.docker_faults import CLEAN, Fault, Seen, faults, happen, is_as_promised
from tests.support.docker_ordeal import endure
from tests.testbed.bed import Bed, reason_against
from tests.testbed.image import load_everywhere


def main() -> None:
    reason = reason_against()
    if reason is not None:
        sys.exit(f"no Docker hosts can be had on this machine: {reason}")
    bed = Bed(f"m{os.getpid() % 100000}")
    try:
        bed.up()
        load_everywhere(bed)
        os.environ["PATH"] = f"{bed.folder}/bin:{os.environ['PATH']}"
        print(f"{'fault':40} {'noticed as':24} {'after s':>8} {'clean-up s':>10} {'left':>4}  end")
        with tempfile.TemporaryDirectory() as folder:
            wrong = list(shown(bed, Path(folder), sys.argv[1:]))
    finally:
        bed.wipe()
    if wrong:
        sys.exit(f"not as promised: {', '.join(wrong)}")


def shown(bed: Bed, folder: Path, words: list[str]) -> Iterator[str]:
    """Let faults happen and print each; yield the names of those that were not as promised."""
    for fault, seen, left in happened(bed, folder, words):
        print_row(fault, seen, left)
        if left or not is_as_promised(fault, seen):
            yield fault.name


def happened(bed: Bed, folder: Path, words: list[str]) -> Iterator[tuple[Fault, Seen, tuple[str, ...]]]:
    if words[:1] == ["--in-a-row"]:
        launches, seed, *_ = [int(word) for word in [*words[1:], "1"]]
        for launched in endure(bed, launches, seed, folder):
            yield launched.fault, launched.seen, launched.changed
        return
    for number, fault in enumerate(faults(bed)):
        if " ".join(words) in fault.name:
            seen = happen(bed, fault, folder / str(number))
            yield fault, seen, seen.left


def print_row(fault: Fault, seen: Seen, left: tuple[str, ...]) -> None:
    kind = "(goes on)" if seen.kind is None else seen.kind.value
    detection = "-" if seen.kind is None else f"{seen.detection_s:.1f}"
    end = "clean" if seen.ends == CLEAN else seen.ends[:60]
    print(
        f"{fault.name:40} {kind:24} {detection:>8} {seen.teardown_s:10.1f} {len(left):4}  {end}", flush=True
    )
    for text in left:
        print(f"    left: {text}")


if __name__ == "__main__":
    main()
