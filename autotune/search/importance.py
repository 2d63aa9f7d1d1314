"""How much each tuned flag matters for being among the best in one quantity. Talks to Optuna.

In: candidates as they lay in the space, and the loss of each. Out: a share per flag, all of them together 1.
The evaluator is PED-ANOVA (Watanabe et al. 2023, for conditional flags 2026), which asks how differently a
flag is distributed among the best and among all. Invariant: it says nothing on too few candidates.
"""

import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from autotune.search.sampler import coordinates, distribution_of
from autotune.space import FlagValue, SearchSpace

BEST_SHARE = 0.25
LEAST_CANDIDATES = 20
"""Optuna advises five or more among the best: a quarter of this."""
MOST_CANDIDATES = 1000
"""Of more, every second or third is taken: shares do not change, Optuna's time grows."""


def importances(
    space: SearchSpace, flags: Sequence[Mapping[str, FlagValue]], losses: Sequence[float]
) -> dict[str, float]:
    """Return each tuned flag's share, the largest first; empty for too few or equal candidates."""
    if len(losses) < LEAST_CANDIDATES or min(losses) == max(losses):
        return {}
    study = optuna.create_study()
    step = -(-len(losses) // MOST_CANDIDATES)
    for each, loss in zip(flags[::step], losses[::step], strict=True):
        where = coordinates(space, each)
        distributions = {name: distribution_of(space.tune[name]) for name in where}
        study.add_trial(create_trial(value=loss, params=dict(where), distributions=distributions))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a flag that a candidate or two lacks, such as the baseline
        return get_param_importances(study, evaluator=evaluator)
