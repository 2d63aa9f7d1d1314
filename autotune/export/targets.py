"""What a candidate can be exported as, and the one function that does it. Pure.

In: a `StudyHistory` and a `Target`. Out: files to be written, among them always EVIDENCE.md, which says why,
and verify.sh, which checks what was deployed.
"""

from enum import StrEnum

from autotune.errors import parse_choice
from autotune.export.compose import compose_files
from autotune.export.config import config_files
from autotune.export.docker import docker_files
from autotune.export.evidence import evidence_file
from autotune.export.file import ExportFile
from autotune.export.helm import helm_files
from autotune.export.kubernetes import kubernetes_files
from autotune.export.page import evidence_page
from autotune.export.selection import Selection, select
from autotune.export.slurm import slurm_files
from autotune.export.systemd import systemd_files
from autotune.export.verify import kubernetes_url, launched_url, slurm_url, verify_files
from autotune.search.study_history import StudyHistory


class Target(StrEnum):
    """The forms of an export."""

    DOCKER = "docker"
    COMPOSE = "compose"
    SYSTEMD = "systemd"
    KUBERNETES = "kubernetes"
    HELM = "helm"
    SLURM = "slurm"
    SGLANG_CONFIG = "sglang-config"
    JSON = "json"


def parse_target(text: str) -> Target:
    """Return the target of that name.

    Raises:
        ConfigError: there is none.
    """
    return parse_choice(Target, "--to", text)


def export(
    history: StudyHistory,
    target: Target,
    *,
    trial: int | None = None,
    force: bool = False,
    accept_answers: bool = False,
) -> tuple[ExportFile, ...]:
    """Return the files of an export; `trial` None means the candidate that the study recommends.

    Raises:
        RefusedExport: the candidate does not meet the SLO, and `force` is not given; or its answers differ
            from the baseline's, and `accept_answers` is not given.
        ConfigError: there is no such trial, or the target needs what the search space does not say.
    """
    selection = select(history, number=trial, force=force, accept_answers=accept_answers)
    verify = verify_files(selection, *_url(selection, target))
    return (*_files(selection, target), *verify, evidence_page(selection))


def _files(selection: Selection, target: Target) -> tuple[ExportFile, ...]:
    match target:
        case Target.DOCKER:
            return docker_files(selection)
        case Target.COMPOSE:
            return compose_files(selection)
        case Target.SYSTEMD:
            return systemd_files(selection)
        case Target.KUBERNETES:
            return kubernetes_files(selection)
        case Target.HELM:
            return helm_files(selection)
        case Target.SLURM:
            return slurm_files(selection)
        case Target.SGLANG_CONFIG:
            return config_files(selection)
        case Target.JSON:
            return (evidence_file(selection),)


def _url(selection: Selection, target: Target) -> tuple[str, str]:
    match target:
        case Target.KUBERNETES | Target.HELM:
            return kubernetes_url(selection)
        case Target.SLURM:
            return slurm_url(selection)
        case _:
            return launched_url(selection)
