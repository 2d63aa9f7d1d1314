import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from autotune.errors import ConfigError
from autotune.export.selection import Selection, select
from autotune.export.slurm import slurm_files
from tests.support import histories as made

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
HOSTILE = 'it\'s "$HOME" `id` $(id)\n#SBATCH --x \\ * ~ ; & | {a,b} \t\u00fc\u2028%j ${hosts[0]}'
BASH = shutil.which("bash")

needs_bash = pytest.mark.skipif(BASH is None, reason="bash is not on this machine")


def selected(space: Mapping[str, object]) -> Selection:
    return select(made.improved(space), number=None, force=False)


def script(space: Mapping[str, object]) -> str:
    (file,) = slurm_files(selected(space))
    assert file.name == "job.sbatch"
    return file.text


def options(text: str) -> list[str]:
    """Return what sbatch reads: lines up to the first that is neither empty nor a comment."""
    found = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            break
        if line.startswith("#SBATCH "):
            found.append(line.removeprefix("#SBATCH "))
    return found


def steps(space: Mapping[str, object], folder: Path, srun: str = "") -> tuple[int, dict[str, list[str]]]:
    """Run the script with an srun that keeps its words; return the exit code and the words by host."""
    shutil.rmtree(folder / "kept", ignore_errors=True)
    (folder / "kept").mkdir(parents=True)
    programs = {
        "srun": f'printf "%s\\0" "$@" > "$KEPT/$3"\n{srun}',
        "scontrol": '[ "$1 $2 $3" = "show hostnames gpu[07-08]" ] && printf "gpu07\\ngpu08\\n"',
        "sleep": "exec /bin/sleep 0.02",
    }
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    job = folder / "job.sbatch"
    job.write_text(script(space), encoding="utf-8", newline="")
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "KEPT": str(folder / "kept"),
        "SLURM_JOB_NODELIST": "gpu[07-08]",
    }
    patience = "" if srun else "trap wait EXIT; "  # both fake steps are to have written
    done = subprocess.run(
        [BASH or "bash", "-c", f"{patience}. {job}"], env=environment, capture_output=True, check=False
    )
    assert done.stderr == b""
    return done.returncode, {
        path.name.removeprefix("--nodelist="): path.read_bytes().decode().split("\0")[:-1]
        for path in (folder / "kept").iterdir()
    }


@needs_bash
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(model=WORDS, value=WORDS)
@example(model=HOSTILE, value=HOSTILE)
@example(model="--node-rank", value="--dist-init-addr")
def test_srun_gets_exactly_the_planned_words_for_every_rank(tmp_path: Path, model: str, value: str) -> None:
    space = {**made.TWO_NODES, "model": model, "environment": {"NAME": value}}
    code, found = steps(space, tmp_path)
    assert code == 0
    assert sorted(found) == ["gpu07", "gpu08"]
    for rank, host in enumerate(("gpu07", "gpu08")):
        argv = selected(space).plan_led_from("gpu07").ranks[rank].argv
        assert tuple(found[host][-len(argv) :]) == argv
        assert found[host][-len(argv) - 2 : -len(argv)] == ["env", f"NAME={value}"]
        assert found[host][:4] == ["--nodes=1", "--ntasks=1", f"--nodelist={host}", "--cpu-bind=none"]


@needs_bash
def test_the_first_rank_that_fails_ends_the_job_with_its_code(tmp_path: Path) -> None:
    code, _ = steps(
        made.TWO_NODES, tmp_path, srun='case "$3" in *gpu08) exit 7;; esac; exec /bin/sleep 3 >/dev/null 2>&1'
    )
    assert code == 7


@needs_bash
def test_bash_finds_no_mistake_in_the_script(tmp_path: Path) -> None:
    (tmp_path / "job").write_text(script({"model": HOSTILE}), encoding="utf-8")
    assert subprocess.run(["bash", "-n", str(tmp_path / "job")], check=False).returncode == 0


def test_sbatch_reads_the_nodes_their_gpus_and_that_they_are_ours_alone() -> None:
    assert options(script(made.TWO_NODES)) == [
        "--job-name=sglang-r1",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gres=gpu:8",
        "--exclusive",
        "--mem=0",
    ]


@pytest.mark.parametrize(
    ("node", "gres"),
    [
        ({"gpus": 4, "accelerator": "amd"}, "--gres=gpu:4"),
        ({"gpus": 16, "accelerator": "ascend"}, "--gres=npu:16"),
        ({"gpu_ids": ["2", "3"]}, "--gres=gpu:2"),
        ({"accelerator": "none"}, None),
    ],
)
def test_accelerators_are_generic_resources(node: Mapping[str, object], gres: str | None) -> None:
    found = options(script({"nodes": [{"name": "node0", **node}]}))
    assert [each for each in found if each.startswith("--gres")] == ([gres] if gres else [])
    assert ("--exclusive" in found) == ("gpu_ids" not in node)


def test_unlike_nodes_are_refused() -> None:
    nodes = [{"name": "a", "gpus": 8}, {"name": "b", "gpus": 4}]
    with pytest.raises(ConfigError, match="same number of GPUs"):
        script({"nodes": nodes})


@pytest.mark.parametrize(
    ("image", "spelled"),
    [
        ("lmsysorg/sglang:v0.5.23", "lmsysorg/sglang:v0.5.23"),
        ("ubuntu", "ubuntu"),
        ("registry.example.com/team/sglang:v1", "registry.example.com#team/sglang:v1"),
        ("registry:5000/sglang", "registry:5000#sglang"),
        ("localhost/sglang", "localhost#sglang"),
    ],
)
def test_an_image_is_spelled_as_enroot_spells_it(image: str, spelled: str) -> None:
    assert f"  '--container-image={spelled}' \\\n" in script({"image": image}) or (
        f"  --container-image={spelled} \\\n" in script({"image": image})
    )


def test_mounts_are_pyxis_mounts_and_what_it_cannot_write_is_refused() -> None:
    mounts = [{"source": "/a", "target": "/b"}, {"source": "/c", "target": "/d", "read_only": True}]
    assert "--container-mounts=/a:/b,/c:/d:ro" in script({"mounts": mounts})
    with pytest.raises(ConfigError, match="a comma or a colon: '/a,b'"):
        script({"mounts": [{"source": "/a,b", "target": "/c"}]})


def test_without_an_image_the_command_of_the_space_is_run() -> None:
    space = {"image": None, "launcher": "process", "command": ["/opt/venv/bin/python", "-m", "x"]}
    text = script({**space, "environment": {}})
    assert "--container" not in text
    assert "\n  /opt/venv/bin/python -m x --model-path" in text


def test_secrets_are_named_and_never_written() -> None:
    assert "# HF_TOKEN is taken from the environment of sbatch.\n" in script({})
    assert "HF_TOKEN=" not in script({})
