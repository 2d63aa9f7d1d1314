import os
import subprocess
from dataclasses import replace

import psutil
import pytest

from autotune.engine.docker.controller import Controller


def test_a_token_can_be_read_back() -> None:
    here = Controller.here()
    assert here.pid == os.getpid()
    assert Controller.parse(str(here)) == here
    assert not here.is_dead


@pytest.mark.parametrize("text", ["", "host/1", "host/x/1", "host/1/x"])
def test_what_is_no_token_is_not_taken_for_one(text: str) -> None:
    assert Controller.parse(text) is None


def test_a_process_that_ended_is_dead_and_one_that_got_its_pid_does_not_stand_for_it() -> None:
    here = Controller.here()
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        started_s = int(psutil.Process(sleeper.pid).create_time())
        other = replace(here, pid=sleeper.pid, started_s=started_s)
        assert not other.is_dead
        sleeper.kill()
    assert replace(other).is_dead
    assert replace(here, started_s=here.started_s - 60).is_dead


def test_of_another_machine_nothing_is_known() -> None:
    assert not Controller("elsewhere-0", 1, 0).is_dead
