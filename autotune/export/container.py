"""What a container needs to run one rank in production, before it is written as docker run or compose. Pure.

In: a `Selection`. Out: one `Container` per node. Invariants: no label of autotune is on it, because a study's
clean-up removes what carries one; secrets are named, never written.

The settings are SGLang's (docs/references/multi_node_deployment, docker/compose.yaml) with one exception:
shared memory is the container's own (32 GiB) instead of the host's (ipc: host), because segments that a
crash leaves in the host's /dev/shm can keep the engine from starting again (sglang issue 40723).
"""

import csv
import io
from dataclasses import dataclass

from autotune.engine.docker.accelerators import ALL, devices_of
from autotune.engine.plan import LaunchPlan, RankPlan
from autotune.errors import ConfigError
from autotune.export.selection import Selection
from autotune.space import ContainerSettings, Mount, Node

RESTART = "unless-stopped"


@dataclass(frozen=True)
class Container:
    """One rank of the engine in a container; the `settings` are those that its trial ran with."""

    node: Node
    rank: int
    name: str
    image: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    environment_from: tuple[str, ...]
    mounts: tuple[Mount, ...]
    gpus: int
    gpu_ids: tuple[str, ...]
    devices: tuple[str, ...]
    groups: tuple[str, ...]
    settings: ContainerSettings


def containers(selection: Selection) -> tuple[Container, ...]:
    """Return the containers of a candidate, in rank order.

    Raises:
        ConfigError: the search space names no image.
    """
    plan = selection.container_plan
    image = plan.image
    if image is None:
        raise ConfigError("the search space names no image, which a container needs; try --to sglang-config")
    return tuple(_container(plan, rank, image, selection.history.study.name) for rank in plan.ranks)


def advice(selection: Selection, container: Container) -> tuple[str, ...]:
    """Return the comment lines at the head of a container's file."""
    return (
        *rank_advice(selection, container.rank),
        f"Restart policy {RESTART}: a service comes back by itself, a trial must not.",
        *(f"{name} is taken from the environment of this command." for name in container.environment_from),
    )


def rank_advice(selection: Selection, rank: int) -> tuple[str, ...]:
    """Return the comment lines at the head of a rank's file, whatever it runs in."""
    nodes = selection.history.study.space.nodes
    return (
        *selection.head,
        f"Rank {rank}, for {nodes[rank].name} ({nodes[rank].address}).",
        *_several_advice(several=len(nodes) > 1),
    )


def mount_option(mount: Mount) -> str:
    """Return the value of docker's --mount, whose fields are those of a CSV line."""
    fields = ["type=bind", f"source={mount.source}", f"target={mount.target}"]
    line = io.StringIO()
    csv.writer(line).writerow([*fields, *(["readonly"] if mount.read_only else [])])
    return line.getvalue().removesuffix("\r\n")


def _several_advice(*, several: bool) -> tuple[str, ...]:
    if not several:
        return ()
    return (
        "Start every node within a few minutes. To stop, stop rank 0 first: the others ignore SIGTERM.",
        "If one rank died, restart all of them: the rest wait for it in vain.",
    )


def _container(plan: LaunchPlan, rank: RankPlan, image: str, study: str) -> Container:
    node = rank.node
    devices = devices_of(node)
    return Container(
        node=node,
        rank=rank.rank,
        name=f"{plan.engine}-{study}-{node.name}",
        image=image,
        argv=rank.argv,
        environment=(*devices.environment, *rank.environment),
        environment_from=plan.environment_from,
        mounts=(*plan.mounts, *devices.mounts),
        gpus=node.gpus if devices.requested == (ALL,) else 0,
        gpu_ids=() if devices.requested == (ALL,) else devices.requested,
        devices=(*plan.container.devices, *devices.device_files),
        groups=devices.groups,
        settings=plan.container,
    )
