"""Which engine an interpreter would run, found without importing it.

In: a launch command. Out: an `Installed`, or None where the command does not tell its interpreter. Starts
that interpreter for a moment, for at most `PATIENCE_S`.
"""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 20.0

_PROBE = """
import importlib.metadata, importlib.util, sys
print(importlib.util.find_spec(sys.argv[1]) is not None)
versions = [d.version for d in importlib.metadata.distributions(name=sys.argv[1])]
print(versions[0] if versions else "")
"""


@dataclass(frozen=True)
class Installed:
    """What was found: `version` is None where the package carries none."""

    package: str
    interpreter: str
    is_importable: bool
    version: str | None


def installed_engine(engine: str, command: Sequence[str], environment: Mapping[str, str]) -> Installed | None:
    """Return what a command (`python -m sglang.launch_server`, `sglang serve`) would run.

    Raises:
        OSError: the interpreter cannot be started.
        subprocess.SubprocessError: it failed, or did not answer in time.
    """
    match command:
        case [interpreter, "-m", module, *_]:
            return _probed(interpreter, module.partition(".")[0], environment)
        case [program, *_] if Path(program).name == engine:
            behind = _interpreter_of(program)
            return None if behind is None else _probed(behind, engine, environment)
        case _:
            return None


def _interpreter_of(program: str) -> str | None:
    """Return the interpreter that a script's first line names."""
    found = shutil.which(program)
    first = b"" if found is None else Path(found).read_bytes()[:200].partition(b"\n")[0]
    words = first.decode(errors="replace").removeprefix("#!").split()
    is_python = first.startswith(b"#!") and words and "python" in Path(words[0]).name
    return words[0] if is_python else None


def _probed(interpreter: str, package: str, environment: Mapping[str, str]) -> Installed:
    answer = subprocess.run(  # noqa: S603 - the user's own command, as an argv list
        [interpreter, "-c", _PROBE, package],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=dict(environment),
    )
    found, version = answer.stdout.split("\n")[:2]
    return Installed(package, interpreter, found == "True", version or None)
