"""Many launches in a row over two hosts, a random fault in each: what is left, and was anything else touched.

`endure` is used by a test with few launches and by `python -m tests.benchmarks.docker_faults --in-a-row N`.
"""

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.docker_faults import Fault, Seen, faults, happen
from tests.support.docker_plans import client_of, processes_of, strangers
from tests.testbed.bed import Bed, Host
from tests.testbed.image import IMAGE

_FOREIGN = "foreign"


@dataclass(frozen=True)
class Launched:
    """One launch of a row. `changed`: what differs on the hosts or here from before the first one."""

    fault: Fault
    seen: Seen
    changed: tuple[str, ...]


def endure(bed: Bed, launches: int, seed: int, folder: Path) -> Iterator[Launched]:
    """Launch again and again beside foreign containers, and look after every launch."""
    drawn = random.Random(seed)  # noqa: S311 - to be drawn again
    rows = faults(bed)
    with foreign_containers(bed):
        before = everything(bed)
        for number in range(launches):
            fault = drawn.choice(rows)
            seen = happen(bed, fault, folder / str(number))
            yield Launched(fault, seen, differences(before, everything(bed)))


def everything(bed: Bed) -> Mapping[str, object]:
    """All that a launch could leave, on the hosts and on this machine."""
    here: dict[str, object] = {
        "ssh programs here": ssh_programs(bed),
        "threads here": sorted(thread.name for thread in threading.enumerate() if "node-" in thread.name),
    }
    return here | {f"{key} on {host.name}": value for host in bed.hosts for key, value in on(host).items()}


def on(host: Host) -> Mapping[str, object]:
    engines = [*processes_of(host, "fake_engine"), *processes_of(host, "python3 -IS")]
    return {**strangers(host), "processes": engines}


def ssh_programs(bed: Bed) -> list[str]:
    """Command lines of the ssh programs that connect to a node of the bed."""
    programs = [process.info for process in psutil.process_iter(["name", "cmdline"])]
    lines = [" ".join(each["cmdline"] or ()) for each in programs if each["name"] == "ssh"]
    return [line for line in lines if str(bed.folder) in line]


def differences(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key])


@contextmanager
def foreign_containers(bed: Bed) -> Iterator[None]:
    """Somebody else's container on every host."""
    clients = [client_of(host) for host in bed.hosts]
    for client in clients:
        client.create_container(IMAGE, ["sleep", "99999"], name=_FOREIGN)
        client.start(_FOREIGN)
    try:
        yield
    finally:
        for client in clients:
            client.remove_container(_FOREIGN, force=True)
            client.close()
