"""Writes down how the pull of an image goes on: a file to look at while a launch waits for it.

In: the steps that a Docker engine tells. Out: lines in a file, which is only made if there is something to
tell. Bounded: of a layer's many steps, those whose status is new and one in five seconds.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_EVERY_S = 5.0


class PullLog:
    """One node's pull."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._statuses: dict[str, str] = {}
        self._written_s = -_EVERY_S

    def __call__(self, step: Mapping[str, Any]) -> None:
        """Take in one step."""
        layer, status = str(step.get("id", "")), str(step.get("status", ""))
        now_s = time.monotonic()
        if self._statuses.get(layer) == status and now_s - self._written_s < _EVERY_S:
            return
        self._statuses[layer], self._written_s = status, now_s
        words = (layer, status, str(step.get("progress", "")))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as log:
            log.write(" ".join(filter(None, words)) + "\n")
