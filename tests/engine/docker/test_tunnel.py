import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autotune.engine.docker.faults import UnreachableError
from autotune.engine.docker.tunnel import Tunnel, ssh_command

SSH = """
    import socket, sys
    local = sys.argv[sys.argv.index("-L") + 1].partition(":")[0]
    print("Warning: a banner", file=sys.stderr, flush=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(local)
        listener.listen()
        print(local, file=open(f"{sys.argv[0]}.uses", "a"), flush=True)
        sys.stdin.read()
    """
REFUSING = "import sys; sys.exit('tuner@node0: Permission denied (publickey).')"
OPEN_AND_WAIT = """
    from autotune.engine.docker.tunnel import Tunnel
    with Tunnel("node0", "ssh://node0") as tunnel:
        print(tunnel.address, flush=True)
        input()
    """


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, with a PATH on which ssh is what a test writes there."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own are too long for a socket
        (Path(name) / "bin").mkdir()
        temporary = Path(name) / "tmp"
        temporary.mkdir()
        monkeypatch.setenv("PATH", f"{name}/bin:{os.environ['PATH']}")
        monkeypatch.setenv("TMPDIR", str(temporary))
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(name)


def write_ssh(place: Path, text: str) -> Path:
    path = place / "bin" / "ssh"
    path.write_text(f"#!{sys.executable} -S\n{textwrap.dedent(text)}")
    path.chmod(0o755)
    return path


def until(condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return condition()


def answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(address.removeprefix("unix://")) == 0


@pytest.mark.parametrize(
    ("url", "forward", "target"),
    [
        ("ssh://tuner@10.0.0.10", "/run/x.sock:/var/run/docker.sock", ["tuner@10.0.0.10", "cat"]),
        ("ssh://node0:2222", "/run/x.sock:/var/run/docker.sock", ["-p", "2222", "node0", "cat"]),
        ("ssh://me@node0/run/user/7/docker.sock", "/run/x.sock:/run/user/7/docker.sock", ["me@node0", "cat"]),
    ],
)
def test_an_address_becomes_a_command(url: str, forward: str, target: list[str]) -> None:
    command = list(ssh_command(url, Path("/run/x.sock")))
    assert command[-len(target) :] == target
    assert command[command.index("-L") + 1] == forward


def test_a_host_key_must_be_known_and_a_dead_link_ends_ssh() -> None:
    command = ssh_command("ssh://node0", Path("/run/x.sock"))
    assert {"StrictHostKeyChecking=yes", "ServerAliveInterval=2", "ServerAliveCountMax=3"} <= set(command)


def test_a_tunnel_answers_while_it_is_open_and_leaves_nothing_behind(place: Path) -> None:
    write_ssh(place, SSH)
    with Tunnel("node0", "ssh://node0") as tunnel:
        assert answers(tunnel.address)
    assert tunnel.last_words == "Warning: a banner"
    assert not list((place / "tmp").iterdir())


def test_an_ssh_that_ends_before_it_is_open_is_not_tried_again_and_its_words_are_told(place: Path) -> None:
    write_ssh(place, REFUSING)
    with pytest.raises(UnreachableError, match=r"ssh: tuner@node0: Permission denied"):
        Tunnel("node0", "ssh://node0").__enter__()
    assert not list((place / "tmp").iterdir())


def test_an_ssh_that_says_nothing_is_known_by_its_exit_code(place: Path) -> None:
    write_ssh(place, "raise SystemExit(7)")
    with pytest.raises(UnreachableError, match="ended with code 7"):
        Tunnel("node0", "ssh://node0").__enter__()


def test_a_link_that_ends_is_made_again(place: Path) -> None:
    first_time = "not os.path.exists(local + '.ended')"
    ends_once = SSH.replace("import socket", "import os, socket").replace(
        "sys.stdin.read()", f"listener.accept()[0].recv(1) if {first_time} else sys.stdin.read()"
    )
    ssh = write_ssh(place, ends_once + "    os.unlink(local); open(local + '.ended', 'w').close()\n")
    uses = ssh.with_name("ssh.uses")
    with Tunnel("node0", "ssh://node0") as tunnel:  # looking whether it is open ends the first one
        # ssh listens before it writes that down
        assert until(lambda: uses.exists() and len(uses.read_text().splitlines()) == 2)
        assert until(lambda: answers(tunnel.address))


def test_an_ssh_that_does_not_end_is_killed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.engine.docker.tunnel._END_S", 0.05)
    deaf = SSH.replace("import socket, sys", "import signal, socket, sys; signal.signal(15, signal.SIG_IGN)")
    write_ssh(place, deaf.replace("sys.stdin.read()", "signal.pause()"))
    with Tunnel("node0", "ssh://node0") as tunnel:
        assert answers(tunnel.address)
    assert not answers(tunnel.address)


def test_an_ssh_that_never_opens_is_given_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.engine.docker.tunnel._OPEN_S", 0.1)
    write_ssh(place, "import sys; sys.stdin.read()")
    with pytest.raises(UnreachableError, match=r"no ssh connection in 0\.1 s"):
        Tunnel("node0", "ssh://node0").__enter__()


def test_what_a_killed_controller_left_is_removed_by_the_next_tunnel(place: Path) -> None:
    write_ssh(place, SSH)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OPEN_AND_WAIT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as controller:
        assert controller.stdout is not None
        address = controller.stdout.readline().strip()
        controller.send_signal(signal.SIGKILL)
    (left,) = (place / "tmp").iterdir()
    assert left == Path(address.removeprefix("unix://")).parent
    assert until(lambda: not answers(address))  # ssh reads the end of its input

    with Tunnel("node0", "ssh://node0"):
        assert not left.exists()
    assert not list((place / "tmp").iterdir())
