"""Which candidate is exported, and what must be said about it.

In: a `StudyHistory`, perhaps the number of a trial. Out: a `Selection`, or `RefusedExport`. Pure.
Invariants: a candidate that does not meet its SLO leaves only by force, and then carries the reason; one
that was measured only live, on an engine launched with other flags, never leaves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from autotune import __version__
from autotune.engine.plan import LaunchPlan
from autotune.errors import AutotuneError, ConfigError
from autotune.export.remedy import remedies
from autotune.report.alike import difference_text
from autotune.report.answer import nearest_text, shortfall
from autotune.report.commands import trial_plan
from autotune.report.findings import (
    confirmed_of,
    failures_by_kind,
    is_only_live,
    is_simulated,
    meeting,
    nearest,
    trial_of,
    winner_of,
)
from autotune.report.marks import SIMULATED
from autotune.search.answer import AnswerKind
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from autotune.space import LauncherKind


class RefusedExport(AutotuneError):  # noqa: N818 - not a fault, but what the study found
    """The candidate misses the SLO, answers otherwise than the baseline, or was never launched."""


@dataclass(frozen=True)
class Selection:
    """The candidate to export. `shortfall` says why it does not meet its SLO, None if it does."""

    history: StudyHistory
    trial: NumberedTrial
    shortfall: str | None

    @property
    def marks(self) -> tuple[str, ...]:
        """What every exported file says first, the gravest first."""
        return tuple(self._marks())

    @property
    def origin(self) -> str:
        """Where the files come from."""
        return f"autotune {__version__}, study {self.history.study.name}, trial {self.trial.number}"

    @property
    def head(self) -> tuple[str, ...]:
        """What every file says first: the marks, where it comes from, where the evidence is."""
        return (*self.marks, f"{self.origin}; evidence in EVIDENCE.md.")

    @property
    def plan(self) -> LaunchPlan:
        """The launch as the study made it."""
        return trial_plan(self.history.study, self.trial)

    @property
    def container_plan(self) -> LaunchPlan:
        """The launch inside a container, whatever launched the study's own trials."""
        return self.plan_led_from(self.history.study.space.nodes[0].address)

    def plan_led_from(self, address: str) -> LaunchPlan:
        """Return the launch on hosts of their own, in the image if there is one, rank 0 at that address.

        A command that was written for processes names a program of that host, so the image's own is used.
        """
        space = self.history.study.space
        leader = space.nodes[0].model_copy(update={"address": address})
        changes: dict[str, object] = {
            "launcher": LauncherKind.DOCKER,
            "all_nodes": (leader, *space.nodes[1:]),
        }
        if space.launcher is LauncherKind.PROCESS and space.image is not None:
            changes["command"] = None
        study = self.history.study.model_copy(update={"space": space.model_copy(update=changes)})
        return trial_plan(study, self.trial)

    def _marks(self) -> Iterator[str]:
        if self.shortfall is not None:
            yield f"DOES NOT MEET ITS SLO: {self.shortfall}"
        if is_simulated(self.history):
            yield SIMULATED
        differs = _differing_answers(self.history, self.trial)
        if differs is not None:
            yield f"ITS ANSWERS DIFFER FROM THE BASELINE'S, which was accepted by name: {differs}"
        if confirmed_of(self.history, self.trial) is None:
            yield "NOT CONFIRMED: the candidate was measured in the search only, not launched afresh."
        elif _is_dominated(self.history, self.trial):
            yield "NOT ON THE CONFIRMED PARETO FRONT: another candidate beats it."


