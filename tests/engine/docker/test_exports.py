"""Exports run where they are to run, and verify.sh tells a service that keeps its SLO from one that does not.

The engine is autotune's own simulator behind HTTP, one rank on each node, with a real rendezvous.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from autotune.export.file import write_files
from autotune.export.targets import Target, export
from tests.support import histories as made
from tests.support.docker_plans import CONTAINER, PORT, strangers
from tests.testbed.bed import Bed, run, wait_until
from tests.testbed.image import IMAGE
from tests.testbed.slurm import Slurm, reason_against_slurm

pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]

_ROOT = Path(__file__).parents[3]
_PROGRAM = "from autotune.cli import main; main()"
_SIMULATOR = ["simulate-server", "llama-8b-1xh100", "--time-scale", "20", "--start-scale", "0.02"]
_QUICK = {
    "workload": {"input_tokens": 32, "output_tokens": 8, "seed": 7},
    "load": [{"concurrency": 4, "requests": 12}],
    "ceilings": ["ttft max < 60s at concurrency 4", "error_ratio < 0.1% at concurrency 4"],
    "objective": "maximise output_throughput at concurrency 4",
}
_STRICT = {**_QUICK, "ceilings": ["ttft max < 1us at concurrency 4"]}


class Export:
    """One study's winner, exported to a folder with an SLO that it keeps, and one that it cannot keep."""

    def __init__(self, bed: Bed, folder: Path, target: Target, **space: object) -> None:
        nodes = [
            {"name": f"node-{host.name}", "address": host.address, "docker": host.unix, "gpus": 0}
            for host in bed.hosts
        ]
        keys: dict[str, object] = {
            "model": "tiny", "image": IMAGE, "command": ["python3", "-c", _PROGRAM, *_SIMULATOR],
            "nodes": nodes, "port": PORT, "container": CONTAINER, "mounts": [], "environment": {},
            "environment_from": [], "flags": {"tp-size": 2}, **space,
        }  # fmt: skip
        self.bed, self.folder, self.slow = bed, folder / "kept", folder / "missed"
        for slo, place in ((_QUICK, self.folder), (_STRICT, self.slow)):
            files = export(made.improved(keys, slo), target, force=slo is _STRICT)
            write_files(files, place)
        program = folder / "bin/autotune"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\nPYTHONPATH={_ROOT} exec {sys.executable} -c '{_PROGRAM}' \"$@\"\n")
        program.chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}

    def assert_verified(self, run_with: Callable[..., list[str]] = lambda *argv: [*argv]) -> None:
        """verify.sh without a URL finds the service, keeps the one SLO and misses the other."""
        wait_until(self._is_ready, "the exported engine serves", 60)
        for folder, code, told in (
            (self.folder, 0, "concurrency 4"),
            (self.slow, 1, "ttft max < 1us: missed"),
        ):
            done = subprocess.run(
                run_with(str(folder / "verify.sh")),
                cwd=folder, env=self.environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == code, done.stdout + done.stderr
            assert told in done.stdout

    def _is_ready(self) -> bool:
        url = f"http://{self.bed['a'].address}:{PORT}/health_generate"
        try:
            return httpx.get(url, timeout=5, trust_env=False).is_success
        except httpx.HTTPError:
            return False


@pytest.fixture(autouse=True)
def nothing_is_left(bed: Bed) -> Iterator[None]:
    before = [strangers(host) for host in bed.hosts]
    yield
    assert [strangers(host) for host in bed.hosts] == before


def test_docker_run_scripts_serve_on_both_nodes(bed: Bed, tmp_path: Path) -> None:
    exported = Export(bed, tmp_path, Target.DOCKER)
    with ExitStack() as started:
        for host in bed.hosts:
            script = exported.folder / f"run-node-{host.name}.sh"
            name = run("env", f"DOCKER_HOST={host.unix}", str(script)).strip()
            started.callback(run, "docker", "-H", host.unix, "rm", "-f", name)
        exported.assert_verified()


def test_compose_files_serve_on_both_nodes(bed: Bed, tmp_path: Path) -> None:
    exported = Export(bed, tmp_path, Target.COMPOSE)
    with ExitStack() as started:
        for host in bed.hosts:
            file = str(exported.folder / f"compose-node-{host.name}.yaml")
            compose = ["docker-compose", "-H", host.unix, "-p", "export", "-f", file]
            started.callback(run, *compose, "down", "-t", "1")
            run(*compose, "up", "-d")
        exported.assert_verified()


@pytest.fixture
def slurm(bed: Bed) -> Iterator[Slurm]:
    reason = reason_against_slurm()
    if reason is not None:
        pytest.skip(f"no Slurm can be had on this machine: {reason}")
    cluster = Slurm(bed)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


def test_a_slurm_job_serves_on_both_nodes_and_leaves_nothing(bed: Bed, slurm: Slurm, tmp_path: Path) -> None:
    exported = Export(
        bed, tmp_path, Target.SLURM,
        image=None,
        command=[sys.executable, "-c", _PROGRAM, *_SIMULATOR],
        environment={"PYTHONPATH": str(_ROOT)},
        nodes=[{"name": f"n{rank}", "gpus": 8} for rank in range(2)],
        launcher="process",
    )  # fmt: skip
    exported.environment["SLURM_CONF"] = slurm.environment["SLURM_CONF"]
    sbatch = ["sbatch", "--parsable", f"--chdir={tmp_path}", str(exported.folder / "job.sbatch")]
    job = slurm.run(*sbatch)
    exported.assert_verified(slurm.knowing_names)
    assert slurm.run("squeue", "-h", "-j", job, "-o", "%T %D") == "RUNNING 2"
    slurm.run("scancel", job)
    wait_until(lambda: not slurm.run("squeue", "-h"), "the job has ended")
