"""One exported file, and the comment lines that every one of them begins with.

Talks to the disk in `write_files` only. Invariant: whatever a comment says, it stays a comment: no
character in it ends its line.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autotune.atomic import replace_text
from autotune.report.units import printable


@dataclass(frozen=True)
class ExportFile:
    """A text file; `name` is relative to the folder that the command line names."""

    name: str
    text: str
    is_executable: bool = False


def comments(lines: Iterable[str]) -> str:
    """Return the lines as comments of shell and YAML, each ended by a newline."""
    return "".join(f"# {printable(line)}".rstrip() + "\n" for line in lines)


def write_files(files: Iterable[ExportFile], folder: Path) -> tuple[Path, ...]:
    """Write the files, each all at once, and return where they are.

    Raises:
        InfrastructureError: the folder cannot be written.
    """
    written = []
    for file in files:
        path = folder / file.name
        replace_text(path, file.text, mode=0o755 if file.is_executable else None)
        written.append(path)
    return tuple(written)
