"""The error tree and its exit codes.

AutotuneError
  ConfigError           exit 2   the user's files or flags; names file, line, key, value and remedy
  InfrastructureError   exit 3   a node, image, GPU, port or disk is not usable; the study can be resumed
  StudyError            exit 4   a run folder or storage that is locked, damaged or of another study
  LoadError                      the measurement is not valid; trial.py records it, it never reaches the user

An engine that fails is data (`engine.launcher.EngineError`), caught once, in trial.py.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, TypeVar


class AutotuneError(Exception):
    """Root of the errors whose message alone tells the user what to do."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file or on the command line, and what to do about it."""

    message: str
    file: Path | None = None
    line: int | None = None
    key: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        place = "" if self.file is None else f"{self.file}:{self.line or 1}: "
        key = f"{self.key}: " if self.key else ""
        remedy = f"\n    {self.remedy}" if self.remedy else ""
        return f"{place}{key}{self.message}{remedy}"


class ConfigError(AutotuneError):
    """Everything that is wrong with what the user wrote, all at once."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        if isinstance(problems, str):
            problems = (Problem(problems),)
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class InfrastructureError(AutotuneError):
    """Something outside the candidate is unusable; going on would only burn launches."""

    exit_code = 3


class StudyError(AutotuneError):
    """The run folder or its storage cannot be used for this study."""

    exit_code = 4


class LoadError(AutotuneError):
    """The load was not what was asked for (client too slow, nothing sent): invalid, not slow."""


_Choice = TypeVar("_Choice", bound=StrEnum)


def parse_choice(kind: type[_Choice], option: str, name: str) -> _Choice:
    """Return the member of that name, as an option of the command line gives it.

    Raises:
        ConfigError: there is none; the message has them all, and the nearest.
    """
    if name in set(kind):
        return kind(name)
    hint = did_you_mean(name, kind) or ""
    raise ConfigError(f"{option} {name!r}: there are {', '.join(kind)}. {hint}".rstrip())


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return a sentence with the nearest known word, or None if nothing is near."""
    near = difflib.get_close_matches(word, [str(each) for each in known], n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else None
