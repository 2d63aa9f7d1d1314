import os
import types
import uuid

import torch  # type: ignore[import-not-found] # this package itself


def is_available() -> bool:
    return device_count() > 0


def device_count() -> int:
    torch.opened.append("count")
    return int(os.environ.get("FAKE_GPUS", "0"))


def current_device() -> int:
    torch.opened.append("current")
    return 0


def get_device_name(device: int = 0) -> str:
    torch.opened.append("name")
    return f"FAKE {device}"


def get_device_capability(device: int = 0) -> tuple[int, int]:
    torch.opened.append("capability")
    return 9, device


def get_device_properties(device: int = 0) -> types.SimpleNamespace:
    torch.opened.append("properties")
    return types.SimpleNamespace(
        name=f"FAKE {device}", major=9, minor=device, total_memory=80 << 30, uuid=uuid.UUID(int=device)
    )
