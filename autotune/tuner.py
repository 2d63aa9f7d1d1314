"""The loop: baseline, search, confirmation, answer; within a budget, and resumable at any point.

In: a study, a launcher, a budget. Out: a `StudyHistory` with its answer. Talks to the storage (through the
ledger) and to trials. Invariants: one controller per run folder; every trial is recorded before the next one
begins; what a killed controller left is settled before anything is launched.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock, Timeout

from autotune.engine.dialect import EffectiveFlags
from autotune.engine.dialects import dialect_of
from autotune.engine.launcher import Launcher
from autotune.errors import InfrastructureError, StudyError
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.alike import alikeness_of
from autotune.search.answer import conclude
from autotune.search.budget import Budget, allowance_s, fits, has_launches, reserve_s, teardown_s
from autotune.search.confirmation import Contest, NumberedTrial, contest_of
from autotune.search.feasibility import (
    DOUBTED_PER_LAUNCH,
    MemoryLessons,
    infeasible_reason,
    same_candidate,
    same_effect,
)
from autotune.search.ledger import AskedTrial, Ledger, StudyHistory
from autotune.search.place import settle_place
from autotune.search.repeats import (
    ALIKE,
    ATTEMPTS,
    SearchEnd,
    baseline_is_due,
    due_again,
    lost_nodes,
    stuck,
    world_failures,
)
from autotune.search.rounds import gain_error_rate, rounds_due
from autotune.search.sampler import SamplerKind, make_sampler
from autotune.search.storage import only_writer, storage_errors
from autotune.search.twin import twin_of
from autotune.space import Candidate
from autotune.study import Study, owner_of, save_study
from autotune.trial import TrialOrder, run_trial, take_over

FREE_ASKS = 3
"""How many candidates in a row may cost no launch, although the sampler drew many times for each."""


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
    storage: str | None = None,
    observe: Observe,
) -> StudyHistory:
    """Run a study, or go on with it, until its budget is spent and its answer is known.

    `storage`: the address of a PostgreSQL for the trials; None means a file in the folder, or where it began.

    Raises:
        ConfigError: the storage's address cannot be used.
        StudyError: another controller works in this folder, or it belongs to another study.
        InfrastructureError: no engine can be launched, or the disk or storage failed.
    """
    with storage_errors(folder), _only_controller(folder):
        save_study(study, folder)
        settle_place(folder, storage)
        with only_writer(study, folder), closing(Ledger(study, folder)) as ledger:
            return _Tuner(study, launcher, budget, folder, ledger, observe).run(sampler)


@dataclass
class _Tuner:
    """The state of one `tune` call; everything that must survive it is in the ledger.

    `finished`: the trials that were told, as of the last one. `cut_off`: those that this call's deadline
    ended; a later call, with more time, runs them again. `known`: the candidates the search has settled.
    `doubted`: how many candidates this call asked for that `lessons` speak against, launched or not.
    """

    study: Study
    launcher: Launcher
    budget: Budget
    folder: Path
    ledger: Ledger
    observe: Observe
    finished: tuple[NumberedTrial, ...] = ()
    cut_off: set[int] = field(default_factory=set)
    known: set[Candidate] = field(default_factory=set)
    doubted: int = 0
    spoilt_confirmations: int = 0
    deadline_s: float | None = None
    has_old_answer: bool = True
    lessons: MemoryLessons = field(init=False)

    def run(self, sampler: SamplerKind) -> StudyHistory:
        """Settle the past, then baseline, search, confirmation and answer."""
        removed = self.launcher.remove_leftovers(owner_of(self.study.name, self.folder))
        again = self.ledger.recover()
        if removed or again:
            self.observe(Recovered(again, removed))
        self._take_in(self.ledger.trials())
        allowance = allowance_s(self.budget, self.finished)
        self.deadline_s = None if allowance is None else self.launcher.clock.now_s() + allowance
        self.ledger.use(
            make_sampler(
                sampler,
                self.study.space,
                seed=self.study.seed + len(self.finished),
                accepts=self._is_worth_a_trial,
                prior=twin_of(self.study) if sampler is SamplerKind.GP else None,
            )
        )
        self.ledger.end_search(None)
        try:
            self._measure_baseline()
            self.ledger.end_search(self._search())
        except KeyboardInterrupt:
            self.ledger.end_search(SearchEnd.STOPPED)
            raise
        self._confirm()
        contest = self._contest()
        self.ledger.answer(
            conclude(
                contest,
                self.study.slo,
                alike=alikeness_of(contest, self.folder),
                gain_error_rate=gain_error_rate(contest, self.budget),
            )
        )
        return self.ledger.history()

    def _measure_baseline(self) -> None:
        baseline = Candidate.of(self.study.space.baseline)
        dialect = dialect_of(self.study.space.engine)
        expected = dialect.known_defaults(self.study.space, baseline.to_dict())
        where = {**expected, **baseline.to_dict()}
        while (
            not self.cut_off
            and baseline_is_due(self.finished)
            and has_launches(self.budget, self.finished)
            and fits(self.finished, self._left_s())
        ):
            self._run(self.ledger.ask_for(baseline, Role.BASELINE, where))

    def _search(self) -> SearchEnd:
        """Launch candidates until there is a reason to end, and return it."""
        free = 0
        while (end := self._search_end(free)) is None:
            due = self._due_again()
            record = self._run(self.ledger.ask_again(due[0]) if due else self.ledger.ask())
            free = 0 if record.durations_s else free + 1
        return end

    def _search_end(self, free: int) -> SearchEnd | None:
        """Return why the search ends now, None if it goes on; `free`: how many asks in a row cost nothing."""
        if not has_launches(self.budget, self.finished):
            return SearchEnd.LAUNCHES
        if len(self.known) >= self.study.space.size and not self._due_again():
            return SearchEnd.EXHAUSTED
        reserved_s = reserve_s(self.budget, self.finished)
        if self.cut_off or not fits(self.finished, self._left_s(), reserved_s=reserved_s):
            return SearchEnd.TIME
        return SearchEnd.STALLED if free >= FREE_ASKS else None

    def _due_again(self) -> tuple[int, ...]:
        return tuple(number for number in due_again(self.finished) if number not in self.cut_off)

    def _confirm(self) -> None:
        """Launch the finalists and the baseline again, as far as time allows."""
        contest, lost = self._contest(), len(self.cut_off)
        while fits(self.finished, self._left_s()) and len(self.cut_off) == lost:
            chosen = contest.next_launch(rounds=rounds_due(contest, self.study.slo, self.budget))
            if chosen is None or self.spoilt_confirmations >= ATTEMPTS * len(contest.contenders):
                return
            candidate = chosen.record.to_candidate()
            where = candidate.to_dict()
            self._run(self.ledger.ask_for(candidate, Role.CONFIRMATION, where, chosen.number))
            contest = self._contest()

    def _contest(self) -> Contest:
        return contest_of(self._settled(), self.study.slo, count=self.budget.finalists)

    def _run(self, asked: AskedTrial) -> TrialRecord:
        """Take one asked trial to its told record.

        Raises:
            InfrastructureError: nothing starts on these nodes, whatever the candidate, or they keep failing.
        """
        self.observe(PhaseBegan(asked, "asked"))
        record = self._without_launch(asked) or self._launch(asked)
        self.observe(PhaseBegan(asked, "record"))
        self.ledger.tell(asked, record)
        if record.outcome is Outcome.INTERRUPTED:
            self.cut_off.add(asked.number)
        if (
            record.outcome is Outcome.INVALID
            and asked.role is Role.CONFIRMATION
            and not record.is_lost_to_node
        ):
            self.spoilt_confirmations += 1
        self._take_in((*self.finished, NumberedTrial(asked.number, record, asked.again)))
        self.observe(TrialEnded(asked, record, self._left_s()))
        self._refuse_lost_nodes(record)
        self._refuse_a_dead_world(record)
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
        reason = self._certain_reason(asked.candidate) or self._doubt(asked.candidate)
        if reason is not None:
            return record.model_copy(update={"reason": reason})
        twin = same_candidate(asked.candidate, self._settled())
        return None if twin is None else take_over(record, *twin)

    def _launch(self, asked: AskedTrial) -> TrialRecord:
        if self.has_old_answer:
            self.ledger.answer(None)  # it does not know this launch
            self.has_old_answer = False
        order = TrialOrder(
            number=asked.number,
            role=asked.role,
            candidate=asked.candidate,
            confirms=asked.confirms,
            measure_all=asked.role is not Role.SEARCH,
        )

        def find_twin(effective: EffectiveFlags) -> tuple[int, TrialRecord] | None:
            return same_effect(asked.candidate, effective, self.study.space, self._settled())

        with self._noting_time(asked):
            return run_trial(
                self.study,
                order,
                self.launcher,
                self.folder,
                on_phase=lambda phase: self.observe(PhaseBegan(asked, phase)),
                find_twin=find_twin,
                deadline_s=self._deadline_of(asked.role),
            )

    @contextmanager
    def _noting_time(self, asked: AskedTrial) -> Iterator[None]:
        """Keep the time of a launch that is cut off by whatever raises inside."""
        began_s, has_ended = self.launcher.clock.now_s(), False
        try:
            yield
            has_ended = True
        finally:
            if not has_ended:
                self.ledger.note_spent(asked, self.launcher.clock.now_s() - began_s)

    def _deadline_of(self, role: Role) -> float | None:
        """Return when a launch is cut short; the search leaves the confirmation its time."""
        if self.deadline_s is None:
            return None
        reserved_s = reserve_s(self.budget, self.finished) if role is Role.SEARCH else 0.0
        return self.deadline_s - reserved_s - teardown_s(self.finished)

    def _refuse_lost_nodes(self, record: TrialRecord) -> None:
        failure = lost_nodes(self.finished)
        if failure is None or not record.is_lost_to_node:
            return
        raise InfrastructureError(
            f"the nodes do not serve this study: {failure.kind}: {failure.line}\n"
            f"    The logs are under {self.folder / 'trials'}. Put it right and run the same command again; "
            "these launches count against no candidate and no number of launches, only against the time."
        )

    def _refuse_a_dead_world(self, record: TrialRecord) -> None:
        failure = stuck(self.finished)
        if failure is None or record.outcome is not Outcome.FAILED:
            return
        raise InfrastructureError(
            f"no engine was ever ready, and the last {ALIKE} launches or more failed alike: "
            f"{failure.kind}: {failure.line}\n"
            f"    The logs are under {self.folder / 'trials'}. Put it right and run the same command again; "
            "these launches will not count against their candidates."
        )

    def _is_worth_a_trial(self, candidate: Candidate) -> bool:
        """Whether it is worth one; a doubted candidate is only if the last one was not refused."""
        if candidate in self.known or self._certain_reason(candidate) is not None:
            return False
        was_refused = bool(self.finished) and self.finished[-1].record.outcome is Outcome.INFEASIBLE
        return not was_refused or self.lessons.doubt(candidate) is None

    def _certain_reason(self, candidate: Candidate) -> str | None:
        return infeasible_reason(self.study.space, candidate) or self.lessons.refusal(candidate)

    def _doubt(self, candidate: Candidate) -> str | None:
        """Return why a candidate is not launched that may fail; None for every tenth of them."""
        doubt = self.lessons.doubt(candidate)
        self.doubted += doubt is not None
        return None if self.doubted % DOUBTED_PER_LAUNCH == 0 else doubt

    def _take_in(self, trials: tuple[NumberedTrial, ...]) -> None:
        """Hold these to be the trials that were told."""
        self.finished = trials
        records = (trial.record for trial in self._settled())
        self.known = {record.to_candidate() for record in records if record.role is Role.SEARCH}
        self.lessons = MemoryLessons(self.study.space, self._settled())

    def _settled(self) -> tuple[NumberedTrial, ...]:
        """Return the finished trials that say something about their candidate."""
        unsettled = (Outcome.INTERRUPTED, Outcome.INVALID)
        lost = world_failures(self.finished)
        return tuple(
            trial
            for trial in self.finished
            if trial.record.outcome not in unsettled and trial.number not in lost
        )

    def _left_s(self) -> float | None:
        return None if self.deadline_s is None else self.deadline_s - self.launcher.clock.now_s()


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
