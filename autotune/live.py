"""What a running study shows: a live line on a terminal, plain lines elsewhere.

In: the tuner's events. Out: text on a rich console, which the CLI owns.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from autotune.record import Outcome, Role, TrialRecord
from autotune.report.units import duration, metric_value
from autotune.search.budget import Budget
from autotune.search.confirmation import NumberedTrial
from autotune.slo import Decision, Slo
from autotune.tuner import Event, PhaseBegan, Recovered, TrialEnded


@dataclass
class StudyView:
    """What is worth showing of a study in progress; `best` is the best feasible value so far."""

    slo: Slo
    budget: Budget
    console: Console
    launches: int = 0
    confirmations: int = 0
    spent_s: float = 0.0
    left_s: float | None = None
    best: TrialRecord | None = None
    baseline: TrialRecord | None = None
    current: str = "starting"
    _live: Live | None = field(default=None, repr=False)

    def catch_up(self, trials: Iterable[NumberedTrial]) -> None:
        """Take in what earlier calls of the same study did, without telling it again."""
        for trial in trials:
            self._count(trial.record, None)

    @contextmanager
    def shown(self) -> Iterator["StudyView"]:
        """Show the view while the context lasts."""
        if not self.console.is_terminal:
            yield self
            return
        with Live(self._line(), console=self.console, transient=True) as live:
            self._live = live
            try:
                yield self
            finally:
                self._live = None

    def observe(self, event: Event) -> None:
        """Take in one event of the tuner."""
        match event:
            case PhaseBegan(trial=trial, phase=phase):
                self.current = f"trial {trial.number} ({trial.role}) {phase}"
            case TrialEnded(trial=trial, record=record, left_s=left_s):
                self._count(record, left_s)
                line = f"trial {trial.number:>3}  {self._told(record)}"
                self.console.print(line, highlight=False, soft_wrap=not self.console.is_terminal)
            case Recovered(run_again=again, removed=removed):
                self._tell_recovered(again, removed)
        if self._live is not None:
            self._live.update(self._line())

    def _count(self, record: TrialRecord, left_s: float | None) -> None:
        if record.durations_s:
            self.spent_s += record.duration_s
            self.confirmations += record.role is Role.CONFIRMATION
            self.launches += record.role is not Role.CONFIRMATION
        self.left_s = self._estimate_s() if left_s is None else left_s
        if record.role is Role.BASELINE:
            self.baseline = record
        if record.role is not Role.CONFIRMATION and self._is_better(record):
            self.best = record

    def _estimate_s(self) -> float | None:
        """Return what the launches still to come will take, if they are like those so far."""
        if self.budget.launches is None or not self.spent_s:
            return None
        search = max(self.budget.launches - self.launches, 0)
        confirmation = max(self.budget.confirmation_launches - self.confirmations, 0)
        return (search + confirmation) * self.spent_s / (self.launches + self.confirmations)

    def _is_better(self, record: TrialRecord) -> bool:
        if record.objectives is None or record.verdict is None:
            return False
        if record.verdict.decision is Decision.MISSED:
            return False
        if self.best is None or self.best.objectives is None:
            return True
        sign = 1 if self.slo.goals[0].direction == "maximise" else -1
        return sign * record.objectives[0] > sign * self.best.objectives[0]

    def _told(self, record: TrialRecord) -> str:
        """Return one line on a finished trial, as rich markup."""
        where = f"\n           [dim]{escape(str(record.to_candidate()))}[/]"
        free = "" if record.same_as is None else f" [dim](as trial {record.same_as})[/]"
        match record.outcome:
            case Outcome.MEASURED:
                decision = record.verdict.decision if record.verdict else Decision.UNDECIDED
                colour = {Decision.MET: "green", Decision.MISSED: "yellow"}.get(decision, "cyan")
                text = f"[{colour}]{decision:9}[/] {self._value(record):>12}  {record.role}"
            case Outcome.FAILED:
                kind = record.failure.kind if record.failure else "failed"
                line = escape(record.failure.line.strip()[:100]) if record.failure else ""
                text = f"[red]failed[/]    {kind}\n           {line}"
            case _:
                text = f"[dim]{record.outcome:9} {escape(record.reason or '')}[/]"
        return text + free + where

    def _tell_recovered(self, again: tuple[int, ...], removed: tuple[str, ...]) -> None:
        if removed:
            self.console.print(f"removed what an earlier run left behind: {escape(', '.join(removed))}")
        if again:
            numbers = ", ".join(str(number) for number in again)
            self.console.print(f"cut off by an earlier stop, run again: trial {numbers}")

    def _value(self, record: TrialRecord) -> str:
        if record.objectives is None:
            return "-"
        return metric_value(self.slo.goals[0].quantity.metric, record.objectives[0])

    def _line(self) -> Text:
        of = f"/{self.budget.launches}" if self.budget.launches else ""
        parts = [f"launch {self.launches}{of}", self.current]
        if self.best is not None:
            parts.append(f"best {self._value(self.best)}")
        if self.left_s is not None:
            parts.append(f"{duration(max(self.left_s, 0.0))} left")
        return Text("  ·  ".join(parts))
