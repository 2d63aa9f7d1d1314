"""Environments that benchmarks install peers into: one folder each, made once and kept.

In: a name, and how its environment is made. Out: its folder, in $XDG_CACHE_HOME/autotune-benchmarks (default
~/.cache). Talks to pip. Invariant: what was not made whole is made again; the caller's own environment stays
as it is.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

INSTALL_TIMEOUT_S = 1800.0


class UnavailableError(Exception):
    """A peer cannot be had here; the message says why."""


def environment(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder of an environment, made if it is not there yet.

    Raises:
        UnavailableError: it cannot be made.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "autotune-benchmarks"
    folder = cache / name
    mark = folder / ".installed"
    if not mark.exists():
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
        mark.touch()
    return folder


def pip(*packages: str) -> Callable[[Path], None]:
    """Return what installs packages, one after the other, into an environment in a folder."""

    def make(folder: Path) -> None:
        call([sys.executable, "-m", "venv", str(folder)])
        for package in packages:
            call([str(folder / "bin/python"), "-m", "pip", "install", "-q", "--no-input", package])

    return make


def call(command: list[str]) -> None:
    """Run a command of an installation.

    Raises:
        UnavailableError: it failed or took too long.
    """
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"not installed within {INSTALL_TIMEOUT_S:g} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(f"{' '.join(command[-2:])}: {last}")
