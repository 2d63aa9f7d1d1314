import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from autotune.errors import InfrastructureError, StudyError
from autotune.record import Role
from autotune.search.ledger import Ledger, read_history
from autotune.search.place import DATABASE_FILE
from autotune.search.storage import storage_errors
from autotune.space import Candidate
from autotune.study import save_study
from tests.support.trials import STUDY, measured


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study with one trial, everything of it in the database file itself."""
    save_study(STUDY, tmp_path)
    ledger = Ledger(STUDY, tmp_path)
    ledger.tell(ledger.ask_for(Candidate.of({}), Role.BASELINE, {}), measured(1.0, role=Role.BASELINE))
    ledger._optuna._storage._backend.engine.dispose()  # type: ignore[attr-defined]  # an RDBStorage in a cache
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return tmp_path


def _spoil(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_file_that_is_no_database_is_damage_to_readers_and_to_the_controller(folder: Path) -> None:
    (folder / DATABASE_FILE).write_bytes(b"not a database, but long enough to look like one" * 100)

    with pytest.raises(StudyError, match=r"is damaged or was not written .* not a database"):
        read_history(folder)
    with pytest.raises(StudyError, match="Put a copy of it back"), storage_errors(folder):
        Ledger(STUDY, folder)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_truncated_database_is_damage(folder: Path, share: float) -> None:
    path = folder / DATABASE_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(StudyError, match=f"{DATABASE_FILE} is damaged"):
        read_history(folder)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE trials",
        "DROP TABLE studies",
        "DROP TABLE trial_user_attributes",
        "DELETE FROM studies",
        "UPDATE trials SET state = 'RESTING'",
        "UPDATE trial_user_attributes SET value_json = 'x'",
        "UPDATE study_user_attributes SET value_json = 'x'",
    ],
)
def test_missing_tables_and_unknown_contents_are_damage(folder: Path, statement: str) -> None:
    _spoil(folder, statement)

    with pytest.raises(StudyError, match=f"{DATABASE_FILE} is damaged"):
        read_history(folder)


def test_a_record_that_cannot_be_understood_is_named_with_its_trial(folder: Path) -> None:
    _spoil(folder, "UPDATE trial_user_attributes SET value_json = '\"{}\"' WHERE key = 'record'")

    with pytest.raises(
        StudyError, match=f"{DATABASE_FILE} .* the record of trial 0 cannot be read"
    ) as caught:
        read_history(folder)
    assert "--study NAME" in str(caught.value)
    assert caught.value.exit_code == 4


def test_reading_a_study_without_tables_makes_none(folder: Path) -> None:
    (folder / DATABASE_FILE).write_bytes(b"")

    with pytest.raises(StudyError, match="no such table"):
        read_history(folder)
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_disk_that_fails_can_be_gone_on_from(folder: Path) -> None:
    (folder / DATABASE_FILE).unlink()
    (folder / DATABASE_FILE).mkdir()

    with pytest.raises(InfrastructureError, match="run the same command again"), storage_errors(folder):
        Ledger(STUDY, folder)


def test_a_full_disk_stops_the_study_with_the_file_that_did_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"records\.npz: No space left"), storage_errors(tmp_path):
        raise OSError(28, "No space left on device", "records.npz")
