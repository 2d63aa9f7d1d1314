import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from autotune.engine.process_tree import (
    MARK_VARIABLE,
    Mark,
    descendants,
    described,
    is_local,
    kill,
    kill_until_gone,
    living,
    marked,
    port_holder,
)

_MARK = Mark.of(f"tree-{os.getpid()}", "1")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, MARK_VARIABLE: str(_MARK)}
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], env=environment) as it:
        yield it
        it.kill()


def test_a_process_is_found_by_the_mark_it_inherited(sleeper: subprocess.Popen[bytes]) -> None:
    assert [each.pid for each in marked(lambda mark: mark == _MARK)] == [sleeper.pid]
    assert marked(lambda mark: mark.study == "another") == []


def test_a_controller_that_is_gone_makes_its_processes_orphans(sleeper: subprocess.Popen[bytes]) -> None:
    started_s = int(psutil.Process(sleeper.pid).create_time())
    mark = Mark("s", "t", sleeper.pid, started_s)
    assert not mark.is_orphaned
    assert Mark("s", "t", sleeper.pid, started_s - 1000).is_orphaned  # its pid was given to another
    sleeper.kill()
    sleeper.wait()
    assert mark.is_orphaned


def test_children_are_found_until_they_are_gone(sleeper: subprocess.Popen[bytes]) -> None:
    assert sleeper.pid in [child.pid for child in descendants(os.getpid())]
    assert descendants(sleeper.pid) == []
    sleeper.kill()
    sleeper.wait()
    assert descendants(sleeper.pid) == []


def test_a_dead_process_is_neither_alive_nor_killed_again(sleeper: subprocess.Popen[bytes]) -> None:
    process = psutil.Process(sleeper.pid)
    assert living([process]) == [process]
    left = kill_until_gone(lambda: living([process]), patience_s=5)
    assert left == []
    sleeper.wait()
    assert living([process]) == []
    kill([process])
    assert "gone or hidden" in described(process)


def test_what_cannot_be_killed_is_returned_after_the_patience(sleeper: subprocess.Popen[bytes]) -> None:
    process = psutil.Process(sleeper.pid)
    assert kill_until_gone(lambda: [process], patience_s=0) == [process]


def test_an_address_of_this_machine_is_told_from_others() -> None:
    assert is_local("127.0.0.1")
    assert is_local("127.0.0.2")
    assert not is_local("192.0.2.7")


def test_a_holder_that_cannot_be_seen_is_still_a_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(_kind: str) -> list[object]:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", deny)
    with socket.create_server(("127.0.0.1", 0)) as server:
        holder = port_holder("127.0.0.1", server.getsockname()[1])
    assert holder == "a process of another user (Address already in use)"
