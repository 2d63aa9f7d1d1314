from pathlib import Path

import pytest

from autotune.engine.docker.tunnel import ssh_command


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
