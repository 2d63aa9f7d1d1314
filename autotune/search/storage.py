"""The study's database: how it is opened, who may write, and what its failures mean. Talks to Optuna's RDB.

In: a study and its place. Out: Optuna's study. Invariants: a disk or server that fails is an
InfrastructureError and can be gone on from, what is not the study's is a StudyError; reading creates nothing.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage  # what Optuna wraps every RDBStorage in
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from autotune.errors import InfrastructureError, StudyError
from autotune.search.own_trials import OwnTrials
from autotune.search.place import DATABASE_FILE, Place, place_of
from autotune.study import Study

SERVER_PATIENCE = {
    "connect_timeout": 10,
    "tcp_user_timeout": 30_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
}
"""How long a server that does not answer any more is waited for, since Ctrl-C waits with it: 40 s in all.

libpq's connection parameters (PostgreSQL 18, libpq, "Parameter Key Words"): seconds, but for
`tcp_user_timeout`, in ms.
"""


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn a disk or server that fails into an InfrastructureError, a damaged database into a StudyError."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error if error.__cause__ is None or isinstance(error, SQLAlchemyError) else error.__cause__
        line = str(cause).splitlines()[0]
        if _is_damage(cause):
            raise damaged(folder, line) from error
        raise InfrastructureError(f"the study's storage failed: {line}\n    {_advice(folder)}") from error
    except OSError as error:
        raise InfrastructureError(
            f"{error.filename or folder}: {error.strerror}\n"
            "    Everything told so far is kept; make room and run the same command again."
        ) from error


def _advice(folder: Path) -> str:
    address = place_of(folder).address
    if address is not None:
        return f"Look at the database server of {address} and run the same command again."
    return f"Look at the disk that holds {folder} (space, permissions) and run the same command again."


def damaged(folder: Path, what: str) -> StudyError:
    """Return the error for a database that is not, or no longer, what autotune wrote."""
    return StudyError(
        f"{place_of(folder).name} is damaged or was not written by this version of autotune: {what}\n"
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
    """Open the storage of a study where its folder says.

    Raises:
        StudyError: it belongs to a study with other inputs, or to none.
    """
    place = place_of(folder)
    if create:
        _begin(study, place)
    storage = _open_file(place) if place.address is None else _open_server(place)
    try:
        return _load(study, place, storage, is_writer=create)
    except StudyError:
        storage.engine.dispose()
        raise


def _load(study: Study, place: Place, storage: RDBStorage, *, is_writer: bool) -> optuna.Study:
    with parsing(place.folder, "the study"):
        opened = optuna.load_study(
            study_name=study.name, storage=OwnTrials(storage) if is_writer else storage
        )
    with parsing(place.folder, "the study's identity"):
        stored = opened.user_attrs.get("identity")
    if stored not in (None, study.identity):
        raise StudyError(f"the study {study.name} in {place.name} has other inputs")
    return opened


def disconnect(study: optuna.Study) -> None:
    """Close the connections of a study that was opened here."""
    cache = study._storage  # noqa: SLF001 - Optuna keeps it to itself
    if isinstance(cache, _CachedStorage):
        cache._backend.engine.dispose()  # noqa: SLF001 - nor has the cache a way to close


@contextmanager
def only_controller(folder: Path) -> Iterator[None]:
    """Hold the run folder; the operating system lets go of it when this process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "controller.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise StudyError(
            f"another autotune process works on {folder}.\n"
            "    Wait for it, stop it, or give this study another name with --study."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def only_writer(study: Study, folder: Path) -> Iterator[None]:
    """Hold the study on its server, which lets go when this process ends; a file is held by its folder.

    Raises:
        StudyError: another controller holds it.
    """
    place = place_of(folder)
    if place.address is None:
        yield
        return
    key = int.from_bytes(hashlib.sha256(study.name.encode()).digest()[:8], signed=True)
    engine = create_engine(place.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}):
            raise StudyError(
                f"another autotune process works on {study.name} in {place.name}.\n"
                "    Wait for it, stop it, or give this study another name with --study."
            )
        yield


def _begin(study: Study, place: Place) -> None:
    """Make the study if it is not there, whole at once: a kill leaves no half-made one behind."""
    if place.address is not None:
        _begin_on(RDBStorage(place.url), study)
    elif not place.is_begun:
        begun = place.folder / f"{DATABASE_FILE}.begun"
        begun.unlink(missing_ok=True)
        _begin_on(RDBStorage(f"sqlite:///{begun}"), study)
        begun.replace(place.folder / DATABASE_FILE)


def _begin_on(storage: RDBStorage, study: Study) -> None:
    made = optuna.create_study(
        study_name=study.name,
        storage=storage,
        directions=["maximize" if goal.direction == "maximise" else "minimize" for goal in study.slo.goals],
        load_if_exists=True,
    )
    if "identity" not in made.user_attrs:
        made.set_user_attr("identity", study.identity)
    storage.engine.dispose()


def _is_damage(cause: BaseException) -> bool:
    """Whether the contents, not the disk or server, are at fault: sqlite calls missing tables operational."""
    if isinstance(cause, OperationalError):
        return "no such" in str(cause)
    return isinstance(cause, DatabaseError)


def _open_server(place: Place) -> RDBStorage:
    asked = make_url(place.url).query
    patience = {name: value for name, value in SERVER_PATIENCE.items() if name not in asked}
    return RDBStorage(
        place.url, engine_kwargs={"pool_pre_ping": True, "connect_args": patience}, skip_table_creation=True
    )


def _open_file(place: Place) -> RDBStorage:
    storage = RDBStorage(
        place.url,
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
