"""What one rank is in Kubernetes: its container, volumes and probes, before an object is made of them. Pure.

In: a `Selection`. Out: a `PodPlan` as plain data in the words of Kubernetes' API. Invariants: rank 0 alone is
probed, because the others answer their health page whatever happens; a dollar sign is written twice, because
`$(NAME)` would be a variable; secrets are references.
Sources: Kubernetes 1.37, core/v1 (Container, Volume, Probe); sglang 0.5.23, entrypoints/http_server.py (the
health page makes a token and waits up to 20 s for it) and docs/references/multi_node_deployment.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from autotune.engine.dialects import dialect_of
from autotune.engine.docker.accelerators import devices_of
from autotune.errors import ConfigError
from autotune.export.group import filled, group_words
from autotune.export.selection import Selection
from autotune.space import Accelerator, ContainerSettings, Mount, Node

Object: TypeAlias = dict[str, Any]

GPU_RESOURCES = {
    Accelerator.NVIDIA: "nvidia.com/gpu",
    Accelerator.AMD: "amd.com/gpu",
    Accelerator.ASCEND: "huawei.com/Ascend910",
}
"""As the vendors' device plugins name them."""

RDMA_RESOURCE = "rdma/hca_shared_devices_a"
"""As the README of Mellanox' k8s-rdma-shared-dev-plugin names it; the name is the cluster's choice."""

_RANK = "$(LWS_WORKER_INDEX)"
_LEADER = "$(LWS_LEADER_ADDRESS)"
_INFINIBAND = "/dev/infiniband"
_HEALTH_TIMEOUT_S = 30
_STARTUP_PERIOD_S = 10
_NAME_LENGTH = 40
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kmgtp]?)(?:i?b)?", re.IGNORECASE)


@dataclass(frozen=True)
class PodPlan:
    """One pod per node. `container` has neither probes nor resources: those are the ranks' own.

    `leader_resources` and `worker_resources` are what rank 0 and every other rank ask for. `start_s`: how
    long a start may take.
    """

    name: str
    size: int
    container: Object
    probes: Object
    leader_resources: Object
    worker_resources: Object
    settings: Object
    volumes: tuple[Object, ...]
    port: int
    start_s: int


def pod_plan(selection: Selection) -> PodPlan:
    """Return the pods of a candidate.

    Raises:
        ConfigError: the search space names no image, its workers are unlike, or a size cannot be read.
    """
    space = selection.history.study.space
    if space.image is None:
        raise ConfigError("the search space names no image, which a container needs; try --to sglang-config")
    leader, *workers = [_resources(node, space.container) for node in space.nodes]
    if any(worker != workers[0] for worker in workers):
        raise ConfigError("Kubernetes makes all workers alike, and the nodes after the first are not")
    volumes = tuple(_volumes(selection))
    return PodPlan(
        name=service_name(selection),
        size=len(space.nodes),
        container=_container(selection, volumes),
        probes=_probes(dialect_of(space.engine).health_path, space.port, space.ready_timeout_s),
        leader_resources=leader,
        worker_resources=workers[0] if workers else leader,
        settings=_settings(space.container, is_group=len(space.nodes) > 1),
        volumes=tuple(volume for volume, _ in volumes),
        port=space.port,
        start_s=math.ceil(space.ready_timeout_s),
    )


def service_name(selection: Selection) -> str:
    """Return `ENGINE-STUDY` as a label of DNS (RFC 1035), with room for what controllers append to it."""
    study = selection.history.study
    name = re.sub(r"[^a-z0-9]+", "-", f"{study.space.engine}-{study.name}".lower())
    return name[:_NAME_LENGTH].strip("-")


def pod_notes(selection: Selection) -> Iterator[str]:
    """Yield what somebody who applies the pods has to know."""
    space, name = selection.history.study.space, service_name(selection)
    for secret in space.environment_from:
        yield f"First: kubectl create secret generic {name} --from-literal={secret}=..., with all its keys."
    if space.mounts:
        yield "The mounted folders must be on every node that may be chosen; a nodeSelector can say which."
    if _has_rdma(space.container):
        yield f"{RDMA_RESOURCE} is what your RDMA device plugin calls its resource, or to be changed."
    for device in _other_devices(space.container):
        yield f"NOT PASSED ON, as Kubernetes needs a device plugin for it: {device}"
    if any(node.gpu_ids for node in space.nodes):
        yield "The trial ran on certain GPUs of its node; here which ones is the device plugin's choice."
    limits = ", ".join(f"{key} {value}" for key, value in space.container.ulimits.items())
    if limits:
        yield f"The trial's ulimits ({limits}) are those of the nodes' container runtime here."


