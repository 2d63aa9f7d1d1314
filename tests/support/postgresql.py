"""A PostgreSQL server of the tests' own: Debian's package, a cluster in a folder, a port that was free.

In: a folder. Out: the address for `--storage`. Invariant: no cluster of the machine's own is touched, and
after `stop` nothing runs.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.ports import free_port
from tests.testbed.bed import install


def programs() -> Path | None:
    """Return the folder with initdb and pg_ctl, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return found[-1] if found else None


def reason_against_postgresql() -> str | None:
    """Return why this machine can have no server, None if it can."""
    if os.geteuid() != 0:
        return "not root, which may become the user postgres"
    if programs() is not None:
        return None
    # Without this the package makes and starts a cluster of its own.
    setting = Path("/etc/postgresql-common/createcluster.d/tests.conf")
    setting.parent.mkdir(parents=True, exist_ok=True)
    setting.write_text("create_main_cluster = false\n")
    return None if install(["postgresql"]) and programs() is not None else "it cannot be installed"


@dataclass(frozen=True)
class Server:
    """A cluster in a folder."""

    folder: Path
    port: int

    @property
    def address(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/studies"

    def start(self) -> None:
        options = (
            f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories= -c fsync=off"
        )
        self._run(
            "pg_ctl",
            "-D",
            str(self.folder / "data"),
            "-w",
            "-l",
            str(self.folder / "log"),
            "-o",
            options,
            "start",
        )

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def make(self) -> None:
        shutil.chown(self.folder, "postgres")
        self._run("initdb", "-D", str(self.folder / "data"), "-A", "trust", "--no-sync")
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "studies")

    def _run(self, program: str, *words: str) -> None:
        folder = programs()
        assert folder is not None
        subprocess.run(
            ["runuser", "-u", "postgres", "--", str(folder / program), *words],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
        )


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """Yield a server that runs with an empty database."""
    made = Server(folder, free_port())
    try:
        made.make()
        yield made
    finally:
        if (folder / "data/postmaster.pid").exists():
            made.stop()
