"""One `docker run` script per node. Pure.

In: a `Selection`. Out: POSIX shell scripts. Invariant: a shell reads back exactly the words of the plan.
"""

import shlex
from collections.abc import Iterator

from autotune.export.container import (
    RESTART,
    Container,
    advice,
    containers,
    mount_option,
)
from autotune.export.file import ExportFile, comments
from autotune.export.selection import Selection


def docker_files(selection: Selection) -> tuple[ExportFile, ...]:
    """Return `run-NODE.sh` for every node.

    Raises:
        ConfigError: the search space names no image.
    """
    return tuple(
        ExportFile(f"run-{container.node.name}.sh", _script(selection, container), is_executable=True)
        for container in containers(selection)
    )


def _script(selection: Selection, container: Container) -> str:
    lines = [
        ("--detach", "--init"),
        ("--name", container.name),
        ("--restart", RESTART),
        *run_options(container),
        (container.image, *container.argv),
    ]
    command = " \\\n  ".join(["exec docker run", *(shlex.join(words) for words in lines)])
    return f"#!/bin/sh\n{comments(advice(selection, container))}set -eu\n\n{command}\n"


def run_options(container: Container) -> Iterator[tuple[str, ...]]:
    """Yield the options of docker run that make the container like its trial's, whoever restarts it."""
    yield ("--network", "host")
    yield ("--shm-size", container.settings.shm_size)
    if container.settings.ipc == "host":
        yield ("--ipc", "host")
    if container.settings.memory is not None:
        yield ("--memory", container.settings.memory)
        yield ("--memory-swap", container.settings.memory)  # alike: no swap, as in the trial
    yield from (("--ulimit", f"{name}={value}") for name, value in container.settings.ulimits.items())
    yield from (("--cap-add", each) for each in container.settings.capabilities)
    if container.gpus:
        yield ("--gpus", str(container.gpus))
    if container.gpu_ids:
        yield ("--gpus", f'"device={",".join(container.gpu_ids)}"')
    yield from (("--device", device) for device in container.devices)
    yield from (("--group-add", group) for group in container.groups)
    yield from (("--mount", mount_option(mount)) for mount in container.mounts)
    yield from (("--env", f"{name}={value}") for name, value in container.environment)
    yield from (("--env", name) for name in container.environment_from)
