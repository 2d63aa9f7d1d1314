"""What the launcher does on one node: images, containers, their states and logs.

In: container plans and ids. Out: plain data. Talks to one Docker engine through a `Connection`; a missing
image is pulled, nothing else is ever made on the node but containers.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from docker import APIClient
from docker.errors import ImageNotFound
from docker.types import DeviceRequest, LogConfig, Ulimit
from docker.types import Mount as DockerMount

from autotune.engine.docker.accelerators import ALL
from autotune.engine.docker.connection import QUICK_S, SLOW_S, Connection
from autotune.engine.docker.container import ContainerPlan
from autotune.engine.docker.faults import GoneError, NodeError
from autotune.errors import InfrastructureError
from autotune.failure import FailureKind
from autotune.space import Node

_PULL_S = 300  # for the next step of a pull, however long it takes as a whole
_SIGNAL_BASE = 128


@dataclass(frozen=True)
class ContainerState:
    """How a container is. `exit_code` is negative for a signal, as it is for a process."""

    is_running: bool
    exit_code: int | None
    was_out_of_memory: bool
    error: str


@dataclass(frozen=True)
class FoundImage:
    """An image that is on the node: its id names its content, its digest names it in a registry."""

    id: str
    digest: str


@dataclass(frozen=True)
class FoundContainer:
    """A container that is on the node."""

    id: str
    name: str
    labels: Mapping[str, str]


class DockerNode:
    """One node; open within its context."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.connection = Connection(node)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.connection)
            self._quick: APIClient = stack.enter_context(self.connection.client(QUICK_S))
            self._slow: APIClient = stack.enter_context(self.connection.client(SLOW_S))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # ---- images

    def image(self, image: str) -> FoundImage | None:
        """Return the image, None if it is not on the node."""
        with self.connection.errors():
            try:
                found = self._quick.inspect_image(image)  # type: ignore[no-untyped-call]  # the stubs leave it bare
            except ImageNotFound:
                return None
        digests = found.get("RepoDigests") or [found["Id"]]
        return FoundImage(id=found["Id"], digest=str(digests[0]).rpartition("@")[2])

    def require_image(
        self, image: str, *, pull: bool, on_progress: Callable[[Mapping[str, Any]], None] = lambda _: None
    ) -> FoundImage:
        """Return an image, which is pulled if it is missing and may be pulled; tell the steps of it.

        Raises:
            NodeError: it is not there and cannot be had.
        """
        found = self.image(image)
        if found is None and pull:
            self._pull(image, on_progress)
            found = self.image(image)
        if found is None:
            message = f"no image {image}; pull or load it there"
            raise NodeError(self.node.name, message, FailureKind.IMAGE_MISSING)
        return found

    def _pull(self, image: str, on_progress: Callable[[Mapping[str, Any]], None]) -> None:
        repository, tag = _reference(image)
        try:
            with self.connection.client(_PULL_S, is_impatient=True) as client, self.connection.errors():
                for step in client.pull(repository, tag=tag, stream=True, decode=True):
                    if "error" in step:
                        raise self._no_image(image, step["error"])
                    on_progress(step)
        except NodeError as error:
            raise self._no_image(image, str(error)) from error

    def _no_image(self, image: str, why: str) -> NodeError:
        message = f"no image {image}, and it cannot be pulled: {why}; pull or load it there by hand"
        return NodeError(self.node.name, message, FailureKind.IMAGE_MISSING)

    # ---- containers

    def create(self, plan: ContainerPlan) -> str:
        """Create a container and return its id.

        Raises:
            NodeError: the engine refuses.
            InfrastructureError: a variable of `environment_from` is not set here.
        """
        return self._create(create_settings(self._slow, plan))

    def create_probe(self, plan: ContainerPlan, argv: tuple[str, ...], **host: Any) -> str:
        """Create a short-lived container with another command, and no environment of the engine's.

        `host` is added to Docker's host configuration.
        """
        settings = create_settings(self._slow, replace(plan, environment_from=(), environment=()), **host)
        return self._create({**settings, "entrypoint": list(argv[:1]), "command": list(argv[1:])})

    def _create(self, settings: Mapping[str, Any]) -> str:
        with self.connection.errors():
            return str(self._slow.create_container(**settings)["Id"])

    def start(self, container: str) -> None:
        """Start a created container.

        Raises:
            NodeError: it cannot be started, by the engine's words; it stays, and must be removed.
        """
        with self.connection.errors():
            self._slow.start(container)

    def state(self, container: str) -> ContainerState:
        """Return how a container is.

        Raises:
            GoneError: it was removed.
        """
        with self.connection.errors():
            state = self._quick.inspect_container(container)["State"]
        is_running = bool(state["Running"])
        return ContainerState(
            is_running=is_running,
            exit_code=None if is_running else _as_process_code(int(state["ExitCode"])),
            was_out_of_memory=bool(state["OOMKilled"]),
            error=str(state.get("Error", "")),
        )

    def signal(self, container: str, name: str) -> None:
        """Send a signal; one that has ended, or is gone, has no need of it."""
        try:
            with self.connection.errors():
                self._quick.kill(container, name)
        except GoneError:
            return
        except NodeError as error:
            if "is not running" not in str(error):
                raise

    def wait(self, container: str) -> int:
        """Wait until a short-lived container has ended; return its exit code."""
        with self.connection.errors():
            return int(self._slow.wait(container)["StatusCode"])

    def output(self, container: str) -> str:
        """Return what a container wrote to its standard output."""
        with self.connection.errors():
            text: bytes = self._slow.logs(container, stdout=True, stderr=False)
        return text.decode(errors="replace")

    def execute(self, container: str, argv: tuple[str, ...]) -> str:
        """Start one more program in a running container; it ends with the container. Return its id."""
        with self.connection.errors():
            program = str(self._slow.exec_create(container, list(argv))["Id"])
            self._slow.exec_start(program, detach=True)
        return program

    def executed_code(self, program: str) -> int | None:
        """Return the exit code of what `execute` started, None while it runs."""
        with self.connection.errors():
            code: int | None = self._quick.exec_inspect(program)["ExitCode"]
        return code

    def remove(self, container: str) -> None:
        """Kill and remove a container with its anonymous volumes; nothing happens if it is gone."""
        try:
            with self.connection.errors():
                self._slow.remove_container(container, force=True, v=True)
        except GoneError:
            return
        except NodeError as error:
            if "already in progress" not in str(error):
                raise

    def find(self, labels: Mapping[str, str]) -> tuple[FoundContainer, ...]:
        """Return the containers, running or not, that carry all these labels."""
        wanted = [f"{key}={value}" for key, value in labels.items()]
        with self.connection.errors():
            found = self._quick.containers(all=True, filters={"label": wanted})
        return tuple(
            FoundContainer(each["Id"], each["Names"][0].removeprefix("/"), each["Labels"]) for each in found
        )

    def information(self) -> Mapping[str, Any]:
        """Return what the engine says about its host."""
        with self.connection.errors():
            found: Mapping[str, Any] = self._quick.info()
        return found


