"""What a container needs to see a node's accelerators, as data: one row per kind. Pure.

Sources: NVIDIA container toolkit (device requests); SGLang's docs/platforms/amd_gpu.md and ascend_npu.md.
Only the NVIDIA row knows how to ask for memory in use; on others the launcher cannot prove that it is back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autotune.space import Accelerator, Mount, Node

ALL = "all"
_ASCEND_DRIVER = "/usr/local/Ascend/driver"
_ASCEND_CONTROL = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")


@dataclass(frozen=True)
class Devices:
    """One node's accelerators as a container gets them.

    `requested`: GPU ids for Docker's own GPU support, `ALL` for every one. `memory_query`: a command in the
    container that prints `index, MiB in use` for each of them.
    """

    requested: tuple[str, ...] = ()
    device_files: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    memory_query: tuple[str, ...] = ()


def devices_of(node: Node) -> Devices:
    """Return what a container on the node needs; nothing if no GPU of it is to be used."""
    if not node.gpus and not node.gpu_ids:
        return Devices()
    return _KINDS[node.accelerator](node)


def _nvidia(node: Node) -> Devices:
    return Devices(
        requested=node.gpu_ids or (ALL,),
        memory_query=("nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits"),
    )


def _amd(node: Node) -> Devices:
    chosen = ",".join(node.gpu_ids)
    return Devices(
        device_files=("/dev/kfd", "/dev/dri"),
        groups=("video",),
        environment=(("HIP_VISIBLE_DEVICES", chosen),) if chosen else (),
    )


def _ascend(node: Node) -> Devices:
    chosen = node.gpu_ids or tuple(str(index) for index in range(node.gpus))
    return Devices(
        device_files=(*(f"/dev/davinci{index}" for index in chosen), *_ASCEND_CONTROL),
        mounts=(Mount(source=_ASCEND_DRIVER, target=_ASCEND_DRIVER, read_only=True),),
        environment=(("ASCEND_RT_VISIBLE_DEVICES", ",".join(chosen)),),
    )


_KINDS: Mapping[Accelerator, Callable[[Node], Devices]] = {
    Accelerator.NVIDIA: _nvidia,
    Accelerator.AMD: _amd,
    Accelerator.ASCEND: _ascend,
    Accelerator.NONE: lambda _: Devices(),
}
