"""A torch with as many GPUs as FAKE_GPUS says, which notes whether anybody opened them."""

import os
import types

from torch import cuda as cuda  # type: ignore[import-not-found] # this package itself

opened: list[str] = []
_C = types.SimpleNamespace(_get_accelerator=lambda: opened.append("accelerator"))


def get_device_module(*_: object) -> None:
    opened.append("module")


def device(name: str) -> str:
    return name


if "FAKE_TORCH_FAILS" in os.environ:
    raise SystemExit(7)
