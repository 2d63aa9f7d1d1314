"""What only the running process knows, written beside the storage so that another terminal can show it.

In: the budget and the trials that run. Out: `status.json` in the study's folder, replaced at every event, and
read back. Talks to the disk. Invariant: the storage stays the only truth about trials; without this file, or
with one of another version, a reader only knows less.
"""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import psutil
from pydantic import ValidationError

from autotune.atomic import replace_text
from autotune.document import Frozen
from autotune.live.progress import Controller, RunningTrial
from autotune.search.budget import Budget

STATUS_FILE = "status.json"


class Process(Frozen):
    """A process, told apart from a later one of the same number by when it began."""

    host: str
    pid: int
    began_s: float


class Status(Frozen):
    """The running side of a study when it was written. Ages and `left_s` are as of then."""

    process: Process
    written: datetime
    has_ended: bool
    is_simulated: bool
    budget: Budget
    left_s: float | None
    running: tuple[RunningTrial, ...]

    def controller(self) -> Controller:
        """Return whether its writer still runs."""
        if self.has_ended:
            return Controller.ENDED
        if self.process.host != platform.node():
            return Controller.UNKNOWN
        try:
            is_same = psutil.Process(self.process.pid).create_time() == self.process.began_s
        except psutil.NoSuchProcess:
            is_same = False
        return Controller.RUNNING if is_same else Controller.GONE

    def age_s(self) -> float:
        """Return how old it is on the study's clock; virtual time does not pass between two events."""
        return 0.0 if self.is_simulated else max((datetime.now(UTC) - self.written).total_seconds(), 0.0)


def this_process() -> Process:
    """Return the running process."""
    return Process(host=platform.node(), pid=os.getpid(), began_s=psutil.Process().create_time())


def write_status(folder: Path, status: Status) -> None:
    """Replace the study's status.

    Raises:
        InfrastructureError: the disk is full, or the folder is not writable.
    """
    replace_text(folder / STATUS_FILE, status.model_dump_json())


def read_status(folder: Path) -> Status | None:
    """Return the study's status, None if there is none that this version understands."""
    try:
        return Status.model_validate_json((folder / STATUS_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
