"""The main job over two Docker hosts: tune, export, and the export running there.

The engine is autotune's own simulator behind HTTP, one rank on each node, with a real rendezvous.
"""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from autotune.document import to_yaml
from autotune.record import Outcome
from autotune.search.ledger import read_history
from autotune.search.study_history import StudyHistory
from tests.support.docker_plans import PORT, Wish, space_of
from tests.support.docker_study import PROGRAM, SLO, environment, left_on, simulator_keys, tune_command
from tests.testbed.bed import Bed, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


class Study:
    """A study over both nodes in a folder of its own."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        self.folder = folder
        self.space = folder / "space.yaml"
        self.slo = folder / "slo.yaml"
        self.space.write_text(to_yaml(space_of(bed, wish=Wish(keys=simulator_keys()))))
        self.slo.write_text(SLO)

    def command(self, verb: str, *options: str) -> list[str]:
        return [*PROGRAM, verb, *options]

    def run(self, verb: str, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(verb, *options),
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    def tune(self, *options: str) -> list[str]:
        return tune_command(self.folder, *options)

    def history(self) -> StudyHistory:
        return read_history(self.folder / "runs/two-hosts")


@pytest.fixture
def study(bed: Bed, tmp_path: Path) -> Iterator[Study]:
    yield Study(bed, tmp_path)
    assert left_on(bed) == []


def test_a_study_over_two_hosts_ends_with_an_answer_and_leaves_nothing(bed: Bed, study: Study) -> None:
    checked = study.run("check", str(study.space), str(study.slo))
    assert checked.returncode == 0, checked.stdout
    done = subprocess.run(
        study.tune("--trials", "5"),
        cwd=study.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    history = study.history()
    launched = [trial.record for trial in history.trials if trial.record.durations_s]
    assert len(launched) >= 4
    assert any(record.outcome is Outcome.MEASURED for record in launched)
    assert all(record.effective.image_digest for record in launched if record.effective is not None)
    assert not any(record.is_simulated for record in launched)
    for number in range(2):
        log = history.folder / f"trials/0000/engine-rank{number}.log"
        assert "Init parallel ends" in log.read_text()
    assert left_on(bed) == []
    if shutil.which("docker-compose") is None:
        pytest.skip("the study is as it should be; without docker-compose its export cannot be brought up")
    exported = study.run("export", "two-hosts", "--to", "compose", "--out", "export")
    assert exported.returncode == 0, exported.stderr
    assert_serves(bed, study)


def assert_serves(bed: Bed, study: Study) -> None:
    """Bring the exported files up, one on each node, have them answer, and measure them."""
    folder = study.folder / "export"
    try:
        for name in "ab":
            compose(bed, name, folder, "up", "-d")
        body: dict[str, object] = {"input_ids": [1, 2, 3], "sampling_params": {"max_new_tokens": 4}}
        wait_until(lambda: is_answered(bed, body), "the exported engine serves", 60)
        url = f"http://{bed['a'].address}:{PORT}"
        lengths = ("--input-tokens", "64", "--output-tokens", "8")
        benched = study.run(
            "bench", url, "--concurrency", "1,4", "--requests", "12", *lengths, "--out", "bench"
        )
        assert benched.returncode == 0, benched.stdout + benched.stderr
    finally:
        for name in "ab":
            compose(bed, name, folder, "down", "-t", "1")


def is_answered(bed: Bed, body: dict[str, object]) -> bool:
    url = f"http://{bed['a'].address}:{PORT}/generate"
    try:
        answer = httpx.post(url, json=body, timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.is_success and answer.json()["meta_info"]["completion_tokens"] == 4


def compose(bed: Bed, name: str, folder: Path, *verb: str) -> None:
    file = folder / f"compose-node-{name}.yaml"
    command = ["docker-compose", "-H", bed[name].unix, "-p", "export", "-f", str(file), *verb]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_killed_study_goes_on_and_removes_exactly_its_own(bed: Bed, study: Study) -> None:
    with subprocess.Popen(
        study.tune("--trials", "3"),
        cwd=study.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as killed:
        assert killed.stdout is not None
        while not left_on(bed):
            assert killed.poll() is None, killed.stdout.read()
        killed.send_signal(signal.SIGKILL)
    assert left_on(bed)
    foreign = subprocess.run(
        ["docker", "-H", bed["b"].unix, "create", "--name", "foreign", "autotune-engine:1", "sleep", "9"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert foreign.stdout
    cleaned = study.run("clean", "two-hosts")
    assert cleaned.returncode == 0, cleaned.stderr
    assert "removed node-a: autotune-two-hosts-" in cleaned.stdout
    assert left_on(bed) == ["foreign"]
    resumed = subprocess.run(
        study.tune("--trials", "3"),
        cwd=study.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert study.history().running == 0
    assert left_on(bed) == ["foreign"]
    subprocess.run(["docker", "-H", bed["b"].unix, "rm", "foreign"], capture_output=True, check=True)
