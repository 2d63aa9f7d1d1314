"""The study's database: where it lies, how it is opened, and what its failures mean. Talks to Optuna's RDB.

In: a study and its folder. Out: Optuna's study. Invariants: a disk that fails is an InfrastructureError and
can be gone on from, a file that is not the study's is a StudyError; reading creates nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError

from autotune.errors import InfrastructureError, StudyError
from autotune.search.own_trials import OwnTrials
from autotune.study import Study

DATABASE_FILE = "study.db"


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn a disk that fails into an InfrastructureError, a damaged database into a StudyError."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error if error.__cause__ is None or isinstance(error, SQLAlchemyError) else error.__cause__
        line = str(cause).splitlines()[0]
        if _is_damage(cause):
            raise damaged(folder, line) from error
        raise InfrastructureError(
            f"the study's storage failed: {line}\n"
            f"    Look at the disk that holds {folder} (space, permissions) and run the same command again."
        ) from error
    except OSError as error:
        raise InfrastructureError(
            f"{error.filename or folder}: {error.strerror}\n"
            "    Everything told so far is kept; make room and run the same command again."
        ) from error


def damaged(folder: Path, what: str) -> StudyError:
    """Return the error for a database that is not, or no longer, what autotune wrote."""
    return StudyError(
        f"{folder / DATABASE_FILE} is damaged or was not written by this version of autotune: {what}\n"
        "    Put a copy of it back, or begin a new study with --study NAME; "
        f"the raw records under {folder / 'trials'} stay readable."
    )


@contextmanager
def parsing(folder: Path, what: str) -> Iterator[None]:
    """Turn contents that cannot be understood into a StudyError that says which."""
    try:
        yield
    except (ValueError, LookupError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise damaged(folder, f"{what} cannot be read ({line})") from error


def open_study(study: Study, folder: Path, *, create: bool) -> optuna.Study:
    """Open the storage of a study in its folder.

    Raises:
        StudyError: it belongs to a study with other inputs, or to none.
    """
    if create and not (folder / DATABASE_FILE).exists():
        _begin(study, folder)
    storage = _open_storage(folder)
    with parsing(folder, "the study"):
        opened = optuna.load_study(study_name=study.name, storage=OwnTrials(storage) if create else storage)
    with parsing(folder, "the study's identity"):
        stored = opened.user_attrs.get("identity")
    if stored not in (None, study.identity):
        raise StudyError(f"{folder / DATABASE_FILE} belongs to a study with other inputs")
    return opened


def _begin(study: Study, folder: Path) -> None:
    """Make the database under another name first: a kill in between leaves no half-made one behind."""
    begun = folder / f"{DATABASE_FILE}.begun"
    begun.unlink(missing_ok=True)
    storage = RDBStorage(f"sqlite:///{begun}")
    made = optuna.create_study(
        study_name=study.name,
        storage=storage,
        directions=["maximize" if goal.direction == "maximise" else "minimize" for goal in study.slo.goals],
    )
    made.set_user_attr("identity", study.identity)
    storage.engine.dispose()
    begun.replace(folder / DATABASE_FILE)


def _is_damage(cause: BaseException) -> bool:
    """Whether the file, not the disk, is at fault: sqlite reports missing tables as operational errors."""
    if isinstance(cause, OperationalError):
        return "no such" in str(cause)
    return isinstance(cause, DatabaseError)


def _open_storage(folder: Path) -> RDBStorage:
    storage = RDBStorage(
        f"sqlite:///{folder / DATABASE_FILE}",
        engine_kwargs={"connect_args": {"timeout": 30}},
        skip_table_creation=True,
    )
    event.listen(storage.engine, "connect", _use_write_ahead_log)
    storage.engine.dispose()  # a connection of before would be without the listener
    return storage


def _use_write_ahead_log(connection: Any, _: object) -> None:
    """Let readers work beside the writer, and survive a kill at any moment."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
