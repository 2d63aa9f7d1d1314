"""Where a study's trials are stored: a file in its run folder, or a PostgreSQL that other machines reach too.

In: a run folder, perhaps an address. Out: a `Place`. Connects to nothing. Invariants: a study stays where it
began; an address with a password is refused, so that none is stored or printed (libpq takes it from
PGPASSWORD or ~/.pgpass).
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from autotune.errors import ConfigError, StudyError

DATABASE_FILE = "study.db"
ADDRESS_FILE = "storage.url"
_EXAMPLE = "postgresql+psycopg://autotune@db.example.com/studies"


@dataclass(frozen=True)
class Place:
    """The storage of one study; `address` None means the file in its folder."""

    folder: Path
    address: str | None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.address or str(self.folder / DATABASE_FILE)

    @property
    def url(self) -> str:
        """The address as SQLAlchemy takes it."""
        return self.address or f"sqlite:///{self.folder / DATABASE_FILE}"

    @property
    def is_begun(self) -> bool:
        """Whether there may be trials already."""
        return self.address is not None or (self.folder / DATABASE_FILE).exists()


def place_of(folder: Path) -> Place:
    """Return where the study of a run folder stores its trials."""
    file = folder / ADDRESS_FILE
    return Place(folder, file.read_text(encoding="utf-8").strip() if file.exists() else None)


def settle_place(folder: Path, address: str | None) -> Place:
    """Return the place of a study that is to run; a new one's is kept in its folder.

    Raises:
        ConfigError: the address cannot be used.
        StudyError: the study's trials are elsewhere already.
    """
    known = place_of(folder)
    if address is None or address == known.address:
        return known
    _check(address)
    if known.is_begun:
        raise StudyError(
            f"the trials of {folder} are in {known.name}, not in {address}.\n"
            "    Leave --storage out to go on there, or begin a new study with --study NAME."
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ADDRESS_FILE).write_text(f"{address}\n", encoding="utf-8")
    return Place(folder, address)


def _check(address: str) -> None:
    try:
        url = make_url(address)
    except ArgumentError:
        raise ConfigError(f"--storage: this is no address of a database. Write {_EXAMPLE}") from None
    if url.password is not None:
        raise ConfigError(
            "--storage: the address holds a password, which would be stored with the study. "
            "Leave it out and give it as PGPASSWORD or in ~/.pgpass."
        )
    _check_driver(url, address)


def _check_driver(url: URL, address: str) -> None:
    if url.drivername != "postgresql+psycopg":
        raise ConfigError(f"--storage {address}: only PostgreSQL is supported. Write {_EXAMPLE}")
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigError("--storage: psycopg is not installed: pip install 'autotune[postgresql]'")
