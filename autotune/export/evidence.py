"""Why an exported candidate is what it is: everything that was asked, seen and concluded, as JSON. Pure.

In: a `Selection`. Out: `evidence.json`. Invariant: whether the SLO is met and whether the numbers are
simulated stands first; raw files are named with their hashes, so that every figure can be derived again.
"""

import json
import platform
from collections.abc import Iterator

from autotune import __version__
from autotune.export.file import ExportFile
from autotune.export.selection import Selection
from autotune.report.answer import answer_text
from autotune.report.findings import confirmed_of, decision_of, is_simulated, verdict_of
from autotune.search.confirmation import NumberedTrial
from autotune.slo import Decision


def evidence_file(selection: Selection) -> ExportFile:
    """Return `evidence.json`."""
    text = json.dumps(_evidence(selection), indent=2, ensure_ascii=False, allow_nan=False)
    return ExportFile("evidence.json", text + "\n")


def launches_of(selection: Selection) -> Iterator[NumberedTrial]:
    """Yield the exported trial, and the other launches of its candidate."""
    own = selection.trial
    first = own.number if own.record.confirms is None else own.record.confirms
    yield own
    for trial in selection.history.trials:
        if trial.number != own.number and first in (trial.number, trial.record.confirms):
            yield trial


def _evidence(selection: Selection) -> dict[str, object]:
    study, trial = selection.history.study, selection.trial
    decision = decision_of(selection.history, trial)
    return {
        "meets_slo": decision is Decision.MET and selection.shortfall is None,
        "is_simulated": is_simulated(selection.history),
        "marks": list(selection.marks),
        "answer": answer_text(selection.history).splitlines(),
        "study": {"name": study.name, "identity": study.identity},
        "inputs_sha256": study.inputs_sha256,
        "seeds": {"search": study.seed, "workload": study.slo.workload.seed},
        "trial": trial.number,
        "versions": _versions(selection),
        "flags": _flags(selection),
        "commands": {rank.node.name: list(rank.argv) for rank in selection.plan.ranks},
        **_judgement(selection),
        "launches": [_launch(launch) for launch in launches_of(selection)],
        "search_space": study.space.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "slo": study.slo.model_dump(mode="json", by_alias=True, exclude_defaults=True),
    }


def _versions(selection: Selection) -> dict[str, object]:
    space, effective = selection.history.study.space, selection.trial.record.effective
    return {
        "autotune": __version__,
        "python": platform.python_version(),
        space.engine: space.version,
        f"{space.engine}_reported": effective.version if effective else None,
        "image": space.image,
    }


def _flags(selection: Selection) -> dict[str, object]:
    record = selection.trial.record
    return {
        "fixed": selection.history.study.space.model_dump(mode="json")["flags"],
        "asked": record.model_dump(mode="json")["candidate"],
        "effective": record.effective.model_dump(mode="json") if record.effective else None,
    }


def _judgement(selection: Selection) -> dict[str, object]:
    """Return objectives, ceilings with margins, and the gain with its interval."""
    history, record = selection.history, selection.trial.record
    verdict = verdict_of(history, selection.trial)
    confirmed = confirmed_of(history, selection.trial)
    goals = [goal.text for goal in history.study.slo.goals]
    return {
        "objectives": dict(zip(goals, record.objectives, strict=True)) if record.objectives else None,
        "ceilings": verdict.model_dump(mode="json")["ceilings"] if verdict else [],
        "confirmation": confirmed.model_dump(mode="json", exclude={"verdict"}) if confirmed else None,
        "error_rate": history.answer.error_rate if history.answer else None,
    }


def _launch(trial: NumberedTrial) -> dict[str, object]:
    record = trial.record
    return {
        "trial": trial.number,
        "role": record.role,
        "outcome": record.outcome,
        "objectives": record.objectives,
        "measured_live_on": record.measured_live_on,
        "durations_s": record.durations_s,
        "answers": record.answers.model_dump(mode="json") if record.answers else None,
        "load_points": [point.model_dump(mode="json") for point in record.points],
    }
