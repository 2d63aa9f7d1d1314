"""What Docker engines and the ways to them say when they fail, as one table and one error. Pure.

In: an error text of a Docker engine. Out: a `FailureKind`. The texts are those of Docker 20.10 and later;
whatever is not in the table stays a plain infrastructure error with the engine's own words.
"""

import re

from autotune.errors import InfrastructureError
from autotune.failure import FailureKind

FAULT_TEXTS: tuple[tuple[re.Pattern[str], FailureKind], ...] = tuple(
    (re.compile(text), kind)
    for text, kind in (
        (r"bind source path does not exist", FailureKind.BIND_SOURCE_MISSING),
        (r"The container name .* is already in use", FailureKind.NAME_TAKEN),
        (r"No such image|pull access denied|manifest .*unknown", FailureKind.IMAGE_MISSING),
        (r"no space left on device", FailureKind.DISK_FULL),
        (r"could not select device driver", FailureKind.DRIVER_ERROR),
        (r"nvidia-container-cli|nvml error|Unknown runtime specified nvidia", FailureKind.DRIVER_ERROR),
        (r"error gathering device information", FailureKind.DRIVER_ERROR),
        (r"failed to (inject CDI devices|discover GPU vendor)", FailureKind.DRIVER_ERROR),
    )
)


class NodeError(InfrastructureError):
    """A node cannot run any engine; the message names it. `kind` is None where the table knows none."""

    def __init__(self, node: str, message: str, kind: FailureKind | None = None) -> None:
        self.node = node
        self.kind = kind
        super().__init__(f"{node}: {message}")


class UnreachableError(NodeError):
    """The way to a node's Docker engine is closed. `is_refused`: the machine is there, the engine is not."""

    def __init__(self, node: str, message: str, *, is_refused: bool) -> None:
        self.is_refused = is_refused
        kind = FailureKind.DAEMON_UNREACHABLE if is_refused else FailureKind.NODE_LOST
        super().__init__(node, message, kind)


class GoneError(NodeError):
    """A container that was there is not there any more."""


def kind_of(text: str) -> FailureKind | None:
    """Return the kind of failure that an engine's error text tells of, None if it is not in the table."""
    return next((kind for pattern, kind in FAULT_TEXTS if pattern.search(text)), None)
