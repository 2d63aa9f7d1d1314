"""Optuna's own dashboard on a study's storage: its web application, and the notes that it shows.

In: a study's folder, and a text for each trial. Out: a WSGI application. Talks to Optuna's RDB and to the
package optuna-dashboard, which is optional. Invariant: what is written is notes, never a trial.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

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
        with storage_errors(folder):
            self._study = open_study(load_study(folder), folder, create=False)

    def close(self) -> None:
        """Let go of the storage's connections."""
        disconnect(self._study)

    @property
    def path(self) -> str:
        """Where the application shows the study."""
        return f"/dashboard/studies/{self._study._study_id}"  # noqa: SLF001 - Optuna tells it nowhere else

    def application(self) -> Application:
        """Return the dashboard's web application."""
        return cast("Application", self._dashboard.wsgi(self._study._storage))  # noqa: SLF001 - as above

    def save_notes(self, overview: str, notes: Mapping[int, str]) -> None:
        """Attach a text to the study, and one to each trial of these numbers; what is there already stays."""
        with storage_errors(self._folder):
            self._save(self._study, overview)
            for trial in self._study.get_trials(deepcopy=False):
                if trial.number in notes:
                    self._save(Trial(self._study, trial._trial_id), notes[trial.number])  # noqa: SLF001 - as above

    def _save(self, what: Any, text: str) -> None:
        if self._dashboard.get_note(what) != text:
            self._dashboard.save_note(what, text)
