"""The launcher on real Docker engines, with a program that behaves as SGLang's server does."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from autotune.engine.docker.launcher import DockerLauncher
from autotune.engine.launcher import Launcher
from autotune.engine.plan import LaunchPlan
from tests.engine.launcher_contract import Arrange, LauncherContract, Phases, Situation
from tests.support.docker_plans import SHORT, Wish, containers_on, plan_of, space_of
from tests.testbed.bed import Bed

pytestmark = pytest.mark.docker

_BEHAVIOURS = {
    Situation.GOOD: (),
    Situation.NO_KV_MEMORY: ("no-memory",),
    Situation.NEVER_READY: ("never-ready",),
}


def assert_nothing_left(bed: Bed) -> None:
    assert [name for host in bed.hosts for name in containers_on(host)] == []


class TestContract(LauncherContract):
    @pytest.fixture
    def launcher(self, bed: Bed) -> Launcher:
        return DockerLauncher(space_of(bed).nodes, SHORT)

    @pytest.fixture
    def arrange(self, bed: Bed) -> Arrange:
        def plan(situation: Situation) -> LaunchPlan:
            timeout_s = 2.0 if situation is Situation.NEVER_READY else 20.0
            return plan_of(bed, *_BEHAVIOURS[situation], wish=Wish(ready_timeout_s=timeout_s))

        self.bed = bed
        return plan

    def assert_gone(self, plan: LaunchPlan) -> None:
        assert plan.ranks
        assert_nothing_left(self.bed)


@pytest.mark.parametrize("transport", ["unix", "tcp", "ssh"])
def test_an_engine_starts_over_every_way_to_its_nodes(bed: Bed, tmp_path: Path, transport: str) -> None:
    plan = plan_of(bed, wish=Wish(transport=transport))
    nodes = [rank.node for rank in plan.ranks]
    with DockerLauncher(nodes, SHORT).launch(plan, tmp_path, Phases()) as engine:
        assert engine.failure() is None
        assert engine.effective.image_digest is not None
        assert engine.effective.image_digest.startswith("sha256:")
    assert_nothing_left(bed)
    assert "fired up" in (tmp_path / "engine-rank0.log").read_text()
    assert "Init parallel ends" in (tmp_path / "engine-rank1.log").read_text()


def test_two_slots_run_engines_of_their_own_at_the_same_time(bed: Bed, tmp_path: Path) -> None:
    launcher = DockerLauncher(space_of(bed).nodes, SHORT)
    both_run = Barrier(2, timeout=60)

    def run(name: str) -> list[str]:
        plan = plan_of(bed, wish=Wish(names=name))
        with launcher.launch(plan, tmp_path / name, Phases()) as engine:
            both_run.wait()
            assert engine.failure() is None
            names = containers_on(bed[name])
            both_run.wait()
            return names

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(run, "ab"))
    assert [len(names) for names in found] == [1, 1]
    assert_nothing_left(bed)


def test_a_segment_that_an_engine_leaves_in_the_nodes_shared_memory_is_removed(
    bed: Bed, tmp_path: Path
) -> None:
    wish = Wish(container={"ipc": "host"})
    bed["a"].sh("touch", "/dev/shm/psm_older", "/dev/shm/another")  # noqa: S108 - what is tested
    plan = plan_of(bed, wish=wish)
    with DockerLauncher(space_of(bed).nodes, SHORT).launch(plan, tmp_path, Phases()):
        bed["a"].sh("touch", "/dev/shm/psm_leaked", "/dev/shm/newer")  # noqa: S108 - as above
    left = bed["a"].sh("ls", "/dev/shm").split()  # noqa: S108 - as above
    assert "psm_leaked" not in left
    assert {"another", "newer", "psm_older"} <= set(left)
    bed["a"].sh("sh", "-c", "rm /dev/shm/psm_* /dev/shm/another /dev/shm/newer")
