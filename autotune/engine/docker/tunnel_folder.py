"""A folder for a tunnel's socket, whose name tells its owner: a later run removes what a killed one left.

In: this process. Out: a folder that nobody else may enter. Talks to the folder for temporary files, because a
run folder's path may be too long for a socket. Invariant: only a folder of this user, made by a process of
this very machine that is gone, is ever removed.
"""

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from autotune.engine.docker.controller import Controller

_NAME = re.compile(r"autotune-(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<started_s>\d+)-\w+")


def make_folder() -> Path:
    """Return a new folder, after those of dead owners were removed."""
    here = Controller.here()
    remove_stale()
    return Path(tempfile.mkdtemp(prefix=f"autotune-{_digest(here)}-{here.pid}-{here.started_s}-"))


def remove_stale() -> None:
    """Remove the folders whose owners are dead."""
    for path in Path(tempfile.gettempdir()).glob("autotune-*"):
        owner = _owner(path.name)
        if owner is not None and owner.is_dead and _is_own_folder(path):
            shutil.rmtree(path, ignore_errors=True)


def _owner(name: str) -> Controller | None:
    """Return whose folder has this name, None if it is no folder of this machine's processes."""
    parts, here = _NAME.fullmatch(name), Controller.here()
    if parts is None or parts["machine"] != _digest(here):
        return None
    return Controller(here.machine, int(parts["pid"]), int(parts["started_s"]))


def _digest(controller: Controller) -> str:
    """Return a short name of a machine: a socket's path has at most 107 bytes."""
    return hashlib.sha256(controller.machine.encode()).hexdigest()[:8]


def _is_own_folder(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:  # another run has just removed it
        return False
    return status.st_uid == os.getuid() and path.is_dir() and not path.is_symlink()
