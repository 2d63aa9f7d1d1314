"""Everything that can go wrong with an engine on two Docker hosts, as rows: its making, what must be seen.

`happen` launches the fake engine, lets one fault happen, and tells what was noticed when, and what is left.
Used by the tests and by `python -m tests.benchmarks.docker_faults`.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from autotune.engine.docker.faults import NodeError
from autotune.engine.docker.launcher import DockerLauncher
from autotune.engine.plan import LaunchPlan
from autotune.errors import InfrastructureError
from autotune.failure import EngineError, FailureKind, StartPhase
from tests.support.docker_mishaps import (
    Act,
    Around,
    cut,
    cut_and_heal,
    cut_briefly,
    die,
    fill_disk,
    full_disk,
    gpu_memory_in_use,
    image_on_a_only,
    kill_dockerd,
    kill_rank,
    late_clock,
    live_restore,
    name_in_use,
    no_gpu_driver,
    power_off,
    power_off_and_on,
    remove_rank_1,
    restart_dockerd,
    restart_living_dockerd,
    small_disk,
    stranger_on,
    wall_away,
    wall_up,
    wall_up_briefly,
    walled,
)
from tests.support.docker_plans import (
    PORT,
    SHORT,
    Wish,
    containers_on,
    plan_of,
)
from tests.testbed.bed import Bed

GOES_ON = "goes on"
CLEAN = "clean"
_OVERDUE = {FailureKind.NOT_READY, FailureKind.RENDEZVOUS_TIMEOUT}
SOON_S = 5.0
LINK_S = 15.0


@dataclass(frozen=True)
class Fault:
    """One row. `during`: the phase in which `act` happens, None for a fault that is there from the start.

    `ends`: what the launch's end must be: clean, or an InfrastructureError with these words in it.
    `is_retried`: afterwards the same launcher must launch once more without a fault.
    """

    name: str
    kinds: tuple[FailureKind | None, ...]
    behaviours: tuple[str, ...] = ()
    wish: Wish = field(default_factory=Wish)
    around: Around | None = None
    during: StartPhase | None = None
    act: Act | None = None
    under_load: bool = False
    ends: str = CLEAN
    within_s: float = SOON_S
    is_retried: bool = False

    @property
    def limit_s(self) -> float:
        """What was promised, and the time-out where only that can tell."""
        is_overdue = not _OVERDUE.isdisjoint(self.kinds)
        return self.within_s + (self.wish.ready_timeout_s if is_overdue else 0)


@dataclass(frozen=True)
class Seen:
    """What came of a fault. `kind` None: the engine went on. `left`: containers of the study."""

    kind: FailureKind | None
    line: str
    detection_s: float
    teardown_s: float
    ends: str
    left: tuple[str, ...]


def is_as_promised(fault: Fault, seen: Seen) -> bool:
    """Whether a fault was noticed in time, named rightly, and left nothing."""
    is_in_time = seen.kind is None or seen.detection_s <= fault.limit_s
    is_right_end = seen.ends == CLEAN if fault.ends == CLEAN else fault.ends in seen.ends
    return seen.kind in fault.kinds and not seen.left and is_in_time and is_right_end


class Happening:
    """A launch while a fault happens to it."""

    def __init__(self, bed: Bed, fault: Fault) -> None:
        self.bed = bed
        self.fault = fault
        self.plan = plan_of(bed, *fault.behaviours, wish=fault.wish)
        self.began_s = self.happened_s = time.monotonic()
        self.noticed_s = 0.0
        self.kind: FailureKind | None = None
        self.line = GOES_ON

    def on_phase(self, phase: StartPhase) -> None:
        if phase is self.fault.during and phase is not StartPhase.SERVING:
            self.act()
        elif phase is StartPhase.PROCESS:
            self.began_s = self.happened_s = time.monotonic()

    def act(self) -> None:
        if self.fault.act is not None:
            self.fault.act(self.bed, self.plan)
        self.happened_s = time.monotonic()

    def notice(self, kind: FailureKind | None, line: str, noticed_s: float | None = None) -> None:
        if not self.noticed_s:
            self.noticed_s, self.kind, self.line = noticed_s or time.monotonic(), kind, line

    def run(self, launcher: DockerLauncher, folder: Path) -> str:
        """Return how the launch ended."""
        try:
            self._launch(launcher, folder)
        except EngineError as error:
            failure = error.failure  # it comes out after the clean-up, and tells when it was noticed
            self.notice(failure.kind, failure.line, self.began_s + failure.waited_s)
        except InfrastructureError as error:
            self.notice(error.kind if isinstance(error, NodeError) else None, str(error))
            return str(error)
        return CLEAN

    def _launch(self, launcher: DockerLauncher, folder: Path) -> None:
        with launcher.launch(self.plan, folder, self.on_phase) as engine, loaded(self.plan, self.fault):
            if self.fault.during is StartPhase.SERVING:
                self.act()
            give_up_s = time.monotonic() + self.fault.within_s
            while time.monotonic() < give_up_s and self.fault.during is StartPhase.SERVING:
                failure = engine.failure()
                if failure is not None:
                    self.notice(failure.kind, failure.line)
                    break
                time.sleep(0.05)
            else:
                self.notice(None, GOES_ON)


def happen(bed: Bed, fault: Fault, folder: Path) -> Seen:
    """Let it happen once; afterwards the bed is repaired and what was out of reach is removed."""
    happening = Happening(bed, fault)
    launcher = DockerLauncher([rank.node for rank in happening.plan.ranks], SHORT)
    around = fault.around or nothing_around
    with around(bed, happening.plan):
        ends = happening.run(launcher, folder)
        ended_s = time.monotonic()
        if fault.is_retried and ends == CLEAN:
            ends = Happening(bed, Fault("none", (None,))).run(launcher, folder / "again")
    for host in bed.hosts:
        host.heal()
        host.up()
    if ends != CLEAN:
        launcher.remove_leftovers(dict(happening.plan.labels)["autotune.study"])
    return Seen(
        kind=happening.kind,
        line=happening.line,
        detection_s=happening.noticed_s - happening.happened_s,
        teardown_s=ended_s - happening.noticed_s,
        ends=ends,
        left=tuple(name for host in bed.hosts for name in containers_on(host)),
    )


@contextmanager
def nothing_around(_bed: Bed, _plan: LaunchPlan) -> Iterator[None]:
    yield


@contextmanager
def loaded(plan: LaunchPlan, fault: Fault) -> Iterator[None]:
    """Ask rank 0 again and again, if the fault is to happen under load."""
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.wait(0.02):
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{plan.base_url}/health", timeout=2, trust_env=False)

    askers = [threading.Thread(target=ask) for _ in range(4 if fault.under_load else 0)]
    for asker in askers:
        asker.start()
    try:
        yield
    finally:
        is_over.set()
        for asker in askers:
            asker.join()


def faults(bed: Bed) -> tuple[Fault, ...]:
    """Return all rows."""
    crashed = (FailureKind.CRASHED,)
    lost = (FailureKind.NODE_LOST, FailureKind.DAEMON_UNREACHABLE)
    serving, loading = StartPhase.SERVING, StartPhase.WEIGHTS
    missing = {"mounts": [{"source": "/no/such/folder", "target": "/models"}]}
    full = {"mounts": [{"source": str(bed.folder / "gpu"), "target": "/gpu"}]}
    b_reach = "node-b: "
    return (
        Fault("rank 0 exits before rendezvous", crashed, ("silent-exit@0",)),
        Fault("rank 1 exits before rendezvous", crashed, ("silent-exit@1",)),
        Fault("rank 0 killed while loading", crashed, ("never-ready",), during=loading, act=kill_rank(0)),
        Fault("rank 1 killed while loading", crashed, ("never-ready",), during=loading, act=kill_rank(1)),
        Fault("rank 0 killed after ready", crashed, during=serving, act=kill_rank(0)),
        Fault("rank 1 killed after ready", crashed, during=serving, act=kill_rank(1)),
        Fault("rank 0 exits under load", crashed, during=serving, act=die("exit"), under_load=True),
        Fault("rank 1 killed under load", crashed, during=serving, act=kill_rank(1), under_load=True),
        Fault(
            "CUDA out of memory under load",
            (FailureKind.OUT_OF_MEMORY_SERVING,),
            during=serving,
            act=die("memory"),
            under_load=True,
        ),
        Fault("no KV memory", (FailureKind.NO_KV_MEMORY,), ("no-memory",)),
        Fault("bad argument", (FailureKind.BAD_ARGUMENT,), ("bad-argument",)),
        Fault("hangs after its last words", (FailureKind.OUT_OF_MEMORY_LOADING,), ("cause-then-hang",)),
        Fault(
            "hangs while loading",
            (FailureKind.NOT_READY,),
            ("never-ready",),
            wish=Wish(ready_timeout_s=3.0),
        ),
        Fault(
            "ranks never meet",
            (FailureKind.RENDEZVOUS_TIMEOUT,),
            ("silent-hang@1",),
            wish=Wish(ready_timeout_s=3.0),
        ),
        Fault("ignores SIGTERM", (None,), ("stubborn",), during=serving, within_s=0.2),
        Fault(
            "killed by the kernel: memory limit",
            (FailureKind.CONTAINER_OUT_OF_MEMORY,),
            ("eats-memory@1",),
            wish=Wish(container={"memory": "64m"}),
            during=serving,
        ),
        Fault("rank 1 removed by a stranger", crashed, during=serving, act=remove_rank_1),
        Fault("node b loses power", lost, during=serving, act=power_off, ends=b_reach),
        Fault("node b loses power and comes back", lost, during=serving, act=power_off_and_on),
        Fault("link to b cut", lost, during=serving, act=cut, ends=b_reach, within_s=LINK_S),
        Fault("link to b cut for 14 s", lost, during=serving, act=cut_and_heal, within_s=LINK_S),
        Fault(
            "link to b cut for 14 s, launched again",
            lost,
            during=serving,
            act=cut_and_heal,
            within_s=LINK_S,
            is_retried=True,
        ),
        Fault("link to b cut for 1.5 s", (None,), during=serving, act=cut_briefly, within_s=8.0),
        Fault(
            "link between the nodes cut",
            lost,
            around=wall_away,
            during=serving,
            act=wall_up,
            within_s=LINK_S,
        ),
        Fault("link between them cut for 3 s", (None,), during=serving, act=wall_up_briefly, within_s=13.0),
        Fault("link between them cut before", lost, around=walled, ends="no way to", within_s=LINK_S),
        Fault("disk full on b", (FailureKind.DISK_FULL,), around=full_disk, ends="no space left on device"),
        Fault(
            "disk of b fills up under load",
            (None,),
            around=small_disk,
            during=serving,
            act=fill_disk,
            under_load=True,
            within_s=3.0,
            ends="no space left on device",
        ),
        Fault("dockerd on b killed", lost, during=serving, act=kill_dockerd, ends=b_reach),
        Fault("dockerd on b restarted", crashed, during=serving, act=restart_dockerd),
        Fault(
            "dockerd on b restarted, live-restore",
            (None,),
            around=live_restore,
            during=serving,
            act=restart_living_dockerd,
        ),
        Fault(
            "port taken on b",
            (FailureKind.PORT_BUSY,),
            around=stranger_on(PORT, "b"),
            ends=rf"port {PORT} is held by pid",
        ),
        Fault(
            "port to meet at taken on a",
            (None,),
            around=stranger_on(20003, "a"),
            during=serving,
            within_s=0.2,
        ),
        Fault(
            "image missing on b",
            (FailureKind.IMAGE_MISSING,),
            wish=Wish(keys={"image": "only-here:1"}),
            around=image_on_a_only,
            ends="no image only-here:1",
        ),
        Fault(
            "bind source missing",
            (FailureKind.BIND_SOURCE_MISSING,),
            wish=Wish(keys=missing),
            ends="/no/such/folder",
        ),
        # `autotune check` tells of it; no launch depends on a node's clock.
        Fault("clock of b half a minute late", (None,), around=late_clock, during=serving, within_s=2.0),
        Fault("name in use on b", (FailureKind.NAME_TAKEN,), around=name_in_use, ends="already in use"),
        Fault(
            "GPU driver broken on b",
            (FailureKind.DRIVER_ERROR,),
            wish=Wish(gpus=2),
            around=no_gpu_driver,
            ends="driver not loaded",
        ),
        Fault(
            "GPU memory in use",
            (FailureKind.GPU_MEMORY_HELD,),
            wish=Wish(gpus=2, keys=full),
            around=gpu_memory_in_use,
            ends="70000 MiB of GPU 0 are in use",
        ),
    )
