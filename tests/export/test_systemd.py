import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.export.selection import Selection, select
from autotune.export.systemd import systemd_files
from tests.support import histories as made
from tests.support.systemd_unit import dumped, settings, words

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
HOSTILE = (
    "it's", '"quoted"', "a b", " ", "", "line\nbreak", "\r", "\t", "$HOME", "${HOME}", "$$", "%n", "%%",
    "100%", "\\", "\\n", "\\;", ";", "#", "-x", "--", "@", "!", "+", "|", "&", "*", "~", "\x01", "\x7f",
    "\x85", "\u2028", "\u00fc", "\u65e5\u672c", "\U0001f680", "'", '"', "a\\\nb", "\\x41", "$(id)", "`id`",
    "{{x}}",
)  # fmt: skip
PLAIN: Mapping[str, object] = {"image": None, "launcher": "process", "environment_from": []}

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine"
)


def selected(space: Mapping[str, object]) -> Selection:
    return select(made.improved(space), number=None, force=False)


def started(space: Mapping[str, object], node: int = 0) -> list[str]:
    (value,) = settings(systemd_files(selected(space))[node].text)["ExecStart"]
    return words(value)


def option(found: list[str], name: str) -> list[str]:
    return [after for word, after in itertools.pairwise(found) if word == name]


@given(model=WORDS, value=WORDS)
def test_a_unit_gives_docker_exactly_the_planned_words(model: str, value: str) -> None:
    space: Mapping[str, object] = {"model": model, "environment": {"NAME": value}}
    found, argv = started(space), selected(space).container_plan.ranks[0].argv
    assert tuple(found[-len(argv) :]) == argv
    assert found[:2] == ["docker", "run"]
    assert f"NAME={value}" in option(found, "--env")


@given(model=WORDS, value=WORDS)
def test_without_an_image_the_unit_runs_the_planned_command_itself(model: str, value: str) -> None:
    space = {**PLAIN, "model": model, "environment": {"NAME": value}}
    argv = selected(space).plan.ranks[0].argv
    assert started(space) == ["/usr/bin/env", f"NAME={value}", *argv]


@needs_systemd
def test_systemd_itself_reads_every_hostile_word_back(tmp_path: Path) -> None:
    (tmp_path / "docker").symlink_to("/bin/true")
    environment = {f"NAME{index}": word for index, word in enumerate(HOSTILE)}
    for space in ({"environment": environment}, {**PLAIN, "environment": environment}):
        (file,) = systemd_files(selected(space))
        text = file.text.replace("docker ", f"{tmp_path}/docker ").replace("Requires=docker.service\n", "")
        text = text.replace(f"{tmp_path}/docker.service", "docker.service")
        path = tmp_path / file.name
        path.write_text(text, encoding="utf-8")
        first, *rest = started(space)
        expected = [str(tmp_path / "docker") if first == "docker" else first, *rest]
        assert all(f"NAME{index}={word}" in rest for index, word in enumerate(HOSTILE))
        assert expected in dumped(path)


@needs_systemd
def test_systemd_complains_of_no_unit_of_several_nodes(tmp_path: Path) -> None:
    for file in systemd_files(selected({**PLAIN, **made.TWO_NODES})):
        path = tmp_path / file.name
        path.write_text(file.text.replace("python3", "/bin/true"), encoding="utf-8")
        assert dumped(path)


def test_docker_stays_in_the_foreground_and_systemd_alone_restarts_it() -> None:
    (file,) = systemd_files(selected({}))
    found, keys = started({}), settings(file.text)
    assert file.name == "sglang-r1-node0.service"
    assert not {"--detach", "-d", "--restart"} & set(found)
    assert {"--rm", "--init"} <= set(found)
    assert keys["Restart"] == ["always"]
    assert keys["ExecStartPre"] == ["-docker rm --force sglang-r1-node0"]
    assert keys["ExecStop"] == ["docker stop --time 30 sglang-r1-node0"]
    assert keys["Requires"] == ["docker.service"]


def test_a_plain_command_needs_no_docker_and_may_pin_memory() -> None:
    keys = settings(systemd_files(selected(PLAIN))[0].text)
    assert not {"Requires", "ExecStop", "ExecStartPre", "EnvironmentFile"} & keys.keys()
    assert keys["LimitMEMLOCK"] == ["infinity"]


def test_every_node_has_a_unit_with_its_own_rank() -> None:
    files = systemd_files(selected(made.TWO_NODES))
    assert [file.name for file in files] == ["sglang-r1-node0.service", "sglang-r1-node1.service"]
    for rank in (0, 1):
        assert option(started(made.TWO_NODES, rank), "--node-rank") == [str(rank)]


def test_secrets_come_from_a_file_that_is_not_exported() -> None:
    (file,) = systemd_files(selected({}))
    assert settings(file.text)["EnvironmentFile"] == ["/etc/sglang-r1/secrets.env"]
    assert option(started({}), "--env") == ["NCCL_DEBUG=INFO", "HF_TOKEN"]
