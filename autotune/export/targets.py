"""What a candidate can be exported as, and the one function that does it. Pure.

In: a `StudyHistory` and a `Target`. Out: files to be written, EVIDENCE.md always among them.
"""

from enum import StrEnum

from autotune.errors import ConfigError, did_you_mean
from autotune.export.compose import compose_files
from autotune.export.config import config_files
from autotune.export.docker import docker_files
from autotune.export.evidence import evidence_file
from autotune.export.file import ExportFile
from autotune.export.page import evidence_page
from autotune.export.selection import Selection, select
from autotune.search.ledger import StudyHistory


class Target(StrEnum):
    """The forms of an export."""

    DOCKER = "docker"
    COMPOSE = "compose"
    SGLANG_CONFIG = "sglang-config"
    JSON = "json"


def parse_target(text: str) -> Target:
    """Return the target of that name.

    Raises:
        ConfigError: there is none.
    """
    if text in set(Target):
        return Target(text)
    hint = did_you_mean(text, Target) or ""
    raise ConfigError(f"--to {text}: there are {', '.join(Target)}. {hint}".rstrip())


def export(
    history: StudyHistory, target: Target, *, trial: int | None = None, force: bool = False
) -> tuple[ExportFile, ...]:
    """Return the files of an export; `trial` None means the candidate that the study recommends.

    Raises:
        RefusedExport: the candidate does not meet the SLO, and `force` is not given.
        ConfigError: there is no such trial, or the target needs what the search space does not say.
    """
    selection = select(history, number=trial, force=force)
    return (*_files(selection, target), evidence_page(selection))


def _files(selection: Selection, target: Target) -> tuple[ExportFile, ...]:
    match target:
        case Target.DOCKER:
            return docker_files(selection)
        case Target.COMPOSE:
            return compose_files(selection)
        case Target.SGLANG_CONFIG:
            return config_files(selection)
        case Target.JSON:
            return (evidence_file(selection),)
