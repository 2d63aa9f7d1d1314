"""Several engines at once over two Docker hosts: a slot a node, or two on one node by their GPUs."""

import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from autotune.document import to_yaml
from autotune.record import Outcome
from autotune.search.ledger import read_history
from autotune.search.study_history import StudyHistory
from autotune.space import SearchSpace
from tests.support.docker_plans import Wish, space_of
from tests.support.docker_study import PROGRAM, SLO, environment, left_on, simulator_keys, tune_command
from tests.testbed.bed import Bed, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@pytest.fixture
def folder(bed: Bed, tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "slo.yaml").write_text(SLO)
    yield tmp_path
    assert left_on(bed) == []


def slots_of(bed: Bed, nodes: list[dict[str, object]]) -> SearchSpace:
    keys = {**simulator_keys(), "flags": {"tp-size": 1}, "nodes": nodes, "nodes_per_engine": 1}
    return space_of(bed, wish=Wish(keys=keys))


def node_of(bed: Bed, name: str, **keys: object) -> dict[str, object]:
    return {"name": f"node-{name}", "address": bed[name].address, "docker": bed[name].ssh, **keys}


def begun(folder: Path, space: SearchSpace) -> "subprocess.Popen[str]":
    (folder / "space.yaml").write_text(to_yaml(space))
    return subprocess.Popen(
        tune_command(folder, "--trials", "6"),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(folder: Path, space: SearchSpace) -> StudyHistory:
    with begun(folder, space) as study:
        text, _ = study.communicate()
    assert study.returncode == 0, text
    return read_history(folder / "runs/two-hosts")


def overlaps(history: StudyHistory) -> bool:
    """Whether two launches ran at the same time."""
    launched = [trial.record for trial in history.trials if trial.record.durations_s]
    spans = sorted((each.began_s, each.began_s + each.duration_s) for each in launched)
    return any(later[0] < earlier[1] for earlier, later in pairwise(spans))


def test_each_node_runs_trials_of_its_own_at_the_same_time(bed: Bed, folder: Path) -> None:
    history = ended(folder, slots_of(bed, [node_of(bed, "a"), node_of(bed, "b")]))

    places = {trial.record.nodes for trial in history.trials if trial.record.durations_s}
    assert places == {("node-a",), ("node-b",)}
    assert overlaps(history)
    assert history.answer is not None


def test_two_slots_of_one_node_share_neither_gpus_nor_ports(bed: Bed, folder: Path) -> None:
    nodes = [
        {**node_of(bed, "a", gpus=1, gpu_ids=["0"]), "name": "left"},
        {**node_of(bed, "a", gpus=1, gpu_ids=["1"]), "name": "right"},
    ]
    history = ended(folder, slots_of(bed, nodes))

    assert overlaps(history)
    logs = [path.read_text() for path in history.folder.glob("trials/*/engine-rank0.log")]
    assert {port for log in logs for port in (30000, 30001) if f":{port} (Press" in log} == {30000, 30001}


def test_a_node_that_loses_power_is_left_and_the_study_goes_on_without_it(bed: Bed, folder: Path) -> None:
    space = slots_of(bed, [node_of(bed, "a"), node_of(bed, "b")])
    with begun(folder, space) as study:
        wait_until(lambda: any(name.endswith("node-b") for name in left_on(bed)), "an engine runs on b", 60)
        bed["b"].kill()
        began_s = time.monotonic()
        text, _ = study.communicate()
    bed["b"].up()
    history = read_history(folder / "runs/two-hosts")

    assert study.returncode == 0, text
    assert "node-b is not used any more" in text
    assert "node-b" in history.quarantine
    assert time.monotonic() - began_s < 200
    assert any(trial.record.outcome is Outcome.INTERRUPTED for trial in history.trials)
    assert {trial.record.nodes for trial in history.trials[-2:]} == {("node-a",)}
    cleaned = subprocess.run(
        [*PROGRAM, "clean", "two-hosts"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert cleaned.returncode == 0, cleaned.stderr
