import csv
import io
import itertools
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.export.container import mount_option
from autotune.export.docker import docker_files
from autotune.export.selection import select
from autotune.space import Mount
from tests.support import histories as made

WORDS = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]))
HOSTILE = 'it\'s "$HOME" `id` $(id)\n--rm \\ * ~ # ; & \t\u00fc'


def words_of(space: Mapping[str, object]) -> list[str]:
    selection = select(made.improved(space), number=None, force=False)
    text = docker_files(selection)[0].text
    body = text.partition("set -eu\n\n")[2].removeprefix("exec ")
    return shlex.split(body.replace(" \\\n  ", " "))


def option(words: list[str], name: str) -> list[str]:
    return [after for word, after in itertools.pairwise(words) if word == name]


def test_the_script_runs_docker_with_exactly_the_planned_words(tmp_path: Path) -> None:
    selection = select(
        made.improved({"model": HOSTILE, "environment": {"NAME": HOSTILE}}), number=None, force=False
    )
    (file,) = docker_files(selection)
    (tmp_path / "run.sh").write_text(file.text, encoding="utf-8")
    fake = tmp_path / "docker"
    fake.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n', encoding="utf-8")
    fake.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", str(tmp_path / "run.sh")],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        check=True,
    )
    words = done.stdout.decode().split("\0")[:-1]
    argv = selection.container_plan.ranks[0].argv
    assert tuple(words[-len(argv) :]) == argv
    assert words[-len(argv) - 1] == "lmsysorg/sglang:v0.5.23"
    assert f"NAME={HOSTILE}" in option(words, "--env")


@given(model=WORDS, value=WORDS)
def test_a_shell_reads_back_every_word(model: str, value: str) -> None:
    words = words_of({"model": model, "environment": {"NAME": value}})
    assert f"NAME={value}" in option(words, "--env")
    assert option(words, "--model-path") == [model]


@given(source=WORDS, target=WORDS, read_only=st.booleans())
def test_a_mount_is_one_csv_line_that_reads_back(source: str, target: str, *, read_only: bool) -> None:
    text = mount_option(Mount(source=source, target=target, read_only=read_only))
    (fields,) = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert fields == ["type=bind", f"source={source}", f"target={target}", *(["readonly"] * read_only)]


def test_secrets_are_named_and_never_written() -> None:
    words = words_of({})
    assert "HF_TOKEN" in option(words, "--env")
    assert not [word for word in words if word.startswith("HF_TOKEN=")]


def test_nothing_on_the_container_makes_autotune_remove_it() -> None:
    words = words_of({})
    assert "--label" not in words
    assert option(words, "--name") == ["sglang-r1-node0"]


def test_production_restarts_and_has_memory_of_its_own() -> None:
    words = words_of({})
    assert option(words, "--restart") == ["unless-stopped"]
    assert option(words, "--shm-size") == ["32g"]
    assert option(words, "--ulimit") == ["memlock=-1", "stack=67108864"]
    assert option(words, "--gpus") == ["8"]
    assert "--ipc" not in words


def test_the_memory_limit_of_the_trial_is_kept_and_none_is_invented() -> None:
    words = words_of({"container": {"memory": "900g"}})
    assert option(words, "--memory") == option(words, "--memory-swap") == ["900g"]
    assert not {"--memory", "--memory-swap"} & set(words_of({}))


@pytest.mark.parametrize(
    ("accelerator", "devices", "groups"),
    [
        ("amd", ["/dev/kfd", "/dev/dri"], ["video"]),
        (
            "ascend",
            [
                "/dev/davinci0",
                "/dev/davinci1",
                "/dev/davinci_manager",
                "/dev/devmm_svm",
                "/dev/hisi_hdc",
            ],
            [],
        ),
        ("none", [], []),
    ],
)
def test_other_accelerators_are_devices(accelerator: str, devices: list[str], groups: list[str]) -> None:
    words = words_of({"nodes": [{"name": "node0", "gpus": 2, "accelerator": accelerator}]})
    assert option(words, "--device") == devices
    assert option(words, "--group-add") == groups
    assert option(words, "--gpus") == []
    assert any("Ascend" in mount for mount in option(words, "--mount")) == (accelerator == "ascend")
