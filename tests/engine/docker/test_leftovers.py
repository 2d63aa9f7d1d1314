"""What a killed controller leaves is removed by the next one; what belongs to others is not touched."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from autotune.engine.docker.container import CONTROLLER_LABEL, STUDY_LABEL
from autotune.engine.docker.launcher import DockerLauncher
from tests.engine.launcher_contract import Phases
from tests.support.docker_plans import SHORT, client_of, containers_on, plan_of, space_of
from tests.testbed.bed import Bed, wait_until
from tests.testbed.image import IMAGE

pytestmark = pytest.mark.docker

_STUDY = f"killed-{os.getpid()}"
_ROOT = Path(__file__).parents[3]


@pytest.fixture
def kill_at(bed: Bed, tmp_path: Path) -> Callable[[str], None]:
    def launch_and_kill(phase: str) -> None:
        words = [bed.prefix, _STUDY, str(tmp_path), *(["never-ready"] if phase == "weights" else [])]
        with subprocess.Popen(
            [sys.executable, "-m", "tests.support.docker_controller", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT,
        ) as controller:  # fmt: skip
            assert controller.stdout is not None
            if phase == "probe":
                wait_until(lambda: left(bed) != [], "a container is there")
            else:
                while controller.stdout.readline().strip() != phase:
                    assert controller.poll() is None
            controller.kill()

    return launch_and_kill


def left(bed: Bed) -> list[str]:
    return [name for host in bed.hosts for name in containers_on(host, _STUDY)]


@pytest.mark.parametrize("phase", ["probe", "process", "weights", "serving"])
def test_what_a_killed_controller_left_is_removed_at_the_next_start(
    bed: Bed, kill_at: Callable[[str], None], phase: str
) -> None:
    launcher = DockerLauncher(space_of(bed).nodes, SHORT)
    kill_at(phase)
    time.sleep(0.3)  # what it had asked for may still come true
    before = left(bed)
    assert before or phase == "process"
    assert launcher.remove_leftovers(f"{_STUDY}-other") == ()
    removed = launcher.remove_leftovers(_STUDY)
    assert sorted(name.partition(": ")[2] for name in removed) == sorted(before)
    assert left(bed) == []
    wait_until(lambda: not tunnels_to(bed), "the killed controller's ssh has ended")


def tunnels_to(bed: Bed) -> list[str]:
    """Command lines of the ssh programs that connect to a node of the bed."""
    programs = [process.info for process in psutil.process_iter(["name", "cmdline"])]
    lines = [" ".join(each["cmdline"] or ()) for each in programs if each["name"] == "ssh"]
    return [line for line in lines if str(bed.folder) in line]


def test_what_belongs_to_others_stays(bed: Bed, tmp_path: Path) -> None:
    client = client_of(bed["b"])
    living = {STUDY_LABEL: _STUDY, CONTROLLER_LABEL: f"elsewhere-0/1/{2**31}"}
    foreign = [
        client.create_container(IMAGE, ["sleep", "99"], labels=labels)["Id"]
        for labels in ({}, {STUDY_LABEL: "another"}, living, {STUDY_LABEL: _STUDY})
    ]
    launcher = DockerLauncher(space_of(bed).nodes, SHORT)
    plan = plan_of(bed, study=_STUDY)
    with launcher.launch(plan, tmp_path, Phases()):
        assert launcher.remove_leftovers(_STUDY) == ()
        assert len(left(bed)) == 4
    assert launcher.remove_leftovers(_STUDY) == ()
    for each in foreign:
        assert client.inspect_container(each)["State"]["Status"] == "created"
        client.remove_container(each)
    client.close()
    assert left(bed) == []


def test_a_log_is_whole_though_its_connection_broke(bed: Bed, tmp_path: Path) -> None:
    bed["b"].kill_dockerd()
    bed["b"].start_dockerd("--live-restore")
    plan = plan_of(bed)
    with DockerLauncher(space_of(bed).nodes, SHORT).launch(plan, tmp_path, Phases()) as engine:
        client = client_of(bed["b"])
        bed["b"].kill_dockerd()
        bed["b"].start_dockerd("--live-restore")
        wait_until(lambda: engine.failure() is None and is_running(bed, plan.ranks[1].name), "rank 1 runs on")
        whole = client_of(bed["b"])
        expected = whole.logs(plan.ranks[1].name)
        whole.close()
        client.close()
    assert expected
    assert (tmp_path / "engine-rank1.log").read_bytes() == expected
    bed["b"].kill_dockerd()
    bed["b"].start_dockerd()


def is_running(bed: Bed, name: str) -> bool:
    client = client_of(bed["b"])
    running: bool = client.inspect_container(name)["State"]["Running"]
    client.close()
    return running
