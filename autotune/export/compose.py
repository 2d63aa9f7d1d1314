"""One compose file per node. Pure.

In: a `Selection`. Out: YAML for `docker compose`. Invariant: a dollar sign is written twice, because compose
would take it for a variable.
"""

from collections.abc import Mapping

from autotune.document import dump_yaml
from autotune.export.container import RESTART, Container, advice, containers
from autotune.export.file import ExportFile, comments
from autotune.export.selection import Selection
from autotune.space import Mount


def compose_files(selection: Selection) -> tuple[ExportFile, ...]:
    """Return `compose-NODE.yaml` for every node.

    Raises:
        ConfigError: the search space names no image.
    """
    engine = selection.history.study.space.engine
    return tuple(
        ExportFile(
            f"compose-{container.node.name}.yaml",
            comments(advice(selection, container)) + dump_yaml({"services": {engine: _service(container)}}),
        )
        for container in containers(selection)
    )


def _service(container: Container) -> dict[str, object]:
    settings = [f"{name}={value}" for name, value in container.environment]
    service: dict[str, object] = {
        "image": _literal(container.image),
        "container_name": container.name,
        "init": True,
        "restart": RESTART,
        "network_mode": "host",
        "shm_size": container.settings.shm_size,
        "ulimits": dict(container.settings.ulimits),
        "cap_add": list(container.settings.capabilities),
        "command": [_literal(word) for word in container.argv],
        "environment": [_literal(word) for word in (*settings, *container.environment_from)],
        "volumes": [_volume(mount) for mount in container.mounts],
        "devices": list(container.devices),
        "group_add": list(container.groups),
        "deploy": _gpu_reservation(container),
    }
    if container.settings.ipc == "host":
        service["ipc"] = "host"
    if container.settings.memory is not None:
        service["mem_limit"] = container.settings.memory
        service["memswap_limit"] = container.settings.memory  # alike: no swap, as in the trial
    return {name: value for name, value in service.items() if value not in ([], {})}


def _volume(mount: Mount) -> dict[str, object]:
    """Return a bind mount that fails if its source is missing, as docker run's --mount does."""
    return {
        "type": "bind",
        "source": _literal(mount.source),
        "target": _literal(mount.target),
        "read_only": mount.read_only,
        "bind": {"create_host_path": False},
    }


def _gpu_reservation(container: Container) -> Mapping[str, object]:
    if not container.gpus and not container.gpu_ids:
        return {}
    chosen = {"device_ids": list(container.gpu_ids)} if container.gpu_ids else {"count": container.gpus}
    device = {"driver": "nvidia", **chosen, "capabilities": ["gpu"]}
    return {"resources": {"reservations": {"devices": [device]}}}


def _literal(text: str) -> str:
    return text.replace("$", "$$")