def _container(selection: Selection, volumes: Sequence[tuple[Object, Object]]) -> Object:
    space = selection.history.study.space
    meeting_point = f"{_LEADER}:{space.rendezvous_port}"
    capabilities = _capabilities(space.container)
    return {
        "name": space.engine,
        "image": space.image,
        "imagePullPolicy": "IfNotPresent" if space.container.pull else "Never",
        "args": filled(group_words(selection), _literal, rank=_RANK, address=meeting_point),
        **({"env": environment} if (environment := list(_environment(selection))) else {}),
        "ports": [{"name": "http", "containerPort": space.port}],
        **({"securityContext": {"capabilities": {"add": capabilities}}} if capabilities else {}),
        **({"volumeMounts": [mount for _, mount in volumes]} if volumes else {}),
    }


def _environment(selection: Selection) -> Iterator[Object]:
    space = selection.history.study.space
    for name, value in sorted(space.environment.items()):
        yield {"name": name, "value": _literal(value)}
    for name in space.environment_from:
        reference = {"name": service_name(selection), "key": name}
        yield {"name": name, "valueFrom": {"secretKeyRef": reference}}


def _literal(text: str) -> str:
    return text.replace("$", "$$")


def _resources(node: Node, settings: ContainerSettings) -> Object:
    limits: dict[str, str] = {}
    count = len(node.gpu_ids) or node.gpus
    if count and node.accelerator in GPU_RESOURCES:
        limits[GPU_RESOURCES[node.accelerator]] = str(count)
    if _has_rdma(settings):
        limits[RDMA_RESOURCE] = "1"
    if settings.memory is not None:
        limits["memory"] = _quantity("memory", settings.memory)
    return {"limits": limits} if limits else {}


def _settings(settings: ContainerSettings, *, is_group: bool) -> Object:
    """Return what a pod shares with its host: with several nodes the network, as in the trial."""
    network = {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"} if is_group else {}
    return {**network, **({"hostIPC": True} if settings.ipc == "host" else {})}


def _volumes(selection: Selection) -> Iterator[tuple[Object, Object]]:
    """Yield volumes, each with where it is mounted."""
    space = selection.history.study.space
    if space.container.ipc != "host":
        memory = {"medium": "Memory", "sizeLimit": _quantity("shm_size", space.container.shm_size)}
        yield {"name": "shm", "emptyDir": memory}, {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108 - the pod's own
    for index, mount in enumerate((*space.mounts, *_driver_mounts(space.nodes))):
        yield _host_folder(f"mount-{index}", mount)


def _driver_mounts(nodes: Sequence[Node]) -> tuple[Mount, ...]:
    return tuple(dict.fromkeys(mount for node in nodes for mount in devices_of(node).mounts))


def _host_folder(name: str, mount: Mount) -> tuple[Object, Object]:
    """Return a folder of the node, which must be there already."""
    volume = {"name": name, "hostPath": {"path": mount.source, "type": "Directory"}}
    read_only = {"readOnly": True} if mount.read_only else {}
    return volume, {"name": name, "mountPath": mount.target, **read_only}


def _probes(path: str, port: int, ready_timeout_s: float) -> Object:
    """Return the probes: as much time to start as in a trial, and no restart for one slow answer."""
    page = {"httpGet": {"path": path, "port": port}, "timeoutSeconds": _HEALTH_TIMEOUT_S}
    failures = math.ceil(ready_timeout_s / _STARTUP_PERIOD_S)
    return {
        "startupProbe": {**page, "periodSeconds": _STARTUP_PERIOD_S, "failureThreshold": failures},
        "readinessProbe": {**page, "periodSeconds": 10, "failureThreshold": 3},
        "livenessProbe": {**page, "periodSeconds": 30, "failureThreshold": 5},
    }


def _capabilities(settings: ContainerSettings) -> list[str]:
    asked = [name.upper().removeprefix("CAP_") for name in settings.capabilities]
    pinning = ["IPC_LOCK"] if _has_rdma(settings) else []  # RDMA pins memory, whatever the memlock limit
    return list(dict.fromkeys([*asked, *pinning]))


def _has_rdma(settings: ContainerSettings) -> bool:
    return any(device.startswith(_INFINIBAND) for device in settings.devices)


def _other_devices(settings: ContainerSettings) -> Iterator[str]:
    return (device for device in settings.devices if not device.startswith(_INFINIBAND))


def _quantity(key: str, size: str) -> str:
    """Return a size as Docker writes it ("32g", powers of 1024) as Kubernetes does ("32Gi")."""
    found = _SIZE.fullmatch(size.strip())
    if found is None:
        raise ConfigError(f"container.{key} {size!r} is no size such as 32g")
    number, unit = found.groups()
    return f"{number}{unit.upper()}i" if unit else number
