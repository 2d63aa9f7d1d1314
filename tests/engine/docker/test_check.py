"""What `autotune check` finds on real Docker nodes."""

import subprocess
from pathlib import Path

import pytest

from autotune.engine.docker.check import docker_problems
from autotune.engine.plan import plan_launch
from autotune.errors import Problem
from autotune.space import Candidate, SearchSpace
from tests.support.docker_mishaps import (
    gpu_memory_in_use,
    image_on_a_only,
    late_clock,
    no_gpu_driver,
    stranger_on,
)
from tests.support.docker_plans import PORT, Wish, containers_on, plan_of, space_of
from tests.testbed.bed import Bed

pytestmark = pytest.mark.docker


def problems_of(space: SearchSpace) -> tuple[Problem, ...]:
    plans = [plan_launch(slot, Candidate.of({}), study="check", trial="check") for slot in space.slots]
    return docker_problems(list(zip(space.slots, plans, strict=True)))


def told(space: SearchSpace) -> str:
    return "\n".join(map(str, problems_of(space)))


def test_two_good_nodes_have_no_problem_and_keep_nothing(bed: Bed) -> None:
    space = space_of(bed, wish=Wish(gpus=2, keys={"environment": {"NCCL_SOCKET_IFNAME": "eth"}}))
    assert problems_of(space) == ()
    assert [name for host in bed.hosts for name in containers_on(host, "check")] == []


def test_all_problems_are_told_at_once_each_with_a_remedy(bed: Bed, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    keys: dict[str, object] = {
        "model": "/models",
        "mounts": [{"source": str(tmp_path / "models"), "target": "/models"}],
        "environment": {"GLOO_SOCKET_IFNAME": "=ib0", "NCCL_SOCKET_IFNAME": "^docker"},
        "container": {"ipc": "host", "ulimits": {}},
    }
    with stranger_on(PORT, "b")(bed, plan_of(bed)):
        problems = problems_of(space_of(bed, wish=Wish(gpus=4, keys=keys)))
    text = "\n".join(map(str, problems))
    assert f"node-b: port {PORT} is held by pid" in text
    assert f"node-a: port {PORT}" not in text
    assert "node-a: no interface ib0; there are " in text
    assert "node-b: the container sees no files in /models" in text
    assert "node-a: 2 GPUs instead of 4" in text
    assert "node-b: /dev/shm has 512 MiB" in text
    assert all(problem.remedy for problem in problems)


def test_a_node_out_of_reach_does_not_hide_the_others_problems(bed: Bed) -> None:
    bed["b"].cut()
    keys = {"mounts": [{"source": "/no/such/folder", "target": "/x"}]}
    text = told(space_of(bed, wish=Wish(keys=keys)))
    assert "node-b: ssh:" in text
    assert "Try: ssh root@" in text
    assert "node-a: " in text
    assert "bind source path does not exist: /no/such/folder" in text


def test_a_clock_that_is_off_is_told(bed: Bed) -> None:
    with late_clock(bed, plan_of(bed)):
        text = told(space_of(bed))
    assert "node-b: its clock is -30." in text
    assert "Start NTP" in text
    assert "node-a" not in text


def test_images_gpus_and_their_memory_are_looked_at(bed: Bed) -> None:
    plan = plan_of(bed)
    with image_on_a_only(bed, plan):
        assert "node-b: no image only-here:1" in told(space_of(bed, wish=Wish(keys={"image": "only-here:1"})))
    with no_gpu_driver(bed, plan):
        assert "node-b: " in told(space_of(bed, wish=Wish(gpus=2)))
    keys = {"mounts": [{"source": str(bed.folder / "gpu"), "target": "/gpu"}]}
    with gpu_memory_in_use(bed, plan):
        assert "node-a: 70000 MiB of GPU 1 are in use" in told(space_of(bed, wish=Wish(gpus=2, keys=keys)))


def test_models_that_differ_in_size_and_a_wall_between_the_nodes_are_found(bed: Bed) -> None:
    # The nodes share a disk here; their /dev/shm are their own.
    for name, text in (("a", "weights"), ("b", "half")):
        bed[name].sh("sh", "-c", f"mkdir -p /dev/shm/model; printf {text} > /dev/shm/model/x.safetensors")
    keys = {"model": "/models", "mounts": [{"source": "/dev/shm/model", "target": "/models"}]}  # noqa: S108 - above
    wall = ("OUTPUT", "-p", "tcp", "-d", bed["a"].address, "--dport", "20000", "-j", "DROP")
    bed["b"].sh("iptables", "-I", *wall)
    try:
        text = told(space_of(bed, wish=Wish(keys=keys)))
    finally:
        bed["b"].sh("iptables", "-D", *wall)
    assert "node-b: /models holds other files than on node-a" in text
    assert f"node-b: no way to {bed['a'].address}:20000" in text


def test_an_unknown_host_key_is_refused_and_told(bed: Bed) -> None:
    known = bed.folder / "ssh/known_hosts"
    before = known.read_text()
    other = subprocess.run(
        ["ssh-keygen", "-y", "-f", bed.folder / "ssh/id_ed25519"], capture_output=True, text=True, check=True
    )
    known.write_text("".join(f"{host.address} {other.stdout}" for host in bed.hosts))
    try:
        assert "Host key verification failed" in told(space_of(bed))
    finally:
        known.write_text(before)
