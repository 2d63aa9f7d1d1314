from pathlib import Path

import pytest

from autotune.errors import ConfigError, StudyError
from autotune.search.place import ADDRESS_FILE, DATABASE_FILE, Place, place_of, settle_place

ADDRESS = "postgresql+psycopg://tuner@db/studies"


def test_without_an_address_the_trials_are_in_the_run_folder(tmp_path: Path) -> None:
    place = settle_place(tmp_path, None)

    assert place == Place(tmp_path, None) == place_of(tmp_path)
    assert place.url == f"sqlite:///{tmp_path / DATABASE_FILE}"
    assert not place.is_begun


def test_an_address_is_kept_with_the_study_for_later_calls(tmp_path: Path) -> None:
    folder = tmp_path / "new"

    assert settle_place(folder, ADDRESS).url == ADDRESS
    assert settle_place(folder, None) == settle_place(folder, ADDRESS) == place_of(folder)
    assert place_of(folder).is_begun


def test_a_password_is_refused_and_neither_told_nor_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="PGPASSWORD") as caught:
        settle_place(tmp_path, "postgresql+psycopg://tuner:hunter2@db/studies")
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / ADDRESS_FILE).exists()


@pytest.mark.parametrize("address", ["nonsense", "mysql://db/studies", "postgresql://db/studies"])
def test_an_address_that_cannot_be_used_is_answered_with_one_that_can(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"Write postgresql\+psycopg://"):
        settle_place(tmp_path, address)


def test_a_study_stays_where_it_began(tmp_path: Path) -> None:
    (tmp_path / DATABASE_FILE).touch()
    with pytest.raises(StudyError, match=r"study\.db, not in postgresql"):
        settle_place(tmp_path, ADDRESS)
