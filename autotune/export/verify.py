"""The check of a deployed service: the SLO it was tuned for as a file, and a script that benches against it.

In: a `Selection` and where the service is reached. Out: `slo.yaml` and `verify.sh`. Pure. Invariant: the
script exits 0 only if every ceiling was measured and kept, an undecided one by its value.
"""

import shlex
from collections.abc import Iterator

from autotune.document import to_yaml
from autotune.export.file import ExportFile, comments
from autotune.export.kubernetes import service_host
from autotune.export.selection import Selection
from autotune.export.slurm import job_name

SLO_FILE = "slo.yaml"


def verify_files(selection: Selection, url: str, note: str) -> tuple[ExportFile, ...]:
    """Return both files; `url` is a word of the shell, `note` says whose address it is."""
    slo = comments((*selection.head, *_input_notes(selection))) + to_yaml(selection.history.study.slo)
    return (
        ExportFile("verify.sh", _script(selection, url, note), is_executable=True),
        ExportFile(SLO_FILE, slo),
    )


def launched_url(selection: Selection) -> tuple[str, str]:
    """Return where a service on the study's own nodes is reached."""
    node = selection.history.study.space.nodes[0].name
    return shlex.quote(selection.plan.base_url), f"Without a URL: rank 0 on {node}."


def kubernetes_url(selection: Selection) -> tuple[str, str]:
    """Return where a pod reaches the Service."""
    host, port = service_host(selection), selection.history.study.space.port
    forward = f"kubectl port-forward service/{host} {port}:{port}"
    return f"http://{host}:{port}", f"Without a URL: the Service, from a pod. From elsewhere: {forward}"


def slurm_url(selection: Selection) -> tuple[str, str]:
    """Return where the newest running job of that name serves: on the host that runs the batch script."""
    query = f"squeue --me --name={job_name(selection)} --states=RUNNING --sort=-i --noheader --format=%B"
    port = selection.history.study.space.port
    return f'"http://$({query} | head -n 1):{port}"', "Without a URL: your newest running job of that name."


def _script(selection: Selection, url: str, note: str) -> str:
    notes = (
        *selection.head,
        "Benches a deployed service against the SLO that it was tuned for: verify.sh [URL [OPTION ...]]",
        "Exit code: 0 all ceilings are kept (undecided ones by value), 1 one is missed, else not measured.",
        note,
        "Options are those of autotune bench, such as --api-key-env NAME or --out FOLDER.",
    )
    lines = [
        "set -eu",
        "",
        f"[ $# -gt 0 ] || set -- {url}",
        "url=$1",
        "shift",
        f'exec autotune bench "$url" --slo "$(dirname "$0")/{SLO_FILE}" "$@"',
    ]
    return f"#!/bin/sh\n{comments(notes)}" + "\n".join(lines) + "\n"


def _input_notes(selection: Selection) -> Iterator[str]:
    for name, sha256 in selection.history.study.inputs_sha256.items():
        yield f"The {name} must be where this file says; its SHA-256 is {sha256}."
