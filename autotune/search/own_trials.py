"""Optuna's storage for a study's only controller, which need not ask the database what it wrote itself.

In: what Optuna writes, trial by trial. Out: the same trials as from the database, without a query for every
look at the one that runs. Talks to Optuna's RDB. Invariant: everything is in the database before it is known
here, so that a kill loses nothing and readers see all of it.
"""

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage  # what Optuna wraps every RDBStorage in
from optuna.trial import FrozenTrial, TrialState


class OwnTrials(_CachedStorage):
    """Optuna's cache of finished trials, which keeps the running one, too: nobody else may write."""

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._is_current = False

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial as it is in the database."""
        if trial_id not in self._trial_id_to_study_id_and_number:
            return super().get_trial(trial_id)
        study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
        self._read_trials_from_remote_storage(study_id)
        return self._known(trial_id)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write to the database, then to what is known."""
        super().set_trial_user_attr(trial_id, key, value)
        if self._is_current:
            self._known(trial_id).user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write to the database, then to what is known."""
        super().set_trial_system_attr(trial_id, key, value)
        if self._is_current:
            self._known(trial_id).system_attrs[key] = value

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Write to the database, then to what is known."""
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        if self._is_current:
            trial = self._known(trial_id)
            trial.params[param_name] = distribution.to_external_repr(param_value_internal)
            trial.distributions[param_name] = distribution

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Write to the database, which adds times of its own: what is known must be read again."""
        self._is_current = False
        return super().set_trial_state_values(trial_id, state, values)

    def _known(self, trial_id: int) -> FrozenTrial:
        study_id, number = self._trial_id_to_study_id_and_number[trial_id]
        return self._studies[study_id].trials[number]

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if not self._is_current:
            super()._read_trials_from_remote_storage(study_id)
            self._is_current = True
