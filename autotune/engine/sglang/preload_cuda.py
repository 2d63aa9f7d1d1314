"""Answers what SGLang asks of CUDA at import without opening it, since an opened one does not survive a fork.

In: the facts that a process of its own reads (this file as a program) and prints as JSON. Out: `shield`,
which puts the answers in place. Used by preload.py in the engine's environment; standard library and torch.
Invariant: after `shield` no question listed here reaches the driver until the answers are taken back.
"""

import importlib.util
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any, TypeAlias

Replacement: TypeAlias = tuple[Any, str, Callable[..., Any]]


def read_facts() -> dict[str, Any]:
    """Return what torch says of the GPUs; opens them."""
    import torch  # type: ignore[import-not-found] # noqa: PLC0415 - only in the engine's environment

    if not torch.cuda.is_available():
        return {"devices": []}
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {"devices": [_plain(each) for each in devices]}


def _plain(properties: object) -> dict[str, Any]:
    values = {name: getattr(properties, name) for name in dir(properties) if not name.startswith("_")}
    kept = {name: value for name, value in values.items() if isinstance(value, bool | int | float | str)}
    return kept if "uuid" not in values else {**kept, "uuid": str(values["uuid"])}


def shield() -> Callable[[], None]:
    """Put the answers in place where there is a GPU; return what takes them back."""
    if importlib.util.find_spec("torch") is None:
        return lambda: None
    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE) as reader:  # noqa: S603
        import torch  # noqa: PLC0415 - takes seconds, as the reader does at the same time

        facts, _ = reader.communicate()
    if reader.returncode:
        raise RuntimeError(f"the process that reads the GPUs' properties ended with {reader.returncode}")
    devices = json.loads(facts.splitlines()[-1])["devices"]
    return _replaced(_answers(torch, devices)) if devices else lambda: None


def _answers(torch: Any, devices: list[dict[str, Any]]) -> list[Replacement]:
    def properties(device: Any = None) -> types.SimpleNamespace:
        return types.SimpleNamespace(**devices[_index(device)])

    def capability(device: Any = None) -> tuple[int, int]:
        return devices[_index(device)]["major"], devices[_index(device)]["minor"]

    return [
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: len(devices)),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "get_device_name", lambda device=None: devices[_index(device)]["name"]),
        (torch.cuda, "get_device_capability", capability),
        (torch.cuda, "get_device_properties", properties),
        # An annotation in SGLang's parallel_state.py asks for the device's module at import.
        (torch, "get_device_module", lambda *_: torch.cuda),
        (torch._C, "_get_accelerator", lambda *_: torch.device("cuda")),  # noqa: SLF001 - what torch itself asks
    ]


def _index(device: Any) -> int:
    """Return the number of a device as torch takes it: a number, "cuda:1", a torch.device, or None."""
    if device is None or isinstance(device, int):
        return device or 0
    return int(str(device).partition(":")[2] or 0)


def _replaced(answers: list[Replacement]) -> Callable[[], None]:
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in answers]

    def put(functions: list[Replacement]) -> None:
        for owner, name, function in functions:
            setattr(owner, name, function)

    put(answers)
    return lambda: put(originals)


if __name__ == "__main__":
    del sys.path[0]  # this file's folder, whose neighbours are no modules of the engine
    sys.stdout.write(json.dumps(read_facts()) + "\n")
    sys.stdout.flush()
    os._exit(0)
