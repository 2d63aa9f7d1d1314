"""What the trials that were told say of candidates: which are settled, and why one is not worth a launch.

In: a search space and its told trials. Out: reasons, and candidates that are known. Pure but for a count.
Invariant: one in ten candidates that may fail is let through, so that a wrong rule does not last.
"""

from collections.abc import Collection

from autotune.record import Outcome, Role
from autotune.search.confirmation import NumberedTrial
from autotune.search.feasibility import DOUBTED_PER_LAUNCH, MemoryLessons, infeasible_reason
from autotune.search.repeats import settled
from autotune.space import Candidate, SearchSpace


class Told:
    """The trials of a study so far.

    `trials`: all of them, as of the last one. `settled`: those that say something about their candidate.
    `known`: the candidates that the search has settled.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._doubted = 0
        self.take_in(())

    def take_in(self, trials: tuple[NumberedTrial, ...]) -> None:
        """Hold these to be the trials that were told."""
        self.trials = trials
        self.settled = settled(trials)
        searched = (trial.record for trial in self.settled if trial.record.role is Role.SEARCH)
        self.known = {record.to_candidate() for record in searched}
        self._lessons = MemoryLessons(self._space, self.settled)

    def is_worth_a_trial(self, candidate: Candidate, running: Collection[Candidate]) -> bool:
        """Whether it is worth one; a doubted candidate is only if the last one was not refused."""
        is_taken = candidate in self.known or candidate in running
        if is_taken or self.certain_reason(candidate) is not None:
            return False
        was_refused = bool(self.trials) and self.trials[-1].record.outcome is Outcome.INFEASIBLE
        return not was_refused or self._lessons.doubt(candidate) is None

    def certain_reason(self, candidate: Candidate) -> str | None:
        """Return why a candidate cannot run."""
        return infeasible_reason(self._space, candidate) or self._lessons.refusal(candidate)

    def doubt(self, candidate: Candidate) -> str | None:
        """Return why a candidate is not launched that may fail; None for every tenth of them."""
        doubt = self._lessons.doubt(candidate)
        self._doubted += doubt is not None
        return None if self._doubted % DOUBTED_PER_LAUNCH == 0 else doubt
