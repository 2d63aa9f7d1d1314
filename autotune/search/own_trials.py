"""Optuna's storage for a study's only controller, which need not ask the database what it wrote itself.

In: what Optuna writes, trial by trial. Out: the same trials as from the database, without a query for every
look at the one that runs. Talks to Optuna's RDB. Invariants: everything is in the database before it is known
here, so that a kill loses nothing and readers see all of it; a trial begins with all that is known of it, or
not at all.
"""

import json
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage  # what Optuna wraps every RDBStorage in
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
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

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Write a trial; a running one with its parameters and attributes in three statements."""
        if template_trial is None or template_trial.state is not TrialState.RUNNING:
            return super().create_new_trial(study_id, template_trial)
        trial = deepcopy(template_trial)
        trial.number = len(self.get_all_trials(study_id, deepcopy=False))
        with _create_scoped_session(self._backend.scoped_session) as session:
            row = _row(study_id, trial)
            session.add(row)
            session.flush()
            trial_id = int(row.trial_id)
        trial._trial_id = trial_id  # noqa: SLF001 - as Optuna's own storages do
        self._add_trials_to_cache(study_id, [trial])
        return trial_id

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write to the database, then to what is known."""
        super().set_trial_user_attr(trial_id, key, value)
        if self._is_current:
            self._known(trial_id).user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write to the database, then to what is known; not of a trial that a sampler only draws for."""
        if trial_id < 0:
            return
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
        """Write to the database, which adds times of its own, then to what is known."""
        was_current, self._is_current = self._is_current, False
        is_written = super().set_trial_state_values(trial_id, state, values)
        if was_current and is_written:
            trial = self._known(trial_id)
            with _create_scoped_session(self._backend.scoped_session) as session:
                row = session.get_one(models.TrialModel, trial_id)
                trial.datetime_start, trial.datetime_complete = row.datetime_start, row.datetime_complete
            trial.state = state
            trial.values = values
            self._is_current = True
        return is_written

    def _known(self, trial_id: int) -> FrozenTrial:
        study_id, number = self._trial_id_to_study_id_and_number[trial_id]
        return self._studies[study_id].trials[number]

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if not self._is_current:
            super()._read_trials_from_remote_storage(study_id)
            self._is_current = True


def _row(study_id: int, trial: FrozenTrial) -> models.TrialModel:
    """Return a running trial as Optuna's tables have it."""
    return models.TrialModel(
        study_id=study_id,
        number=trial.number,
        state=trial.state,
        datetime_start=trial.datetime_start,
        params=[
            models.TrialParamModel(
                param_name=name,
                param_value=trial.distributions[name].to_internal_repr(value),
                distribution_json=distribution_to_json(trial.distributions[name]),
            )
            for name, value in trial.params.items()
        ],
        user_attributes=[
            models.TrialUserAttributeModel(key=key, value_json=json.dumps(value))
            for key, value in trial.user_attrs.items()
        ],
        system_attributes=[
            models.TrialSystemAttributeModel(key=key, value_json=json.dumps(value))
            for key, value in trial.system_attrs.items()
        ],
    )
