"""BoTorch's sampler, to compare with (optional: `pip install autotune[botorch]`).

In: a seed. Out: one of Optuna's samplers. Talks to optuna-integration, which is imported here only.
Invariant: it is shown what it can read: trials that have every flag and every ceiling, and whole values. It
asks for all of both in each trial, and ends a study in which one lacks any.
"""

import importlib
import warnings
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from autotune.errors import ConfigError
from autotune.search.gp.history import PARTIAL

START_UP_TRIALS = 8
"""As TPE's: before so many trials it draws evenly."""


def botorch_sampler(seed: int) -> BaseSampler:
    """Return the sampler.

    Raises:
        ConfigError: its packages are not installed.
    """
    try:
        make: Any = importlib.import_module("optuna_integration").BoTorchSampler
        with warnings.catch_warnings(action="ignore"):  # it calls itself experimental
            return WholeTrials(make(seed=seed, n_startup_trials=START_UP_TRIALS))
    except ImportError as error:
        message = f"--sampler botorch needs BoTorch: pip install 'autotune[botorch]' ({error})"
        raise ConfigError(message) from None


class WholeTrials(BaseSampler):
    """Shows another sampler those trials of a study that lack nothing."""

    def __init__(self, inner: BaseSampler) -> None:
        self._inner = inner

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the inner sampler's."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the inner sampler's draw, from a copy of the study."""
        copy = optuna.create_study(directions=study.directions)
        copy.add_trials(_whole(study, search_space))
        with warnings.catch_warnings(action="ignore"):  # it tells of everything that it rounds
            return self._inner.sample_relative(copy, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the inner sampler's draw."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)


def _whole(study: Study, space: dict[str, BaseDistribution]) -> list[FrozenTrial]:
    measured = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ceilings = {name for trial in measured for name in trial.constraints}
    return [
        create_trial(
            params={name: trial.params[name] for name in space},
            distributions=space,
            values=trial.values,
            constraints=trial.constraints,
        )
        for trial in measured
        if space.keys() <= trial.params.keys()
        and trial.constraints.keys() == ceilings
        and not trial.user_attrs.get(PARTIAL)
    ]
