"""Search: which candidate next, what is hopeless, and whether the winner wins again.

`CrashAwareSampler` is imported when it is first asked for: it brings scipy along.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.search.gp.sampler import CrashAwareSampler

__all__ = ["CrashAwareSampler"]


def __getattr__(name: str) -> Any:
    if name != "CrashAwareSampler":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("autotune.search.gp.sampler").CrashAwareSampler
