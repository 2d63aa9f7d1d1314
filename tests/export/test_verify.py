import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autotune.document import read_document
from autotune.export.file import write_files
from autotune.export.selection import Selection, select
from autotune.export.targets import Target, export
from autotune.export.verify import kubernetes_url, launched_url, slurm_url, verify_files
from autotune.slo import Slo
from tests.support import histories as made
from tests.support.ports import free_port
from tests.support.simulated_server import simulated_server

PROGRAM = "from autotune.cli import main; main()"
PATIENCE_S = 60.0
WORDS = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]))
QUICK = {
    "workload": {"input_tokens": 32, "output_tokens": 8, "seed": 7},
    "load": [{"concurrency": 4, "requests": 12}],
    "ceilings": ["ttft max < 60s at concurrency 4", "error_ratio < 0.1% at concurrency 4"],
    "objective": "maximise output_throughput at concurrency 4",
}
STRICT = {**QUICK, "ceilings": ["ttft max < 1us at concurrency 4"]}


def selected(**space: object) -> Selection:
    return select(made.improved(space), number=None, force=False)


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with simulated_server() as url:
        yield url


def verified(folder: Path, *words: str, autotune: str) -> "subprocess.CompletedProcess[str]":
    """Run verify.sh as a user would, from another folder, with this program as `autotune`."""
    program = folder / "bin" / "autotune"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{autotune}\n", encoding="utf-8")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    return subprocess.run(
        [str(folder / "verify.sh"), *words],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


OURS = f"PYTHONPATH={Path(__file__).parents[2]} exec {sys.executable} -c '{PROGRAM}' \"$@\""
SHOW = 'printf "%s\\0" "$@"'


@pytest.mark.slow
def test_a_service_that_keeps_its_slo_passes_and_one_that_does_not_fails(
    tmp_path: Path, service: str
) -> None:
    history = made.improved()
    for slo, code, told in ((QUICK, 0, "concurrency 4"), (STRICT, 1, "ttft max < 1us: missed")):
        study = history.study.model_copy(update={"slo": Slo.model_validate(slo)})
        selection = Selection(
            made.history(study, *history.trials, answer=history.answer), history.trials[2], None
        )
        write_files(verify_files(selection, *launched_url(selection)), tmp_path)
        done = verified(tmp_path, service, "--out", str(tmp_path / "out"), autotune=OURS)
        assert done.returncode == code, done.stdout + done.stderr
        assert told in done.stdout
        assert (tmp_path / "out" / "bench.json").exists()


@pytest.mark.slow
def test_a_service_that_is_not_there_is_neither_kept_nor_missed(tmp_path: Path) -> None:
    selection = selected()
    write_files(verify_files(selection, *launched_url(selection)), tmp_path)
    done = verified(tmp_path, f"http://127.0.0.1:{free_port()}", autotune=OURS)
    assert done.returncode == 3, done.stdout + done.stderr


@given(address=WORDS)
def test_the_url_is_one_word_whatever_the_address_is(address: str) -> None:
    selection = selected(nodes=[{"name": "node0", "address": address}])
    url, _ = launched_url(selection)
    assert shlex.split(url) == [f"http://{address}:30000"]


def test_the_script_hands_over_the_url_the_slo_beside_it_and_every_option(tmp_path: Path) -> None:
    write_files(
        export(made.improved({"nodes": [{"name": "n", "address": "it's $x"}]}), Target.DOCKER), tmp_path
    )
    slo = str(tmp_path / "slo.yaml")
    done = verified(tmp_path, autotune=SHOW)
    assert done.stdout.split("\0")[:-1] == ["bench", "http://it's $x:30000", "--slo", slo]
    done = verified(tmp_path, "http://h", "--model", "a b", autotune=SHOW)
    assert done.stdout.split("\0")[:-1] == ["bench", "http://h", "--slo", slo, "--model", "a b"]


def test_a_slurm_service_is_looked_up_where_it_runs(tmp_path: Path) -> None:
    write_files(export(made.improved(), Target.SLURM), tmp_path)
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(
        '#!/bin/sh\n[ "$2" = --name=sglang-r1 ] && printf "gpu07\\ngpu03\\n"\n', encoding="utf-8"
    )
    squeue.chmod(0o755)
    assert verified(tmp_path, autotune=SHOW).stdout.split("\0")[1] == "http://gpu07:30000"
    assert slurm_url(selected())[0].startswith('"http://$(squeue --me --name=sglang-r1 ')


def test_a_kubernetes_service_is_called_by_its_service() -> None:
    assert kubernetes_url(selected())[0] == "http://sglang-r1:30000"
    group = select(made.improved(made.TWO_NODES), number=None, force=False)
    assert kubernetes_url(group)[0] == "http://sglang-r1-leader:30000"


@pytest.mark.parametrize("target", Target)
def test_every_target_brings_the_very_slo_that_was_tuned_for(target: Target, tmp_path: Path) -> None:
    history = made.improved()
    write_files(export(history, target), tmp_path)
    assert read_document(tmp_path / "slo.yaml").to_model(Slo) == history.study.slo
    assert (tmp_path / "verify.sh").stat().st_mode & 0o111


def test_files_that_the_slo_names_are_told_with_their_hash() -> None:
    history = made.improved()
    study = history.study.model_copy(update={"inputs_sha256": {"dataset": "0a" * 32}})
    told = made.history(study, *history.trials, answer=history.answer)
    slo = next(file for file in export(told, Target.JSON) if file.name == "slo.yaml")
    assert f"# The dataset must be where this file says; its SHA-256 is {'0a' * 32}.\n" in slo.text
    assert yaml.safe_load(slo.text)["load"][0] == {"concurrency": 50, "requests": 300}
