"""Launch plans of the fake engine on the nodes of a test bed."""

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import docker

from autotune.engine.docker.container import STUDY_LABEL
from autotune.engine.docker.launch import DockerPatience
from autotune.engine.docker.rank import Endurance
from autotune.engine.launch_watch import Patience
from autotune.engine.plan import LaunchPlan, plan_launch
from autotune.space import Candidate, SearchSpace
from tests.testbed.bed import Bed, Host
from tests.testbed.image import IMAGE

STUDY = f"study-{os.getpid()}"
PORT = 30000
# Docker cannot raise limits on the bed above those of this machine.
CONTAINER: Mapping[str, object] = {"ulimits": {}, "shm_size": "64m", "pull": False}
SHORT = DockerPatience(
    watch=Patience(
        poll_s=0.05, cause_s=1.0, settle_s=0.2, flush_s=0.3, stop_s=5, stop_loading_s=1.0, release_s=5
    ),
    endurance=Endurance(poll_s=0.1, refused_s=3.0, silent_s=5.0, log_s=2.0),
    reunion_s=12.0,
)
_numbers = itertools.count()


@dataclass(frozen=True)
class Wish:
    """What is to be launched on which nodes, beside the defaults."""

    transport: str = "ssh"
    names: str = "ab"
    gpus: int = 0
    ready_timeout_s: float = 20.0
    container: Mapping[str, object] = field(default_factory=dict)
    keys: Mapping[str, object] = field(default_factory=dict)


def space_of(bed: Bed, *behaviours: str, wish: Wish | None = None) -> SearchSpace:
    wish = wish or Wish()
    nodes = [
        {
            "name": f"node-{name}",
            "address": bed[name].address,
            "docker": getattr(bed[name], wish.transport),
            "gpus": wish.gpus,
        }
        for name in wish.names
    ]
    return SearchSpace.model_validate(
        {
            "version": "0.5.23",
            "model": "tiny",
            "image": IMAGE,
            "command": ["python3", "-S", "-E", "/app/fake_engine.py"],
            "nodes": nodes,
            "port": PORT,
            "container": {**CONTAINER, **wish.container},
            "flags": {"fake": ",".join(behaviours)} if behaviours else {},
            "tune": {"chunked-prefill-size": {"int": [64, 8192]}},
            "ready_timeout_s": wish.ready_timeout_s,
            **wish.keys,
        }
    )


def plan_of(bed: Bed, *behaviours: str, wish: Wish | None = None, study: str = STUDY) -> LaunchPlan:
    space = space_of(bed, *behaviours, wish=wish)
    return plan_launch(space, Candidate.of({}), study=study, trial=f"{next(_numbers):04d}")


def client_of(host: Host) -> docker.APIClient:
    return docker.APIClient(host.unix, timeout=20)


def containers_on(host: Host, study: str = STUDY) -> list[str]:
    """Names of the study's containers on a node; its own socket answers whatever the network does."""
    client = client_of(host)
    try:
        found = client.containers(all=True, filters={"label": [f"{STUDY_LABEL}={study}"]})
        return [each["Names"][0].removeprefix("/") for each in found]
    finally:
        client.close()


def strangers(host: Host) -> Mapping[str, list[str]]:
    """All that a launch could leave or disturb on a node: containers, networks, volumes, listening ports."""
    client = client_of(host)
    try:
        return {
            "containers": sorted(each["Id"] for each in client.containers(all=True)),
            "networks": sorted(each["Name"] for each in client.networks()),
            "volumes": sorted(each["Name"] for each in client.volumes()["Volumes"] or ()),
            "ports": sorted({line.split()[3] for line in host.sh("ss", "-Hltn").splitlines()}),
            "shared memory": sorted(host.sh("ls", "/dev/shm").split()),  # noqa: S108 - a node's own
        }
    finally:
        client.close()


def processes_of(host: Host, word: str) -> list[str]:
    """Command lines on a node that hold a word."""
    return [line for line in host.sh("ps", "-eo", "args").splitlines() if word in line]


def kill_container(host: Host, name: str) -> None:
    client = client_of(host)
    client.kill(name)
    client.close()
