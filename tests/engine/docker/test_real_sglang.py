"""The real SGLang as one engine over two Docker hosts, on CPUs: tuned by relaunching it, gone at the end.

The engine's environment (tests/real_engine/setup.sh) is mounted into a small image. What is hard about it is
real: the other rank answers health pages too, ignores SIGTERM, and ends only after rank 0.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.document import to_yaml
from autotune.failure import FailureKind, StartPhase
from autotune.record import Outcome, Role
from autotune.search.ledger import read_history
from autotune.search.study_history import StudyHistory
from autotune.space import SearchSpace
from tests.real_engine import cpu
from tests.support.docker_plans import processes_of, strangers
from tests.testbed.bed import Bed
from tests.testbed.machine_image import MACHINE_IMAGE, load_machine_image, mounts_of

pytestmark = [pytest.mark.docker, pytest.mark.engine, pytest.mark.timeout(900)]

_PROGRAM = Path(__file__).parents[2] / "real_engine"
_SLO = """
workload: {input_tokens: 96, output_tokens: 12, seed: 7}
load:
  - {concurrency: 8, requests: 16}
ceilings:
  - ttft mean < 60s at concurrency 8
objective: maximise output_throughput at concurrency 8
"""
_FOUND_BY = "8.8.8.8/32"  # SGLang learns its own address from its route there, to which it sends nothing


@pytest.fixture
def space(bed: Bed) -> Iterator[SearchSpace]:
    if not os.environ.get(cpu.FOLDER_VARIABLE):
        pytest.skip(f"{cpu.FOLDER_VARIABLE} is unset: run tests/real_engine/setup.sh DIR and set it to DIR")
    load_machine_image(bed)
    for host in bed.hosts:
        host.sh("ip", "route", "replace", _FOUND_BY, "dev", "eth0")
    yield space_over(bed)
    for host in bed.hosts:
        host.sh("ip", "route", "del", _FOUND_BY)


def space_over(bed: Bed) -> SearchSpace:
    prefix = subprocess.run(
        [cpu.python(), "-c", "import sys; print(sys.base_prefix)"], capture_output=True, text=True, check=True
    )
    mounts = mounts_of(cpu.folder(), _PROGRAM, Path(prefix.stdout.strip()))
    return SearchSpace.model_validate(
        {
            "version": "0.5.23",
            "model": str(cpu.folder() / "model"),
            "image": MACHINE_IMAGE,
            "command": [cpu.python(), str(_PROGRAM / "launch.py")],
            "nodes": [
                {"name": f"node-{host.name}", "address": host.address, "docker": host.ssh}
                for host in bed.hosts
            ],
            "mounts": mounts,
            "container": {"ulimits": {}, "shm_size": "256m", "pull": False},
            "environment": {"GLOO_SOCKET_IFNAME": "eth0", cpu.FOLDER_VARIABLE: str(cpu.folder())},
            "flags": {"tp-size": 2},
            "tune": {
                "max-running-requests": {"choices": [1, 8]},
                "mem-fraction-static": {"choices": [0.0001, 0.9]},
            },
            "require": ["max_running_requests == 1 or mem_fraction_static > 0.5"],
            # So small a share leaves no memory for the cache: the engine says so and what it would need. As
            # no baseline is measured then, fewer of these slow launches confirm the finalist.
            "baseline": {"max-running-requests": 1, "mem-fraction-static": 0.0001},
            "ready_timeout_s": 300,
        }
    )


def test_two_hosts_run_one_real_engine_per_trial_and_are_clean_in_the_end(
    bed: Bed, space: SearchSpace, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text(to_yaml(space))
    (tmp_path / "slo.yaml").write_text(_SLO)
    before = [strangers(host) for host in bed.hosts]
    program = "from autotune.cli import main; main()"
    done = subprocess.run(
        [
            sys.executable, "-c", program, "tune", str(tmp_path / "space.yaml"), str(tmp_path / "slo.yaml"),
            "--study", "real", "--runs", str(tmp_path), "--launcher", "docker",
            "--sampler", "random", "--trials", "2", "--finalists", "1",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert_launched_with_one_failure(read_history(tmp_path / "real"))
    assert [strangers(host) for host in bed.hosts] == before
    assert [processes_of(host, "sglang") for host in bed.hosts] == [[], []]


def assert_launched_with_one_failure(history: StudyHistory) -> None:
    launched = [trial.record for trial in history.trials if trial.record.is_launch]
    measured = [record for record in launched if record.outcome is Outcome.MEASURED]
    (failure,) = [record.failure for record in launched if record.failure is not None]

    assert len(launched) >= 4
    assert any(record.role is Role.CONFIRMATION for record in measured)
    assert (failure.kind, failure.phase) == (FailureKind.NO_KV_MEMORY, StartPhase.KV_POOL)
    assert failure.minimum_mem_fraction is not None
    for record in measured:
        assert record.effective is not None
        assert record.effective.flags["tp-size"] == 2
        assert record.effective.image_digest is not None
        assert set(record.start_phases_s) >= {"process", "rendezvous", "weights", "kv_pool", "warm_up"}
    number = next(each.number for each in history.trials if each.record is measured[0])
    for rank in range(2):
        text = (history.folder / f"trials/{number:04d}/engine-rank{rank}.log").read_text()
        assert f"TP{rank}] Load weight end" in text
