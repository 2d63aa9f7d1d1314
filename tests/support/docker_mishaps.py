"""What can happen to an engine on a test bed's hosts, and what can be wrong with them from the start."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias

import httpx

from autotune.engine.plan import LaunchPlan
from tests.support import late_clock as late_clock_program
from tests.support.docker_plans import client_of, kill_container
from tests.testbed.bed import Bed, Host
from tests.testbed.image import IMAGE

Act: TypeAlias = Callable[[Bed, LaunchPlan], None]
Around: TypeAlias = Callable[[Bed, LaunchPlan], AbstractContextManager[None]]


def kill_rank(rank: int) -> Act:
    def act(bed: Bed, plan: LaunchPlan) -> None:
        kill_container(bed.hosts[rank], plan.ranks[rank].name)

    return act


def die(how: str) -> Act:
    def act(_bed: Bed, plan: LaunchPlan) -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(f"{plan.base_url}/die?{how}", timeout=2, trust_env=False)

    return act


def remove_rank_1(bed: Bed, plan: LaunchPlan) -> None:
    client = client_of(bed["b"])
    client.remove_container(plan.ranks[1].name, force=True)
    client.close()


def power_off(bed: Bed, _plan: LaunchPlan) -> None:
    bed["b"].kill()


def power_off_and_on(bed: Bed, _plan: LaunchPlan) -> None:
    bed["b"].kill()
    later(6.0, bed["b"].up)


def cut(bed: Bed, _plan: LaunchPlan) -> None:
    bed["b"].cut()


def cut_briefly(bed: Bed, _plan: LaunchPlan) -> None:
    bed["b"].cut()
    later(1.5, bed["b"].heal)


def cut_and_heal(bed: Bed, _plan: LaunchPlan) -> None:
    bed["b"].cut()
    later(14.0, bed["b"].heal)


def kill_dockerd(bed: Bed, _plan: LaunchPlan) -> None:
    bed["b"].kill_dockerd()


def wall(bed: Bed, verb: str) -> None:
    """Put up (-I) or take away (-D) a wall between the nodes, of which this machine notices nothing."""
    for chain, side in (("INPUT", "-s"), ("OUTPUT", "-d")):
        bed["b"].sh("iptables", verb, chain, side, bed["a"].address, "-j", "DROP")


def wall_up(bed: Bed, _plan: LaunchPlan) -> None:
    wall(bed, "-I")


def wall_up_briefly(bed: Bed, _plan: LaunchPlan) -> None:
    wall(bed, "-I")
    later(3.0, lambda: wall(bed, "-D"))


def restart_dockerd(bed: Bed, _plan: LaunchPlan) -> None:
    bed["b"].kill_dockerd()
    bed["b"].start_dockerd()


def restart_living_dockerd(bed: Bed, _plan: LaunchPlan) -> None:
    bed["b"].kill_dockerd()
    bed["b"].start_dockerd("--live-restore")


_timers: list[threading.Timer] = []


def later(seconds: float, act: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, act)
    _timers.append(timer)
    timer.start()


# ---- what is there from the start


@contextmanager
def live_restore(bed: Bed, _plan: LaunchPlan) -> Iterator[None]:
    bed["b"].kill_dockerd()
    bed["b"].start_dockerd("--live-restore")
    yield
    bed["b"].kill_dockerd()
    bed["b"].start_dockerd()


def children_of(pid: int) -> list[int]:
    """Return the processes that a program runs on a node."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def running_on(host: Host, *argv: str) -> Iterator[None]:
    """Run a program on a node: from its first line of output on, until the context ends."""
    with subprocess.Popen([*host.enter(), *argv], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        try:
            yield
        finally:
            for pid in children_of(program.pid):
                os.kill(pid, signal.SIGKILL)


def stranger_on(port: int, host: str) -> Around:
    @contextmanager
    def around(bed: Bed, _plan: LaunchPlan) -> Iterator[None]:
        listen = f"import socket, time; s = socket.create_server(('', {port}))"
        program = f"{listen}; print('up', flush=True); time.sleep(99)"
        with running_on(bed[host], "python3", "-c", program):
            yield

    return around


@contextmanager
def image_on_a_only(bed: Bed, _plan: LaunchPlan) -> Iterator[None]:
    client = client_of(bed["a"])
    client.tag(IMAGE, "only-here", "1")
    yield
    client.remove_image("only-here:1")
    client.close()


@contextmanager
def walled(bed: Bed, plan: LaunchPlan) -> Iterator[None]:
    wall_up(bed, plan)
    yield
    wall(bed, "-D")


@contextmanager
def wall_away(bed: Bed, _plan: LaunchPlan) -> Iterator[None]:
    """Take away in the end what is put up meanwhile."""
    yield
    wall(bed, "-D")


@contextmanager
def full_disk(bed: Bed, _plan: LaunchPlan) -> Iterator[None]:
    """Put a disk of one page where the engine on b writes down its containers."""
    folder = str(bed["b"].folder / "data/containers")
    bed["b"].sh("mount", "-t", "tmpfs", "-o", "size=4k", "full", folder)
    yield
    bed["b"].sh("umount", "-l", folder)


@contextmanager
def small_disk(bed: Bed, _plan: LaunchPlan) -> Iterator[None]:
    """Put a disk that `fill_disk` fills where the engine on b writes down its containers."""
    folder = str(bed["b"].folder / "data/containers")
    bed["b"].sh("mount", "-t", "tmpfs", "-o", "size=2m", "small", folder)
    yield
    bed["b"].sh("umount", "-l", folder)


def fill_disk(bed: Bed, _plan: LaunchPlan) -> None:
    filler = bed["b"].folder / "data/containers/filler"
    bed["b"].sh("dd", "if=/dev/zero", f"of={filler}", "bs=4k", is_checked=False)


@contextmanager
def late_clock(bed: Bed, _plan: LaunchPlan) -> Iterator[None]:
    """Let the engine on b tell a time that is half a minute behind."""
    told, true = bed["b"].socket, bed["b"].socket.with_suffix(".true")
    told.rename(true)
    try:
        with running_on(bed["b"], sys.executable, late_clock_program.__file__, str(told), str(true), "-30"):
            yield
    finally:
        true.rename(told)


@contextmanager
def name_in_use(bed: Bed, plan: LaunchPlan) -> Iterator[None]:
    client = client_of(bed["b"])
    name = plan.ranks[1].name
    client.create_container(IMAGE, ["sleep", "99"], name=name)
    yield
    assert client.inspect_container(name)["State"]["Status"] == "created"
    client.remove_container(name)
    client.close()


@contextmanager
def no_gpu_driver(bed: Bed, _plan: LaunchPlan) -> Iterator[None]:
    broken = bed["b"].folder / "gpu-fail"
    broken.touch()
    yield
    broken.unlink()


@contextmanager
def gpu_memory_in_use(bed: Bed, _plan: LaunchPlan) -> Iterator[None]:
    folder = bed.folder / "gpu"
    folder.mkdir(exist_ok=True)
    (folder / "used-mib").write_text("70000\n")
    yield
    (folder / "used-mib").unlink()
