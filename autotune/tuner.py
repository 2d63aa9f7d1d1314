"""The loop: baseline, search, confirmation, answer; within a budget, and resumable at any point.

In: a study, a launcher, a budget. Out: a `StudyHistory` with its answer. Talks to the storage (through the
ledger) and to trials. Invariants: one controller per run folder; every trial is recorded before the next one
begins; what a killed controller left is settled before anything is launched.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock, Timeout

from autotune.engine.dialect import EffectiveFlags
from autotune.engine.dialects import dialect_of
from autotune.engine.launcher import Launcher
from autotune.errors import StudyError
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.budget import Budget, allowance_s, fits_confirmation, fits_search
from autotune.search.confirmation import (
    Answer,
    NumberedTrial,
    conclude,
    finalists,
    next_confirmation,
)
from autotune.search.feasibility import infeasible_reason, same_candidate, same_effect
from autotune.search.ledger import AskedTrial, Ledger, StudyHistory, storage_errors
from autotune.search.sampler import SamplerKind, make_sampler
from autotune.space import Candidate
from autotune.study import Study, owner_of, save_study
from autotune.trial import TrialOrder, run_trial, take_over

FREE_ASKS = 50
"""How many candidates in a row may cost no launch before the space counts as exhausted."""
ATTEMPTS = 2
"""How often a candidate is launched whose measurement was invalid."""


@dataclass(frozen=True)
class PhaseBegan:
    """A trial goes on to its next phase."""

    trial: AskedTrial
    phase: str


@dataclass(frozen=True)
class TrialEnded:
    """A trial was told to the storage."""

    trial: AskedTrial
    record: TrialRecord
    left_s: float | None


@dataclass(frozen=True)
class Recovered:
    """What an earlier controller left behind was settled."""

    run_again: tuple[int, ...]
    removed: tuple[str, ...]


Event: TypeAlias = PhaseBegan | TrialEnded | Recovered
Observe: TypeAlias = Callable[[Event], None]


def tune(
    study: Study,
    launcher: Launcher,
    budget: Budget,
    folder: Path,
    *,
    sampler: SamplerKind = SamplerKind.TPE,
    observe: Observe,
) -> StudyHistory:
    """Run a study, or go on with it, until its budget is spent and its answer is known.

    Raises:
        StudyError: another controller works in this folder, or it belongs to another study.
        InfrastructureError: no engine can be launched, or the disk or storage failed.
    """
    with storage_errors(folder), _only_controller(folder):
        save_study(study, folder)
        ledger = Ledger(study, folder)
        used = len(ledger.history().trials)
        ledger.use(make_sampler(sampler, study.space, seed=study.seed + used))
        return _Tuner(study, launcher, budget, folder, ledger, observe).run()


@dataclass
class _Tuner:
    """The state of one `tune` call; everything that must survive it is in the ledger.

    `finished`: the trials that were told, as of the last one.
    """

    study: Study
    launcher: Launcher
    budget: Budget
    folder: Path
    ledger: Ledger
    observe: Observe
    finished: tuple[NumberedTrial, ...] = ()
    spoilt_confirmations: int = 0

    def run(self) -> StudyHistory:
        """Settle the past, then baseline, search, confirmation and answer."""
        removed = self.launcher.remove_leftovers(owner_of(self.study.name, self.folder))
        again = self.ledger.recover()
        if removed or again:
            self.observe(Recovered(again, removed))
        self.finished = self.ledger.history().trials
        allowance = allowance_s(self.budget, self.finished)
        self._deadline_s = None if allowance is None else self.launcher.clock.now_s() + allowance
        self._finish_waiting()
        self._measure_baseline()
        self._search()
        self.ledger.answer(self._confirm())
        return self.ledger.history()

    def _finish_waiting(self) -> None:
        while self.ledger.waiting():
            self._run(self.ledger.ask())

    def _measure_baseline(self) -> None:
        if any(trial.record.role is Role.BASELINE for trial in self._settled()):
            return
        baseline = Candidate.of(self.study.space.baseline)
        dialect = dialect_of(self.study.space.engine)
        expected = dialect.known_defaults(self.study.space, baseline.to_dict())
        self._run(self.ledger.ask_for(baseline, Role.BASELINE, {**expected, **baseline.to_dict()}))
        self._finish_waiting()

    def _search(self) -> None:
        free = 0
        while (
            free < FREE_ASKS
            and not self._is_exhausted()
            and fits_search(self.budget, self.finished, self._left_s())
        ):
            record = self._run(self.ledger.ask())
            free = 0 if record.durations_s else free + 1

    def _is_exhausted(self) -> bool:
        """Whether every candidate of the space was settled."""
        searched = (trial.record for trial in self._settled() if trial.record.role is Role.SEARCH)
        return len({record.to_candidate() for record in searched}) >= self.study.space.size

    def _confirm(self) -> Answer:
        """Launch the finalists and the baseline again, as far as time allows, and conclude."""
        baseline, contenders = self._contenders()
        numbers = [trial.number for trial in (*([baseline] if baseline else []), *contenders)]
        known = {trial.number: trial for trial in self._settled()}
        while contenders and fits_confirmation(self.finished, self._left_s()):
            launched = [record.confirms for record in self._confirmations(numbers)]
            number = next_confirmation(
                numbers, [each for each in launched if each is not None], rounds=self.budget.rounds
            )
            if number is None or self._confirmations_are_hopeless(numbers):
                break
            candidate = known[number].record.to_candidate()
            self._run(self.ledger.ask_for(candidate, Role.CONFIRMATION, candidate.to_dict(), number))
            self._finish_waiting()
        return conclude(baseline, contenders, self._confirmations(numbers), self.study.slo)

    def _contenders(self) -> tuple[NumberedTrial | None, tuple[NumberedTrial, ...]]:
        trials = self._settled()
        baseline = next(
            (
                trial
                for trial in trials
                if trial.record.role is Role.BASELINE and trial.record.outcome is Outcome.MEASURED
            ),
            None,
        )
        return baseline, finalists(trials, self.study.slo, count=self.budget.finalists)

    def _confirmations(self, numbers: list[int]) -> list[TrialRecord]:
        """Return the confirmations of these trials that came to an end, in order."""
        return [
            trial.record
            for trial in self._settled()
            if trial.record.role is Role.CONFIRMATION and trial.record.confirms in numbers
        ]

    def _run(self, asked: AskedTrial) -> TrialRecord:
        """Take one asked trial to its told record."""
        self.observe(PhaseBegan(asked, "asked"))
        record = self._without_launch(asked) or self._launch(asked)
        self.observe(PhaseBegan(asked, "record"))
        can_repeat = record.outcome is Outcome.INVALID and asked.role is not Role.CONFIRMATION
        if can_repeat and self.ledger.attempts(asked) < ATTEMPTS:
            self.ledger.run_again(asked)
        self.ledger.tell(asked, record)
        if record.outcome is Outcome.INVALID and asked.role is Role.CONFIRMATION:
            self.spoilt_confirmations += 1
        self.finished = self.ledger.history().trials
        self.observe(TrialEnded(asked, record, self._left_s()))
        return record

    def _without_launch(self, asked: AskedTrial) -> TrialRecord | None:
        """Return the record of a candidate that needs no launch, None if it must be launched."""
        if asked.role is not Role.SEARCH:
            return None
        record = TrialRecord(
            outcome=Outcome.INFEASIBLE,
            role=asked.role,
            candidate=asked.candidate.to_dict(),
            is_simulated=self.launcher.is_simulated,
            began_s=self.launcher.clock.now_s(),
        )
        reason = infeasible_reason(self.study.space, asked.candidate)
        if reason is not None:
            return record.model_copy(update={"reason": reason})
        twin = same_candidate(asked.candidate, self._settled())
        return None if twin is None else take_over(record, *twin)

    def _launch(self, asked: AskedTrial) -> TrialRecord:
        self.ledger.answer(None)  # an earlier call's answer does not know this launch
        order = TrialOrder(
            number=asked.number,
            role=asked.role,
            candidate=asked.candidate,
            confirms=asked.confirms,
            measure_all=asked.role is not Role.SEARCH,
        )

        def find_twin(effective: EffectiveFlags) -> tuple[int, TrialRecord] | None:
            return same_effect(effective, self.study.space, self._settled())

        return run_trial(
            self.study,
            order,
            self.launcher,
            self.folder,
            on_phase=lambda phase: self.observe(PhaseBegan(asked, phase)),
            find_twin=find_twin,
        )

    def _confirmations_are_hopeless(self, numbers: list[int]) -> bool:
        """Whether so many confirmations of this call were invalid that more would only burn launches."""
        return self.spoilt_confirmations >= ATTEMPTS * len(numbers)

    def _settled(self) -> tuple[NumberedTrial, ...]:
        """Return the finished trials, those that were cut off or invalid left out."""
        unsettled = (Outcome.INTERRUPTED, Outcome.INVALID)
        return tuple(trial for trial in self.finished if trial.record.outcome not in unsettled)

    def _left_s(self) -> float | None:
        return None if self._deadline_s is None else self._deadline_s - self.launcher.clock.now_s()


@contextmanager
def _only_controller(folder: Path) -> Iterator[None]:
    """Hold the run folder; the operating system lets go of it when this process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "controller.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise StudyError(
            f"another autotune process works on {folder}.\n"
            "    Wait for it, stop it, or give this study another name with --study."
        ) from None
    try:
        yield
    finally:
        lock.release()
