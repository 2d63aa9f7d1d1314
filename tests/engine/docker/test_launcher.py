"""The launcher on real Docker engines, with a program that behaves as SGLang's server does."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from autotune.engine.docker.launcher import DockerLauncher
from autotune.engine.launcher import Launcher
from autotune.engine.phase_budgets import BudgetRule
from autotune.engine.plan import LaunchPlan
from autotune.errors import InfrastructureError
from autotune.failure import EngineError, FailureKind, StartPhase
from tests.engine.launcher_contract import Arrange, LauncherContract, Phases, Situation
from tests.support.docker_mishaps import stranger_on
from tests.support.docker_plans import PORT, SHORT, Wish, containers_on, plan_of, space_of
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


def test_a_phase_that_takes_far_longer_than_in_earlier_launches_ends_the_launch(
    bed: Bed, tmp_path: Path
) -> None:
    rule = BudgetRule(launches=1, factor=4.0, floor_s=1.0)
    patience = replace(SHORT, watch=replace(SHORT.watch, phases=rule))
    launcher = DockerLauncher(space_of(bed).nodes, patience)
    with launcher.launch(plan_of(bed, "slow-weights"), tmp_path / "0", Phases()):
        pass
    stuck = plan_of(bed, "never-ready", wish=Wish(ready_timeout_s=60.0))
    with pytest.raises(EngineError) as caught, launcher.launch(stuck, tmp_path / "1", Phases()):
        pytest.fail("it must not become ready")
    failure = caught.value.failure
    assert (failure.kind, failure.phase) == (FailureKind.NOT_READY, StartPhase.WEIGHTS)
    assert "in phase weights, which took " in failure.line
    assert failure.waited_s < 30
    assert_nothing_left(bed)


def test_a_node_that_is_not_clean_is_refused_and_the_other_serves(bed: Bed, tmp_path: Path) -> None:
    launcher = DockerLauncher(space_of(bed).nodes, SHORT)
    on_a, on_b = (plan_of(bed, wish=Wish(names=name)) for name in "ab")
    with stranger_on(PORT, "a")(bed, on_a):
        with pytest.raises(InfrastructureError, match="node-a: before the launch, port"):
            launcher.launch(on_a, tmp_path / "a", Phases()).__enter__()
        with launcher.launch(on_b, tmp_path / "b", Phases()) as engine:
            assert engine.failure() is None
    with launcher.launch(on_a, tmp_path / "again", Phases()) as engine:
        assert engine.failure() is None
    assert_nothing_left(bed)


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