def select(
    history: StudyHistory, *, number: int | None, force: bool, accept_answers: bool = False
) -> Selection:
    """Return the named candidate, or the one that the study recommends.

    `accept_answers`: also one whose answers differ from the baseline's.

    Raises:
        ConfigError: there is no such trial, or the answer is a front and no trial of it is named.
        RefusedExport: it does not meet the SLO and `force` is not given, its answers differ and that is not
            accepted, it was measured live only, or there is nothing to export.
    """
    if number is None and _kind(history) is AnswerKind.FRONT:
        raise ConfigError(_choice(history))
    trial = _recommended(history) if number is None else trial_of(history, number)
    if trial is None and number is not None:
        raise ConfigError(f"study {history.study.name} has no finished trial {number}")
    if trial is None:
        raise RefusedExport(
            f"study {history.study.name}: no candidate was measured. {_failures(history)}".rstrip()
        )
    if is_only_live(history, trial):
        raise RefusedExport(_not_launched(trial))
    lack = shortfall(history, trial)
    if lack is None and number is None and _says_nothing_meets(history):
        lack = "the fresh launches of the finalists met it in no case, and this candidate had none"
    if lack is not None and not force:
        raise RefusedExport(_refusal(history, trial, lack))
    differs = _differing_answers(history, trial)
    if differs is not None and not accept_answers:
        raise RefusedExport(
            f"trial {trial.number} answers otherwise than the baseline: {differs}.\n"
            f"    What both answered lies in answers.json of their confirmations under "
            f"{history.folder / 'trials'}.\n    --accept-answers exports it, marked as such."
        )
    return Selection(history, trial, lack)


def _recommended(history: StudyHistory) -> NumberedTrial | None:
    """Return the winner; without one the best that met the SLO in the search; without any, the nearest.

    What was never launched comes last, so that it is refused only where there is nothing else.
    """
    launched = replace(
        history, trials=tuple(each for each in history.trials if not is_only_live(history, each))
    )
    near = nearest(launched) or nearest(history)
    if _says_nothing_meets(history):
        return near
    return winner_of(history) or next(iter(meeting(launched)), None) or near


def _says_nothing_meets(history: StudyHistory) -> bool:
    return _kind(history) is AnswerKind.NOTHING_MEETS


def _kind(history: StudyHistory) -> AnswerKind | None:
    return None if history.answer is None else history.answer.kind


def _is_dominated(history: StudyHistory, trial: NumberedTrial) -> bool:
    """Whether the answer has a front, and the trial's candidate is not on it."""
    front = history.answer.front if history.answer else ()
    number = trial.number if trial.record.confirms is None else trial.record.confirms
    return bool(front) and number not in front


def _differing_answers(history: StudyHistory, trial: NumberedTrial) -> str | None:
    confirmed = confirmed_of(history, trial)
    return None if confirmed is None else difference_text(confirmed)


def _choice(history: StudyHistory) -> str:
    numbers = ", ".join(str(number) for number in sorted(history.answer.front if history.answer else ()))
    return (
        f"study {history.study.name}: the answer is a Pareto front, and the choice is yours.\n"
        f"    Name one of its trials with --trial: {numbers}."
    )


def _refusal(history: StudyHistory, trial: NumberedTrial, lack: str) -> str:
    near = nearest(history)
    hint = "" if near is None or near.number == trial.number else f"\n    {nearest_text(history)}"
    help_lines = remedies(history, near) if near and shortfall(history, near) else ()
    help_text = "".join(f"\n    {line}" for line in help_lines)
    return (
        f"trial {trial.number} does not meet the SLO: {lack}.{hint}{help_text}"
        "\n    --force exports it, marked as such."
    )


def _not_launched(trial: NumberedTrial) -> str:
    return (
        f"trial {trial.number} was measured live on trial {trial.record.measured_live_on}, whose engine was "
        "launched with other flags; a real relaunch must confirm it.\n"
        "    The same tune command with more time confirms the best candidates; or list its flags under\n"
        "    'try' in the search space of a new study."
    )


def _failures(history: StudyHistory) -> str:
    counts = [f"{len(trials)} {kind}" for kind, trials in failures_by_kind(history).items()]
    return f"Not measured: {', '.join(counts)}." if counts else ""
