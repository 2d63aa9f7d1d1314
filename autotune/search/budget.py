"""How much of the budget is left, and whether a launch still fits into it. Pure.

In: what the user allowed (launches, seconds) and the durations of the trials so far. Out: yes or no.
Invariant: no launch of the search begins that by the measured ones would not end in time, the whole
confirmation included. A running trial is not cut short.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune.record import Outcome, Role, TrialRecord
from autotune.search.confirmation import NumberedTrial


@dataclass(frozen=True)
class Budget:
    """What the user allows.

    `launches`: of the search, the baseline's included. `study_s`: seconds of the study's clock over all
    calls; `call_s`: of this call. `finalists` and `rounds` size the confirmation, which takes time but no
    launches of the search.
    """

    launches: int | None = None
    study_s: float | None = None
    call_s: float | None = None
    finalists: int = 3
    rounds: int = 2

    @property
    def confirmation_launches(self) -> int:
        """How many launches a full confirmation takes."""
        return (self.finalists + 1) * self.rounds


def allowance_s(budget: Budget, trials: Sequence[NumberedTrial]) -> float | None:
    """Return the seconds that this call may take after the trials of earlier calls, None if unlimited."""
    limits = [] if budget.call_s is None else [budget.call_s]
    if budget.study_s is not None:
        limits.append(budget.study_s - sum(trial.record.duration_s for trial in trials))
    return min(limits, default=None)


def launches_used(trials: Sequence[NumberedTrial]) -> int:
    """Return how many launches of the search were spent; what cost no launch or was cut off is free."""
    return sum(
        trial.record.role is not Role.CONFIRMATION
        and trial.record.outcome is not Outcome.INTERRUPTED
        and bool(trial.record.durations_s)
        for trial in trials
    )


def expected_trial_s(records: Sequence[TrialRecord]) -> float:
    """Return how long a trial may take: the 80th percentile of the measured ones, 0 if none."""
    durations = [record.duration_s for record in records if record.points and record.durations_s]
    return float(np.percentile(durations, 80)) if durations else 0.0


def fits_search(budget: Budget, trials: Sequence[NumberedTrial], left_s: float | None) -> bool:
    """Whether one more launch of the search fits, with the whole confirmation after it."""
    if budget.launches is not None and launches_used(trials) >= budget.launches:
        return False
    if left_s is None:
        return True
    each_s = expected_trial_s([trial.record for trial in trials])
    return left_s > 0 and (1 + budget.confirmation_launches) * each_s <= left_s


def fits_confirmation(trials: Sequence[NumberedTrial], left_s: float | None) -> bool:
    """Whether one more launch of the confirmation fits."""
    return left_s is None or expected_trial_s([trial.record for trial in trials]) <= left_s
