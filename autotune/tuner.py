"""The loop: baseline, search, confirmation, answer; within a budget, and resumable at any point.

In: a study, a launcher for each slot, a budget. Out: a `StudyHistory` with its answer. Talks to the storage
(through the ledger), to slots and to trials. Invariants: one controller per run folder; every trial is
recorded before the next one begins on its slot; only this thread asks and tells; what a killed controller
left is settled before anything is launched.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from autotune.engine.dialect import EffectiveFlags
from autotune.engine.launcher import Launcher
from autotune.errors import InfrastructureError
from autotune.events import (
    Event,
    Observe,
    PhaseBegan,
    Quarantined,
    Recovered,
    SearchEnded,
    TrialEnded,
    one_at_a_time,
)
from autotune.order import TrialOrder
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.budget import Budget, allowance_s, fits, has_launches, reserve_s, teardown_s
from autotune.search.confirmation import NumberedTrial, best_so_far
from autotune.search.feasibility import same_candidate, same_effect
from autotune.search.fresh_launches import FreshLaunches
from autotune.search.ledger import AskedTrial, Ledger, interrupted
from autotune.search.live_candidates import expected_flags
from autotune.search.live_plan import LivePlanner
from autotune.search.place import settle_place
from autotune.search.repeats import (
    SearchEnd,
    baseline_is_due,
    due_again,
    reason_against,
)
from autotune.search.sampler import SamplerKind, make_sampler
from autotune.search.stopping import too_little
from autotune.search.storage import only_controller, only_writer, storage_errors
from autotune.search.study_history import StudyHistory
from autotune.search.told import Told
from autotune.search.twin import Twin, twin_of
from autotune.slots import Slot, Slots
from autotune.space import Candidate
from autotune.study import Study, owner_of, save_study
from autotune.trial import run_trial
from autotune.uninterrupted import signals_held

__all__ = ["Event", "Observe", "PhaseBegan", "Quarantined", "Recovered", "TrialEnded", "tune"]

FREE_ASKS = 3
"""How many candidates in a row may cost no launch, although the sampler drew many times for each."""


def tune(
    study: Study,
    launcher: Launcher,
    budget: Budget,
    folder: Path,
    *,
    sampler: SamplerKind = SamplerKind.TPE,
    storage: str | None = None,
    observe: Observe,
    more_launchers: Sequence[Launcher] = (),
) -> StudyHistory:
    """Run a study, or go on with it, until its budget is spent and its answer is known.

    `launcher` is that of the first slot, `more_launchers` are those of the others. `observe` is told of one
    event at a time, though from several threads.
    `storage`: the address of a PostgreSQL for the trials; None means a file in the folder, or where it began.

    Raises:
        ConfigError: the storage's address cannot be used.
        StudyError: another controller works in this folder, or it belongs to another study.
        InfrastructureError: no engine can be launched, or the disk or storage failed.
    """
    with storage_errors(folder), only_controller(folder):
        save_study(study, folder)
        settle_place(folder, storage)
        slots = Slots(study, (launcher, *more_launchers))
        with only_writer(study, folder), closing(Ledger(study, folder)) as ledger:
            return _Tuner(study, slots, budget, folder, ledger, one_at_a_time(observe)).run(sampler)


@dataclass
class _Tuner:
    """The state of one `tune` call; everything that must survive it is in the ledger.

    `cut_off`: the trials that this call's deadline ended; a later call, with more time, runs them again.
    `free`: how many asks in a row cost nothing. `expected_gain`: of a further launch, as of the last finished
    trial, if that is too little.
    """

    study: Study
    slots: Slots
    budget: Budget
    folder: Path
    ledger: Ledger
    observe: Observe
    cut_off: set[int] = field(default_factory=set)
    free: int = 0
    expected_gain: float | None = None
    deadline_s: float | None = None
    has_old_answer: bool = True
    twin: Twin | None = None

    def __post_init__(self) -> None:
        self.told = Told(self.study.space)
        self.planner = LivePlanner(self.study, self.ledger, self.told, self.budget)
        self.fresh_launches = FreshLaunches(self.study, self.budget, self.folder, self.ledger, self.told)

    @property
    def finished(self) -> tuple[NumberedTrial, ...]:
        """The trials that were told."""
        return self.told.trials

    def run(self, sampler: SamplerKind) -> StudyHistory:
        """Settle the past, then baseline, search, confirmation and answer."""
        self._settle_the_past()
        allowance = allowance_s(self.budget, self.finished)
        self.deadline_s = None if allowance is None else self.slots.now_s + allowance
        self.twin = twin_of(self.study, self.folder) if sampler is SamplerKind.GP else None
        self.ledger.use(
            make_sampler(
                sampler,
                self.study.space,
                seed=self.study.seed + len(self.finished),
                accepts=lambda candidate: self.told.is_worth_a_trial(candidate, self._running()),
                prior=self.twin,
                is_parallel=len(self.slots.usable) > 1,
                is_judged=self.budget.least_gain is not None,
            )
        )
        self.ledger.end_search(None)
        try:
            with self.slots:
                self._search()
                self._keep_busy(partial(self._next_confirmation, cut_off=len(self.cut_off)))
        finally:
            for asked, spent_s in self.slots.unfinished:
                self.ledger.note_spent(asked, spent_s)
        self.fresh_launches.answer()
        return self.ledger.history()

    def _settle_the_past(self) -> None:
        """Take in what was told, and what an earlier controller left behind."""
        removed: tuple[str, ...] = ()
        for slot in self.slots.usable:
            try:
                removed += slot.launcher.remove_leftovers(owner_of(self.study.name, self.folder))
            except InfrastructureError as error:
                self._put_in_quarantine(slot, error)
        self.ledger.keep_quarantine(self.slots.quarantined)
        again = self.ledger.recover()
        if removed or again:
            self.observe(Recovered(again, removed))
        self._take_in(self.ledger.trials())

    # ---- what runs next

    def _search(self) -> None:
        """Launch the baseline and candidates until there is a reason to end, and keep it."""
        try:
            self._keep_busy(lambda _: self._next_of_search())
        except KeyboardInterrupt:
            self.ledger.end_search(SearchEnd.STOPPED)
            raise
        end = self._search_end()
        if end is not None:
            self.ledger.end_search(end, self.expected_gain)
            self.observe(SearchEnded(end, self.expected_gain))

    def _next_of_search(self) -> AskedTrial | None:
        space = self.study.space
        if self._is_baseline_next():
            return self._ask_for(Candidate.of(space.baseline), Role.BASELINE)
        if self._search_end() is not None:
            return None
        due = self._due_again()
        if due:
            return self.ledger.ask_again(due[0])
        wanted = self._wanted()
        if wanted is not None:
            return self._ask_for(wanted, Role.SEARCH)
        proposal = self.ledger.propose()
        self.expected_gain = too_little(proposal.gain, self.budget, self.finished)
        if self.expected_gain is not None:
            return None
        return self.planner.ask(proposal, self._running())

    def _wanted(self) -> Candidate | None:
        """Return the next candidate that the file wants tried, None if each was begun."""
        searched = (each.record for each in self.finished if each.record.role is Role.SEARCH)
        begun = self.told.known | self._running() | {record.to_candidate() for record in searched}
        return next(
            (each for each in map(Candidate.of, self.study.space.tried_first) if each not in begun), None
        )

    def _ask_for(self, candidate: Candidate, role: Role) -> AskedTrial:
        """Ask for a candidate that the space's file spells out; the engine chooses what it leaves out."""
        return self.ledger.ask_for(candidate, role, expected_flags(self.study.space, candidate))

    def _is_baseline_next(self) -> bool:
        return (
            not self.cut_off
            and baseline_is_due(self.finished)
            and all(asked.role is not Role.BASELINE for asked in self.slots.running)
            and self._has_launches()
            and fits(self.finished, self._left_s())
        )

    def _search_end(self) -> SearchEnd | None:
        """Return why the search ends now, None if it goes on."""
        if not self._has_launches():
            return SearchEnd.LAUNCHES
        if len(self.told.known | self._running()) >= self.study.space.size and not self._due_again():
            return SearchEnd.EXHAUSTED
        if self.cut_off or not fits(self.finished, self._left_s(), reserved_s=self._reserve_s()):
            return SearchEnd.TIME
        if self.expected_gain is not None:
            return SearchEnd.GAIN
        return SearchEnd.STALLED if self.free >= FREE_ASKS else None

    def _has_launches(self) -> bool:
        return has_launches(self.budget, self.finished, running=len(self.slots.running))

    def _due_again(self) -> tuple[int, ...]:
        runs_again = {asked.again for asked in self.slots.running}
        return tuple(each for each in due_again(self.finished) if each not in self.cut_off | runs_again)

    def _next_confirmation(self, slot: Slot, *, cut_off: int) -> AskedTrial | None:
        """Return a fresh launch of a finalist or the baseline, None if time or rounds are over."""
        is_over = len(self.cut_off) > cut_off or not fits(self.finished, self._left_s())
        return None if is_over else self.fresh_launches.ask(self.slots.turn_of(slot))

    # ---- running

    def _keep_busy(self, next_trial: Callable[[Slot], AskedTrial | None]) -> None:
        """Run trials on all slots until there is none left to run."""
        while True:
            for slot in self.slots.free:
                self._fill(slot, next_trial)
            if not self.slots.busy:
                return
            self._end_one()

    def _fill(self, slot: Slot, next_trial: Callable[[Slot], AskedTrial | None]) -> None:
        """Begin the next trial on a slot; those that need no launch are settled on the way."""
        while (asked := next_trial(slot)) is not None:
            self.observe(PhaseBegan(asked, "asked"))
            record = self._without_launch(asked)
            if record is None:
                self._begin(slot, asked)
                return
            self._settle(asked, record)

    def _end_one(self) -> None:
        """Wait for a trial to end and settle it; a slot that did not come clean or does not serve is left.

        Raises:
            InfrastructureError: no slot is left.
        """
        ended = self.slots.next_ended()
        with signals_held():  # what was measured is told, whatever arrives meanwhile
            self._take_over(*ended)

    def _take_over(self, slot: Slot, asked: AskedTrial, spent_s: float) -> None:
        """Settle a trial that ended on a slot."""
        try:
            record, *live = slot.take()
        except InfrastructureError as error:
            self._put_in_quarantine(slot, error)
            record = interrupted(asked, spent_s, f"the node failed: {error}")
            record = record.model_copy(update={"nodes": slot.nodes, "slots": len(self.slots.usable) + 1})
            slot.asked, live = None, []
        else:
            if record.outcome is Outcome.INTERRUPTED:
                self.cut_off.add(asked.number)
        self._settle(asked, record)
        for each in live:
            known = expected_flags(self.study.space, each.to_candidate())
            self._take_told(self.ledger.tell_live(known, each), each)
        reason = reason_against(self.finished, record, slot.nodes)
        if reason is not None:
            where = f"    The logs are under {self.folder / 'trials'}."
            self._put_in_quarantine(slot, InfrastructureError(f"{reason}\n{where}"))

    def _settle(self, asked: AskedTrial, record: TrialRecord) -> None:
        """Tell a trial, and take it in."""
        self.observe(PhaseBegan(asked, "record"))
        self.ledger.tell(asked, record)
        self.fresh_launches.note(record)
        if asked.role is Role.SEARCH:
            self.free = 0 if record.durations_s else self.free + 1
        self._take_told(asked, record)

    def _take_told(self, asked: AskedTrial, record: TrialRecord) -> None:
        """Take in a trial that was told just now."""
        self._take_in((*self.finished, asked.ended(record)))
        self.observe(TrialEnded(asked, record, self._left_s()))

    def _put_in_quarantine(self, slot: Slot, error: InfrastructureError) -> None:
        try:
            self.slots.put_in_quarantine(slot, error)
        finally:
            self.ledger.keep_quarantine(self.slots.quarantined)
        self.observe(Quarantined(slot.nodes, str(error)))

    def _without_launch(self, asked: AskedTrial) -> TrialRecord | None:
        """Return the record of a candidate that needs no launch, None if it must be launched."""
        if asked.role is not Role.SEARCH:
            return None
        record = TrialRecord(
            outcome=Outcome.INFEASIBLE,
            role=asked.role,
            candidate=asked.candidate.to_dict(),
            is_simulated=self.slots.is_simulated,
            began_s=self.slots.now_s,
        )
        reason = self.told.certain_reason(asked.candidate) or self.told.doubt(asked.candidate)
        if reason is not None:
            return record.model_copy(update={"reason": reason})
        twin = same_candidate(asked.candidate, self.told.settled)
        return None if twin is None else record.take_over(*twin)

    def _begin(self, slot: Slot, asked: AskedTrial) -> None:
        if self.has_old_answer:
            self.ledger.answer(None)  # it does not know this launch
            self.has_old_answer = False
        order = TrialOrder(
            number=asked.number,
            role=asked.role,
            candidate=asked.candidate,
            confirms=asked.confirms,
            measure_all=asked.role is not Role.SEARCH,
            stops_early=asked.role is Role.SEARCH and self.budget.stops_early,
            nodes=slot.nodes,
            slots=len(self.slots.usable),
        )
        live = self.planner.orders(order, self._running(), first=asked.live)
        order = self._on_course(replace(order, then=tuple(map(self._on_course, live))))
        asked = replace(asked, live=tuple(each.candidate for each in order.then))

        def find_twin(effective: EffectiveFlags) -> tuple[int, TrialRecord] | None:
            return same_effect(asked.candidate, effective, self.study.space, self.told.settled)

        run = partial(
            run_trial,
            slot.study,
            order,
            slot.launcher,
            self.folder,
            on_phase=lambda phase: self.observe(PhaseBegan(asked, phase)),
            find_twin=find_twin,
            deadline_s=self._deadline_of(asked.role),
            is_called_off=self.slots.is_called_off,
            choose_live=self.planner.choice(asked.number, asked.candidate, asked.live),
        )
        self.slots.begin(slot, asked, run)

    def _on_course(self, order: TrialOrder) -> TrialOrder:
        """Return it with what the twin expects, by which a load that cannot beat the best is given up."""
        best = best_so_far(self.told.settled, self.study.slo)
        if not order.stops_early or self.twin is None or best is None:
            return order
        return replace(order, courses=self.twin.courses(order.candidate, best))

    def _deadline_of(self, role: Role) -> float | None:
        """Return when a launch is cut short; the search leaves the confirmation its time."""
        if self.deadline_s is None:
            return None
        reserved_s = self._reserve_s() if role is Role.SEARCH else 0.0
        return self.deadline_s - reserved_s - teardown_s(self.finished)

    def _reserve_s(self) -> float:
        return reserve_s(self.budget, self.finished, slots=len(self.slots.usable))

    def _running(self) -> set[Candidate]:
        """Return the candidates that the search runs, or may measure on the engines that run."""
        searched = {asked.candidate for asked in self.slots.running if asked.role is Role.SEARCH}
        return searched.union(*(asked.live for asked in self.slots.running))

    def _take_in(self, trials: tuple[NumberedTrial, ...]) -> None:
        """Hold these to be the trials that were told."""
        self.told.take_in(trials)
        self.expected_gain = None

    def _left_s(self) -> float | None:
        return None if self.deadline_s is None else self.deadline_s - self.slots.now_s
