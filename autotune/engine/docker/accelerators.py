"""What a container needs to see a node's accelerators, as data: one row per kind. Pure.

Sources: NVIDIA container toolkit (device requests); SGLang's docs/platforms/amd_gpu.md and ascend_npu.md.
How memory in use is asked for: nvidia-smi; the amdgpu driver's mem_info_vram_used, which rocm-smi shows too
(Linux, Documentation/gpu/amdgpu/driver-misc.rst); the HBM column of `npu-smi info` (24.1 to 26.0, as shown
in the bug reports of vLLM Ascend). Only the chosen ones are asked about: others may belong to a neighbour.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autotune.space import Accelerator, Mount, Node

ALL = "all"
_VISIBLE = {
    Accelerator.NVIDIA: "CUDA_VISIBLE_DEVICES",
    Accelerator.AMD: "HIP_VISIBLE_DEVICES",
    Accelerator.ASCEND: "ASCEND_RT_VISIBLE_DEVICES",
}
_ASCEND_DRIVER = "/usr/local/Ascend/driver"
_ASCEND_TOOLS = "/usr/local/sbin"  # npu-smi is here
# Firmware keeps about 3 GiB of each chip for itself, in use by nobody.
_ASCEND_RESERVED_MIB = 4096
_AMD_MEMORY = (
    "i=0; for f in $(ls -v /sys/class/drm/card*/device/mem_info_vram_used); "
    'do case ",$1," in ,, | *",$i,"*) echo "$i, $(($(cat $f) / 1048576))";; esac; i=$((i + 1)); done'
)
# A card's row is followed by its chip's, which holds a bus id and, at its end, used / total HBM; a chip that
# shares its card has a physical id of its own, any other has its card's.
_ASCEND_MEMORY = r"""
import re, subprocess, sys
shown = subprocess.run(["npu-smi", "info"], capture_output=True, text=True, check=True).stdout
for line in shown.splitlines():
    cells = [cell.split() for cell in line.strip().strip("|").split("|")]
    if len(cells) != 3 or not all(cells) or not cells[0][0].isdigit():
        continue
    if ":" not in cells[1][0]:
        card = cells[0][0]
        continue
    device = (cells[0][1:] or [card])[0]
    used = re.findall(r"(\d+) */", " ".join(cells[2]))[-1]
    if device in sys.argv[1].split(","):
        print(f"{device}, {used}")
"""
_ASCEND_CONTROL = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")


@dataclass(frozen=True)
class Devices:
    """One node's accelerators as a container gets them.

    `requested`: GPU ids for Docker's own GPU support, `ALL` for every one. `memory_query`: a command in the
    container that prints `index, MiB in use` for each of them; `reserved_mib` are never free.
    """

    requested: tuple[str, ...] = ()
    device_files: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    memory_query: tuple[str, ...] = ()
    reserved_mib: int = 0


def devices_of(node: Node) -> Devices:
    """Return what a container on the node needs; nothing if no GPU of it is to be used."""
    if not node.gpus and not node.gpu_ids:
        return Devices()
    return _KINDS[node.accelerator](node)


def visible_devices(node: Node) -> dict[str, str]:
    """Return the variable that keeps a process outside a container to the node's `gpu_ids`, none without."""
    variable = _VISIBLE.get(node.accelerator)
    return {variable: ",".join(node.gpu_ids)} if variable and node.gpu_ids else {}


def _nvidia(node: Node) -> Devices:
    return Devices(
        requested=node.gpu_ids or (ALL,),
        memory_query=(
            "nvidia-smi",
            "--query-gpu=index,memory.used,driver_version",
            "--format=csv,noheader,nounits",
        ),
    )


def _amd(node: Node) -> Devices:
    chosen = ",".join(node.gpu_ids)
    return Devices(
        device_files=("/dev/kfd", "/dev/dri"),
        groups=("video",),
        environment=tuple(visible_devices(node).items()),
        memory_query=("sh", "-c", _AMD_MEMORY, "memory", chosen),
    )


def _ascend(node: Node) -> Devices:
    chosen = node.gpu_ids or tuple(str(index) for index in range(node.gpus))
    return Devices(
        device_files=(*(f"/dev/davinci{index}" for index in chosen), *_ASCEND_CONTROL),
        mounts=tuple(
            Mount(source=path, target=path, read_only=True) for path in (_ASCEND_DRIVER, _ASCEND_TOOLS)
        ),
        memory_query=("python3", "-c", _ASCEND_MEMORY, ",".join(chosen)),
        reserved_mib=_ASCEND_RESERVED_MIB,
        environment=((_VISIBLE[Accelerator.ASCEND], ",".join(chosen)),),
    )


_KINDS: Mapping[Accelerator, Callable[[Node], Devices]] = {
    Accelerator.NVIDIA: _nvidia,
    Accelerator.AMD: _amd,
    Accelerator.ASCEND: _ascend,
    Accelerator.NONE: lambda _: Devices(),
}
