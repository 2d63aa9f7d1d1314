"""Whether the GPUs that a plan's processes will use on this machine are free, by the driver's own word.

In: a launch plan. Out: a line for each GPU with memory in use, and whose it is; the driver's version. Starts
the query of the accelerator's kind (nvidia-smi for NVIDIA); where there is none or it fails nothing is known,
nothing said.
"""

import os

from autotune.engine.docker.accelerators import devices_of
from autotune.engine.docker.probe import gpus_above
from autotune.engine.plan import LaunchPlan, RankPlan

FREE_MIB = 1024
"""What a driver may keep for itself: an idle H100 shows up to 0.5 GiB in use."""


def held_gpus(plan: LaunchPlan, most_mib: int = FREE_MIB) -> list[str]:
    """Return which of the plan's GPUs, all its ranks' on this one machine, have more than that in use."""
    devices = devices_of(plan.ranks[0].node)
    seen = gpus_above([*devices.memory_query], most_mib + devices.reserved_mib)
    holders = ", ".join(seen.get("holders", ())) or "an unknown process"
    used = _used_gpus(plan)
    return [
        f"{mib} MiB of GPU {index} are in use, by {holders}"
        for index, mib in seen.get("above", {}).items()
        if index in used
    ]


def driver_of(plan: LaunchPlan) -> str | None:
    """Return the version of the GPUs' driver, None where the plan uses none or it does not tell."""
    version: str | None = gpus_above([*devices_of(plan.ranks[0].node).memory_query], 0).get("driver")
    return version


def _used_gpus(plan: LaunchPlan) -> set[str]:
    chosen = {index for rank in plan.ranks for index in _visible(rank)}
    return chosen or {str(index) for index in range(sum(rank.node.gpus for rank in plan.ranks))}


def _visible(rank: RankPlan) -> list[str]:
    if rank.node.gpu_ids:
        return list(rank.node.gpu_ids)
    visible = {**os.environ, **dict(rank.environment)}.get("CUDA_VISIBLE_DEVICES", "")
    return [index.strip() for index in visible.split(",") if index.strip()]
