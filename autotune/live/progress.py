"""How far a study has come: what runs, what is expected, what stands best, what time is left. Pure.

In: the trials told so far, the trials that run, the budget. Out: `Progress`, a snapshot that a page is drawn
from. Invariants: any number of trials may run at once; whether the facts came from events or from files
makes no difference; seconds are those of the study's clock, virtual in a simulated study.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from statistics import median

from rich.text import Text

from autotune.document import Frozen
from autotune.record import Outcome, Role, TrialRecord
from autotune.report.findings import baseline_of, decision_of, leaders
from autotune.search.budget import Budget, expected_trial_s, launches_used, reserve_s
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from autotune.slo import Decision
from autotune.space import Candidate, FlagValue

STAGES = ("launch", "load", "teardown")


class RunningTrial(Frozen):
    """A trial under way. The ages are seconds since it, its stage and its phase began."""

    number: int
    role: Role
    candidate: dict[str, FlagValue]
    phase: str
    trial_s: float = 0.0
    stage_s: float = 0.0
    phase_s: float = 0.0

    @property
    def stage(self) -> str:
        """Launch, load or teardown; what comes before and after counts as the neighbour."""
        return stage_of(self.phase)

    def aged(self, seconds: float) -> "RunningTrial":
        """Return it some seconds later."""
        ages = {name: getattr(self, name) + seconds for name in ("trial_s", "stage_s", "phase_s")}
        return self.model_copy(update=ages)

    def to_candidate(self) -> Candidate:
        """Return the candidate that is tried."""
        return Candidate.of(self.candidate)


def stage_of(phase: str) -> str:
    """Return the stage that a phase of a trial, such as `launch: weights`, belongs to."""
    name = phase.partition(":")[0]
    return {"asked": "launch", "record": "teardown"}.get(name, name)


class Controller(StrEnum):
    """What is known of the process that runs the study."""

    RUNNING = "running"
    ENDED = "ended"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Standing:
    """What the finished trials say: computed once for each state of them.

    `best_by_launch`: the best value that met the SLO so far after each launch of the search, None before the
    first. `failures`: how many trials by kind, the most frequent first.
    """

    history: StudyHistory
    budget: Budget | None

    @cached_property
    def records(self) -> tuple[TrialRecord, ...]:
        """The records of the finished trials."""
        return tuple(trial.record for trial in self.history.trials)

    @cached_property
    def incumbent(self) -> NumberedTrial | None:
        """The best candidate that meets the SLO, else the one nearest to it."""
        return next(iter(leaders(self.history, 1)), None)

    @cached_property
    def baseline(self) -> NumberedTrial | None:
        """The trial of what runs today."""
        return baseline_of(self.history)

    def meets(self, trial: NumberedTrial) -> bool:
        """Whether it meets the SLO for certain."""
        return decision_of(self.history, trial) is Decision.MET

    @cached_property
    def best_by_launch(self) -> tuple[float | None, ...]:
        """The best value so far after each launch of the search, with what was measured live on it."""
        maximises = self.history.study.slo.goals[0].direction == "maximise"
        best, series = None, []
        for trial in self.history.trials:
            if trial.record.role is Role.CONFIRMATION or not trial.record.durations_s:
                continue
            if trial.record.objectives is not None and self.meets(trial):
                value = trial.record.objectives[0]
                best = value if best is None else (max if maximises else min)(best, value)
            if trial.record.is_launch:
                series.append(best)
            elif series:
                series[-1] = best
        return tuple(series)

    @cached_property
    def launches(self) -> int:
        """How many launches of the search were spent."""
        return launches_used(self.history.trials)

    @cached_property
    def confirmations(self) -> int:
        """How many fresh launches were spent."""
        return sum(record.role is Role.CONFIRMATION and bool(record.durations_s) for record in self.records)

    @cached_property
    def spent_s(self) -> float:
        """Everything that the trials took."""
        return sum(record.duration_s for record in self.records)

    @cached_property
    def trial_s(self) -> float:
        """How long one more trial may take, 0 if nothing is known yet."""
        return expected_trial_s(self.records)

    @cached_property
    def reserved_s(self) -> float:
        """What the search leaves to the confirmation."""
        return 0.0 if self.budget is None else reserve_s(self.budget, self.history.trials)

    @cached_property
    def _whole(self) -> tuple[TrialRecord, ...]:
        return tuple(
            record
            for record in self.records
            if record.outcome is Outcome.MEASURED and record.is_launch and record.same_as is None
        )

    def expected_stage_s(self, stage: str) -> float | None:
        """Return the median duration of a stage over the measured trials, None without any."""
        return _median([record.durations_s.get(stage) for record in self._whole])

    def expected_phase_s(self, phase: str) -> float | None:
        """Return the median duration of a start phase such as `launch: weights`, None if it is not one."""
        name = phase.partition(": ")[2].replace(" ", "_")
        return _median([record.start_phases_s.get(name) for record in self._whole])


@dataclass(frozen=True)
class Progress:
    """A study at one moment. `left_s`: until the deadline, None without one; `told`: the log's last lines."""

    standing: Standing
    running: tuple[RunningTrial, ...]
    is_simulated: bool
    left_s: float | None = None
    controller: Controller = Controller.RUNNING
    told: tuple[Text, ...] = ()

    @property
    def history(self) -> StudyHistory:
        """The finished trials."""
        return self.standing.history

    @property
    def budget(self) -> Budget | None:
        """What the user allowed, None if it is not known."""
        return self.standing.budget

    @property
    def part(self) -> str:
        """Baseline, search or confirmation: what the study is busy with, or how it ended."""
        if self.history.answer is not None and not self.running:
            return "answered"
        if self.controller in (Controller.ENDED, Controller.GONE):
            return "stopped" if self.controller is Controller.ENDED else "cut off"
        roles = [trial.role for trial in self.running] or [record.role for record in self.standing.records]
        return str(roles[-1]) if roles else "starting"

    @property
    def launches_left(self) -> int | None:
        """How many more launches of the search may begin; None if nothing limits them or nothing is known."""
        if self.history.search_end is not None:
            return 0
        limits = []
        if self.budget is not None and self.budget.launches is not None:
            searching = sum(trial.role is not Role.CONFIRMATION for trial in self.running)
            limits.append(self.budget.launches - self.standing.launches - searching)
        if self.left_s is not None and self.standing.trial_s:
            room_s = self.left_s - self.standing.reserved_s - self._running_s / self._at_once
            limits.append(math.floor(room_s / self.standing.trial_s) * self._at_once)
        return max(min(limits), 0) if limits else None

    @property
    def time_left_s(self) -> float | None:
        """Seconds until the end: of the budget, or of the launches to come if they are like those so far."""
        if self.left_s is not None:
            return max(self.left_s, 0.0)
        if self.budget is None or self.launches_left is None or not self.standing.trial_s:
            return None
        confirming = sum(trial.role is Role.CONFIRMATION for trial in self.running)
        fresh = max(self.budget.confirmation_launches - self.standing.confirmations - confirming, 0)
        return ((self.launches_left + fresh) * self.standing.trial_s + self._running_s) / self._at_once

    @property
    def _at_once(self) -> int:
        """How many trials run beside each other."""
        return max(len(self.running), 1)

    @property
    def _running_s(self) -> float:
        """What the running trials still take, together."""
        return sum(max(self.standing.trial_s - trial.trial_s, 0.0) for trial in self.running)


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
