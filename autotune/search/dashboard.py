"""Optuna's own dashboard on a study's storage: its web application, and the notes that it shows.

In: a study's folder, and a text for each trial. Out: a WSGI application. Talks to Optuna's RDB and to the
package optuna-dashboard, which is optional. Invariant: the storage is only read; notes lie beside it.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import optuna
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage  # what Optuna wraps every RDBStorage in
from optuna.study._frozen import FrozenStudy
from optuna.trial import Trial

from autotune.errors import ConfigError
from autotune.search.storage import disconnect, open_study, storage_errors
from autotune.study import load_study

Application: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class NotedStudy:
    """A study in its storage, as Optuna's dashboard shows it.

    Raises:
        ConfigError: the package is not installed.
        StudyError: there is no study, or its storage is damaged.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import optuna_dashboard  # type: ignore[import-untyped]  # noqa: PLC0415 - it is optional, without types
        except ImportError:
            raise ConfigError(
                "optuna-dashboard is not installed: pip install 'autotune[dashboard]'"
            ) from None
        self._dashboard = optuna_dashboard
        self._folder = folder
        self._texts: dict[int, str] = {}
        with storage_errors(folder):
            self._stored = open_study(load_study(folder), folder, create=False)
            beside = _NotesBeside(self._stored._storage._backend)  # type: ignore[attr-defined]  # noqa: SLF001 - a _CachedStorage
            self._study = optuna.load_study(study_name=self._stored.study_name, storage=beside)

    def close(self) -> None:
        """Let go of the storage's connections."""
        disconnect(self._stored)

    @property
    def path(self) -> str:
        """Where the application shows the study."""
        return f"/dashboard/studies/{self._study._study_id}"  # noqa: SLF001 - Optuna tells it nowhere else

    def application(self) -> Application:
        """Return the dashboard's web application."""
        return cast("Application", self._dashboard.wsgi(self._study._storage))  # noqa: SLF001 - as above

    def save_notes(self, overview: str, notes: Mapping[int, str]) -> None:
        """Attach a text to the study, and one to each trial of these numbers."""
        with storage_errors(self._folder):
            self._dashboard.save_note(self._study, overview)
            for trial in self._study.get_trials(deepcopy=False):
                text = notes.get(trial.number)
                if text is not None and self._texts.get(trial.number) != text:
                    self._dashboard.save_note(Trial(self._study, trial._trial_id), text)  # noqa: SLF001 - as above
                    self._texts[trial.number] = text


class _NotesBeside(_CachedStorage):
    """A storage that keeps what is attached to its studies in memory: thousands of notes cost no write."""

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._beside: dict[int, dict[str, Any]] = {}

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Keep an attribute."""
        self.get_study_system_attrs(study_id)[key] = value

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return a study's attributes, those that were kept here among them."""
        if study_id not in self._beside:
            self._beside[study_id] = super().get_study_system_attrs(study_id)
        return self._beside[study_id]

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return every study, with its attributes as they are now."""
        studies = super().get_all_studies()
        for study in studies:
            study.system_attrs = dict(self.get_study_system_attrs(study._study_id))  # noqa: SLF001 - as above
        return studies
