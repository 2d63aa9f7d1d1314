"""Launch plans as containers: every setting of one rank's container, before any Docker engine is asked. Pure.

In: a `LaunchPlan` and who launches. Out: one `ContainerPlan` per rank. Invariants: no restart policy and no
automatic removal, since a crashed trial must neither loop nor lose its evidence; bind sources are never
created; secrets are named, never held; everything is labelled with its owner, trial, rank and controller.
"""

from dataclasses import dataclass

from autotune.engine.docker.accelerators import Devices, devices_of
from autotune.engine.plan import LaunchPlan, RankPlan
from autotune.errors import ConfigError
from autotune.space import ContainerSettings, Mount, Node

STUDY_LABEL = "autotune.study"
TRIAL_LABEL = "autotune.trial"
RANK_LABEL = "autotune.rank"
CONTROLLER_LABEL = "autotune.controller"


@dataclass(frozen=True)
class ContainerPlan:
    """One container. `environment_from` are names of variables that are read when it is created."""

    node: Node
    name: str
    image: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    environment_from: tuple[str, ...]
    mounts: tuple[Mount, ...]
    devices: Devices
    settings: ContainerSettings
    labels: tuple[tuple[str, str], ...]


def container_plans(plan: LaunchPlan, controller: str) -> tuple[ContainerPlan, ...]:
    """Return the containers of a launch, in rank order.

    Raises:
        ConfigError: the search space names no image.
    """
    if plan.image is None:
        raise ConfigError("launcher 'docker' needs an 'image' in the search space")
    image = plan.image
    return tuple(_container(plan, rank, image, controller) for rank in plan.ranks)


def _container(plan: LaunchPlan, rank: RankPlan, image: str, controller: str) -> ContainerPlan:
    devices = devices_of(rank.node)
    return ContainerPlan(
        node=rank.node,
        name=rank.name,
        image=image,
        argv=rank.argv,
        environment=(*devices.environment, *rank.environment),
        environment_from=plan.environment_from,
        mounts=(*plan.mounts, *devices.mounts),
        devices=devices,
        settings=plan.container,
        labels=(*plan.labels, (RANK_LABEL, str(rank.rank)), (CONTROLLER_LABEL, controller)),
    )
