"""One exported file, and the comment lines that every one of them begins with. Pure.

Invariant: whatever a comment says, it stays a comment: no character in it ends its line.
"""

from collections.abc import Iterable
from dataclasses import dataclass

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
