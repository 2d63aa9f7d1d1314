"""Files that are either the old one or the whole new one, never a half."""

import os
from pathlib import Path

from autotune.errors import InfrastructureError


def replace_text(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write a UTF-8 file through a temporary one beside it; `mode` sets its permissions.

    Raises:
        InfrastructureError: the disk is full, or the folder is not writable.
    """
    replace_bytes(path, text.encode(), mode=mode)


def replace_bytes(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a file through a temporary one beside it; `mode` sets its permissions.

    Raises:
        InfrastructureError: the disk is full, or the folder is not writable.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            if mode is not None:
                part.chmod(mode)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InfrastructureError(
            f"{path} cannot be written: {error.strerror}\n"
            "    Make room there, or allow writing, and run the same command again."
        ) from error
