"""The end of a study: who is launched afresh next, and the answer that those launches give.

In: what was told, and the budget. Out: trials to run, one at a time; then the answer, in the storage. Talks
to the ledger. Invariant: the search is over; what it left of its launches is the confirmation's.
"""

from dataclasses import dataclass
from pathlib import Path

from autotune.record import Outcome, Role, TrialRecord
from autotune.search.budget import Budget, launches_unspent
from autotune.search.confirmation import Contest, Turn, contest_of
from autotune.search.ledger import AskedTrial, Ledger
from autotune.search.repeats import ATTEMPTS
from autotune.search.rounds import final_answer, rounds_due
from autotune.search.told import Told
from autotune.study import Study


@dataclass
class FreshLaunches:
    """The confirmation of one study; `spoilt`: how many launches could not be measured in this call."""

    study: Study
    budget: Budget
    folder: Path
    ledger: Ledger
    told: Told
    spoilt: int = 0

    def ask(self, turn: Turn) -> AskedTrial | None:
        """Return a fresh launch of a finalist or the baseline on the free slot, None if rounds are over."""
        contest = self._contest()
        if self.spoilt >= ATTEMPTS * len(contest.contenders):
            return None
        rounds = rounds_due(contest, self.study.slo, self.budget, unspent=self._unspent)
        chosen = contest.next_launch(rounds=rounds, turn=turn)
        if chosen is None:
            return None
        candidate = chosen.record.to_candidate()
        return self.ledger.ask_for(candidate, Role.CONFIRMATION, candidate.to_dict(), chosen.number)

    def note(self, record: TrialRecord) -> None:
        """Count it if it was spoilt, and by no node."""
        is_spoilt = record.outcome is Outcome.INVALID and not record.is_lost_to_node
        self.spoilt += is_spoilt and record.role is Role.CONFIRMATION

    def answer(self) -> None:
        """Keep the study's answer.

        Raises:
            OSError: a raw file of answers cannot be read.
            StudyError: a raw file of answers is damaged.
        """
        slo, budget = self.study.slo, self.budget
        self.ledger.answer(final_answer(self._contest(), slo, budget, self.folder, unspent=self._unspent))

    def _contest(self) -> Contest:
        settled, ranking = self.told.settled, self.ledger.worth_of
        return contest_of(settled, self.study.slo, count=self.budget.finalists, ranking=ranking)

    @property
    def _unspent(self) -> int | None:
        return launches_unspent(self.budget, self.told.trials)
