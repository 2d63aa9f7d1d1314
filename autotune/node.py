"""The nodes that engines run on, how their containers are made, and what is wrong with slots of them. Pure.

In: `nodes` and `container` of a search space. Out: `Node`, `ContainerSettings`, problems with their keys.
Invariant: two slots on one machine never share a GPU or shared memory.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Literal

from pydantic import Field, StrictStr

from autotune.document import Frozen, Misplaced


class Accelerator(StrEnum):
    """What a node computes on."""

    NVIDIA = "nvidia"
    AMD = "amd"
    ASCEND = "ascend"
    NONE = "none"


class Node(Frozen):
    """One host; the order of the nodes is the order of the ranks.

    `address` is what the other nodes dial; `gpu_memory_mib` as nvidia-smi prints it (default: H100 80 GB).
    `docker` is where its engine listens: `unix:///path`, `ssh://user@host[:port][/path/to/docker.sock]`, or
    `tcp://host:port` with `certificates`, a folder that holds ca.pem, cert.pem and key.pem.
    `gpu_ids`: only these GPUs of the node; without it all `gpus`.
    """

    name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")
    address: str = "127.0.0.1"
    docker: str = "unix:///var/run/docker.sock"
    gpus: int = Field(default=0, ge=0)
    gpu_memory_mib: int = Field(default=81559, gt=0)
    accelerator: Accelerator = Accelerator.NVIDIA
    certificates: str | None = None
    gpu_ids: tuple[StrictStr, ...] = ()


class Mount(Frozen):
    """A folder of the node that the engine sees."""

    source: str
    target: str
    read_only: bool = False


class ContainerSettings(Frozen):
    """How an engine's containers are run, where SGLang's own deployment files are not followed to the letter.

    `shm_size` and `memory` as Docker writes sizes ("32g"); with `ipc: host` the node's /dev/shm is used and
    `shm_size` has no effect. `ulimits`: soft and hard limit alike, -1 for none.
    """

    shm_size: str = "32g"
    ipc: Literal["private", "host"] = "private"
    memory: str | None = None
    ulimits: dict[str, int] = Field(default={"memlock": -1, "stack": 67108864})
    devices: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    pull: bool = True


def strange_slots(
    nodes: tuple[Node, ...], size: int | None, container: ContainerSettings
) -> Iterator[Misplaced]:
    """Yield what is wrong with slots of `size` nodes: unequal, or with GPUs or memory in common."""
    if size is None:
        return
    if len(nodes) % size:
        message = f"{len(nodes)} nodes are no multiple of {size}"
        remedy = "Every slot needs as many nodes; take some out, or change nodes_per_engine."
        yield Misplaced(message, at=("nodes_per_engine",), remedy=remedy)
    for index, node in enumerate(nodes):
        for other in (each for each in nodes[:index] if each.docker == node.docker):
            yield from _strange_neighbours(index, node, other)
            if container.ipc == "host":
                message = f"{other.name} and {node.name} are on one machine and would share /dev/shm"
                yield Misplaced(message, at=("container", "ipc"), remedy="Use ipc: private.")


def _strange_neighbours(index: int, node: Node, other: Node) -> Iterator[Misplaced]:
    """Look at the GPUs of two nodes that are parts of one machine."""
    both = f"{other.name} and {node.name} are on one machine"
    has_gpus = node.accelerator is not Accelerator.NONE and (node.gpus or node.gpu_ids)
    if has_gpus and not (node.gpu_ids and other.gpu_ids):
        remedy = 'Give each the ids of its GPUs, such as gpu_ids: ["0", "1"].'
        yield Misplaced(f"{both}, and one takes all its GPUs", at=("nodes", index), remedy=remedy)
    for shared in sorted({*node.gpu_ids} & {*other.gpu_ids}):
        remedy = "A GPU belongs to one of them."
        yield Misplaced(f"{both} and share GPU {shared}", at=("nodes", index, "gpu_ids"), remedy=remedy)
