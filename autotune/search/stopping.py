"""When little is left to gain: what a further launch of the search promises, against what it must promise.

In: what the best candidate that is left is expected to gain. Out: that gain, if it is too little. Pure. The
rule is CherryPick's (Alipourfard et al., NSDI 2017): stop once the expected improvement falls under a share
of the best value, and not before some are known. That share is the price of a launch, as in cost-aware
stopping (Xie et al., arXiv 2507.12453; a study's launches cost about the same), and well chosen if it is what
measurements can tell apart (Makarova et al., AutoML 2022). Invariant: a search without a feasible candidate
has everything to gain.
"""

from collections.abc import Sequence

from autotune.record import Outcome, Role
from autotune.search.budget import Budget
from autotune.search.confirmation import NumberedTrial

PATIENCE = 3
"""So many launches in a row must promise too little: a model of few values can be sure of something wrong.

Without a twin, on development seeds of chunk/TTFT in tests/benchmarks/search, searches that ended after two
lost 15 % to the optimum, and after three 1 to 6 % (medians).
"""
FEWEST_MEASURED = 10
"""A model of fewer values is not trusted to end a search; crashes have none. CherryPick asks for six."""


def too_little(gain: float | None, budget: Budget, trials: Sequence[NumberedTrial]) -> float | None:
    """Return the expected gain of a further launch if it is less than the budget's `least_gain`, else None.

    The last launches of the search must have promised as little, `PATIENCE` with this one. `gain`: a share of
    the best feasible value, weighed by the chance that the candidate is feasible; None if it is not known
    (`sampler.Proposal`).
    """
    if gain is None or budget.least_gain is None or _measured(trials) < FEWEST_MEASURED:
        return None
    searched = [each for each in trials if each.record.role is Role.SEARCH and each.record.is_launch]
    promised = (gain, *(each.promised for each in searched[1 - PATIENCE :]))
    little = [each for each in promised if each is not None and each < budget.least_gain]
    return gain if len(little) == PATIENCE else None


def _measured(trials: Sequence[NumberedTrial]) -> int:
    """Return how many launches of the search, or of the baseline, have values.

    What was measured live does not count: it lies close to its host, and says little about the space.
    """
    records = [trial.record for trial in trials if trial.record.role is not Role.CONFIRMATION]
    return sum(record.outcome is Outcome.MEASURED and record.is_launch for record in records)
