"""Everything that a reproduction needs: versions, image, nodes, seeds, files, flags asked and effective.

In: a `StudyHistory`. Out: rows of texts. Invariant: what no trial recorded is said to be unknown.
"""

import platform
from collections.abc import Iterable
from dataclasses import dataclass

from autotune import __version__
from autotune.document import to_yaml
from autotune.record import TrialRecord
from autotune.report.findings import baseline_of, winner_of
from autotune.report.language import say
from autotune.report.units import flag_value
from autotune.search.study_history import StudyHistory


@dataclass(frozen=True)
class EffectiveFlag:
    """One flag as it was asked and as the engine ran with it, for the baseline and for the winner."""

    name: str
    baseline_asked: str
    baseline_effective: str
    winner_asked: str
    winner_effective: str

    @property
    def differs(self) -> bool:
        """Whether the winner ran with another value than the baseline."""
        return self.baseline_effective != self.winner_effective


def facts(history: StudyHistory) -> dict[str, str]:
    """Return the versions, places and seeds, each under its name."""
    study = history.study if history.judged_again is None else history.judged_again.study
    effective = [trial.record.effective for trial in history.trials if trial.record.effective]
    again = history.judged_again
    return {
        **({} if again is None else {say("judged again under"): str(again.file)}),
        say("study"): say("{name} (identity {identity})", name=study.name, identity=study.identity),
        say("autotune"): __version__,
        "Python": platform.python_version(),
        study.space.engine: study.space.version,
        say("{engine}, as the engine said", engine=study.space.engine): _seen(
            each.version for each in effective
        ),
        say("image"): study.space.image or say("none"),
        say("image digest"): _seen(each.image_digest for each in effective),
        say("model"): study.space.model,
        say("launcher"): str(study.space.launcher),
        say("nodes"): ", ".join(_node(node.name, node.gpus) for node in study.space.nodes) or say("none"),
        say("GPU driver"): _seen(each.driver for each in effective),
        say("seed of the search"): str(study.seed),
        say("seed of the workload"): str(study.slo.workload.seed),
        say("trials"): say(
            "{finished} finished, {running} running or cut off",
            finished=len(history.trials),
            running=history.running,
        ),
        say("raw records"): say(
            "under trials/ in the study's folder, one file a load point, hashes in the storage"
        ),
    }


def inputs(history: StudyHistory) -> dict[str, str]:
    """Return the two files of the study as YAML, and the SLO under which it is judged again."""
    files = {say("search space"): to_yaml(history.study.space), say("SLO"): to_yaml(history.study.slo)}
    if history.judged_again is None:
        return files
    return files | {say("SLO for which the launches were made"): to_yaml(history.judged_again.study.slo)}


def effective_flags(history: StudyHistory) -> tuple[EffectiveFlag, ...]:
    """Return every flag that the engine reported for the baseline or the winner; those that differ first."""
    baseline, winner = baseline_of(history), winner_of(history)
    one = None if baseline is None else baseline.record
    other = None if winner is None else winner.record
    names = sorted(_names(one) | _names(other))
    rows = [EffectiveFlag(name, *_values(one, name), *_values(other, name)) for name in names]
    return tuple(sorted(rows, key=lambda row: not row.differs))


def _names(record: TrialRecord | None) -> set[str]:
    return set() if record is None or record.effective is None else set(record.effective.flags)


def _values(record: TrialRecord | None, name: str) -> tuple[str, str]:
    if record is None:
        return "", ""
    asked = flag_value(record.candidate[name]) if name in record.candidate else ""
    has = record.effective is not None and name in record.effective.flags
    return asked, flag_value(record.effective.flags[name]) if has and record.effective else ""


def _seen(values: Iterable[str | None]) -> str:
    return ", ".join(sorted({value for value in values if value})) or say("not seen")


def _node(name: str, gpus: int) -> str:
    return say("{name} ({gpus} GPUs)", name=name, gpus=gpus)