def probe_output(text: str) -> Mapping[str, Any]:
    """Return the JSON object on the last line; engines' images may print a banner above it.

    Raises:
        ValueError: there is none.
    """
    found: Mapping[str, Any] = json.loads(text.strip().rpartition("\n")[2])
    return found


def create_settings(client: APIClient, plan: ContainerPlan, **host: Any) -> dict[str, Any]:
    """Return what docker-py's `create_container` is given; `host` is added to the host configuration.

    Raises:
        InfrastructureError: a variable of `environment_from` is not set here.
    """
    return {
        "image": plan.image,
        "command": list(plan.argv),
        "name": plan.name,
        "environment": {**_secrets(plan.environment_from), **dict(plan.environment)},
        "labels": dict(plan.labels),
        "host_config": client.create_host_config(**{**_host_settings(plan), **host}),
    }


def _secrets(names: tuple[str, ...]) -> dict[str, str]:
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise InfrastructureError(
            f"{missing[0]} is not set, but the search space's environment_from names it"
        )
    return {name: os.environ[name] for name in names}


def _host_settings(plan: ContainerPlan) -> dict[str, Any]:
    settings, devices = plan.settings, plan.devices
    return {
        "network_mode": "host",
        "init": True,
        "ipc_mode": settings.ipc,
        "shm_size": settings.shm_size,
        "mem_limit": settings.memory,
        "memswap_limit": settings.memory,
        "ulimits": [Ulimit(name=name, soft=most, hard=most) for name, most in settings.ulimits.items()],
        "cap_add": list(settings.capabilities),
        "devices": [f"{path}:{path}:rwm" for path in (*settings.devices, *devices.device_files)],
        "group_add": list(devices.groups),
        "mounts": [
            DockerMount(target=each.target, source=each.source, type="bind", read_only=each.read_only)
            for each in plan.mounts
        ],
        "device_requests": _device_requests(devices.requested),
        "log_config": LogConfig(type=LogConfig.types.JSON),
    }


def _device_requests(requested: tuple[str, ...]) -> list[DeviceRequest]:
    if not requested:
        return []
    if requested == (ALL,):
        return [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return [DeviceRequest(device_ids=list(requested), capabilities=[["gpu"]])]


def _reference(image: str) -> tuple[str, str | None]:
    """Split an image's name as docker pull does: a digest or a tag, the tag latest by default."""
    if "@" in image:
        return image, None
    name, colon, tag = image.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (image, "latest")


def _as_process_code(code: int) -> int:
    """Turn a shell's 128 + signal into the negative code that a process has."""
    is_signal = _SIGNAL_BASE < code < _SIGNAL_BASE + 32
    return _SIGNAL_BASE - code if is_signal else code
