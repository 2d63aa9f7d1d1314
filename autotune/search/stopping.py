"""When little is left to gain: what a further launch of the search promises, against what it must promise.

In: what the best candidate that is left is expected to gain. Out: that gain, if it is too little. Pure. The
rule is CherryPick's (Alipourfard et al., NSDI 2017): stop once the expected improvement falls under a share
of the best value, and not before some launches. That share is the price of a launch, as in cost-aware
stopping (Xie et al., arXiv 2507.12453; a study's launches cost about the same), and well chosen if it is what
measurements can tell apart (Makarova et al., AutoML 2022). Invariant: a search without a feasible candidate
has everything to gain.
"""

from collections.abc import Sequence

from autotune.search.budget import Budget, launches_used
from autotune.search.confirmation import NumberedTrial

FEWEST_LAUNCHES = 10
"""A model that has seen less is not trusted to end a search; CherryPick asks for six, of fewer parameters."""


def too_little(gain: float | None, budget: Budget, trials: Sequence[NumberedTrial]) -> float | None:
    """Return the expected gain of a further launch if it is less than the budget's `least_gain`, else None.

    `gain`: a share of the best feasible value, weighed by the chance that the candidate is feasible; None if
    it is not known (`sampler.Proposal`).
    """
    if gain is None or budget.least_gain is None or launches_used(trials) < FEWEST_LAUNCHES:
        return None
    return gain if gain < budget.least_gain else None
