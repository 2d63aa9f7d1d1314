"""The environment of a program that a test stops by a signal."""

import os


def without_coverage() -> dict[str, str]:
    """Return this environment without coverage in subprocesses.

    Coverage holds a lock of its own while it notes a line; an interrupt in that moment leaves it locked, and
    the program hangs for a reason that is not its own.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
