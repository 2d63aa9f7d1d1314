"""How the real SGLang runs without a GPU: its environment, and the flags that it needs for it.

In: the folder that setup.sh made (AUTOTUNE_SGLANG_CPU). Out: values for launch.py and preload.py. Standard
library only. `cpu.py import` imports all that a server imports.
"""

import os
import subprocess
import sys
from pathlib import Path

FOLDER_VARIABLE = "AUTOTUNE_SGLANG_CPU"
SOCKET_VARIABLE = "AUTOTUNE_SGLANG_SOCKET"
MARK_VARIABLE = "AUTOTUNE_TRIAL"
# What the preloaded parent keeps free in the environment that /proc shows, for the mark of a forked server.
MARK_ROOM = 400
MODULES = (
    "sglang.launch_server",
    "sglang.srt.entrypoints.http_server",
    "sglang.srt.managers.detokenizer_manager",
    "sglang.srt.managers.scheduler",
    "sglang.srt.models.registry",
)
# Flags of the caller come after these, so they win.
FLAGS = (
    *("--load-format", "dummy", "--device", "cpu", "--attention-backend", "torch_native"),
    *("--disable-overlap-schedule", "--grammar-backend", "none", "--max-total-tokens", "40000"),
    "--sleep-on-idle",
)


def flags() -> dict[str, str | bool | int]:
    """Return the same as a search space writes them."""
    return {
        "load-format": "dummy",
        "device": "cpu",
        "attention-backend": "torch_native",
        "disable-overlap-schedule": True,
        "grammar-backend": "none",
        "max-total-tokens": 40000,
        "sleep-on-idle": True,
    }


def folder() -> Path:
    return Path(os.environ[FOLDER_VARIABLE])


def python() -> str:
    return str(folder() / "venv/bin/python")


def environment() -> dict[str, str]:
    """Return what a server needs beside the caller's environment."""
    shims = str(Path(__file__).parent / "shims")
    return {
        "PYTHONPATH": shims,
        "AUTOTUNE_SHIM_STUBS": "torchvision,soundfile,triton",
        "AUTOTUNE_SHIM_MODELS": "qwen3,qwen2,llama",
        "SGLANG_USE_CPU_ENGINE": "1",
        "SGLANG_CPU_OMP_THREADS_BIND": "0|1",  # lets two ranks share one NUMA node
        "TORCHDYNAMO_DISABLE": "1",  # torch.compile needs a real triton
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "SPT_NOENV": "1",  # renamed processes keep the environment that /proc shows
    }


if __name__ == "__main__":
    imports = "; ".join(f"import {module}" for module in MODULES)
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    sys.exit(subprocess.call([python(), "-c", imports], env={**inherited, **environment()}))
