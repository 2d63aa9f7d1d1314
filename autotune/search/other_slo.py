"""Another SLO for launches that were made for a study's own: read, and checked against what was measured.

In: an SLO file and a `Study`. Out: its `SloDraft`, or every difference at its line. Talks to the disk.
Invariant: the requests of both are the same, so that only ceilings and objectives differ, and which of the
measured load points count.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autotune.document import Frozen, KeyPath
from autotune.errors import ConfigError, Problem, did_you_mean
from autotune.load.arrivals import LoadPoint
from autotune.load.workload import Workload
from autotune.study import SloDraft, Study, read_slo


def read_other_slo(path: Path, study: Study) -> SloDraft:
    """Read an SLO under which a study's launches are to be judged again.

    Raises:
        ConfigError: the file is wrong in itself, or asks for what the study did not measure.
    """
    draft = read_slo(path)
    problems = (*_workload_problems(draft, study), *_load_problems(draft, study))
    if problems:
        raise ConfigError(problems)
    return draft


def _workload_problems(draft: SloDraft, study: Study) -> Iterator[Problem]:
    ours = _plain(draft.slo.workload, _workload_files(draft.slo.workload), draft.inputs_sha256)
    own = study.slo.workload
    yield from _differences(
        draft, ("workload",), ours, _plain(own, _workload_files(own), study.inputs_sha256)
    )


def _load_problems(draft: SloDraft, study: Study) -> Iterator[Problem]:
    measured = {point.label: point for point in study.slo.load}
    for index, point in enumerate(draft.slo.load):
        if point.label not in measured:
            remedy = did_you_mean(point.label, measured) or f"There are {', '.join(measured)}."
            yield draft.document.problem(
                ("load", index), f"the study has no load point {point.label!r}", remedy
            )
            continue
        ours = _plain(point, _point_files(point), draft.inputs_sha256)
        own = measured[point.label]
        theirs = _plain(own, _point_files(own), study.inputs_sha256)
        yield from _differences(draft, ("load", index), ours, theirs)


def _differences(
    draft: SloDraft, at: KeyPath, ours: Mapping[str, object], theirs: Mapping[str, object]
) -> Iterator[Problem]:
    for key, value in ours.items():
        if value != theirs[key]:
            yield draft.document.problem(
                (*at, key),
                f"{_shown(value)} here, but the launches were made with {_shown(theirs[key])}",
                "Write the same as in the study, or tune for this file: other requests need other launches.",
            )


def _workload_files(workload: Workload) -> dict[str, str]:
    """Return under which name the hash of each file is kept, by its key."""
    named = {"dataset": workload.dataset, "tokenizer": workload.tokenizer}
    return {key: key for key, path in named.items() if path is not None}


def _point_files(point: LoadPoint) -> dict[str, str]:
    return {} if point.trace is None else {"trace": f"trace at {point.label}"}


def _plain(model: Frozen, files: Mapping[str, str], sha256: Mapping[str, str]) -> dict[str, Any]:
    """Return a model's values, those of files by their content: a path alone says little."""
    hashed = {key: f"a file of SHA-256 {sha256.get(name, 'unknown')}" for key, name in files.items()}
    return model.model_dump(mode="json", by_alias=True) | hashed


def _shown(value: object) -> str:
    return "nothing" if value is None else str(value)
