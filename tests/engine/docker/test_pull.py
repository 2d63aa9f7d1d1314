"""Images that a node does not have yet, from a registry on that node."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.engine.docker.faults import NodeError
from autotune.engine.docker.launch import Pull
from autotune.engine.docker.node import DockerNode
from autotune.engine.docker.pull_log import PullLog
from autotune.engine.phase_budgets import PhaseBudget
from autotune.failure import FailureKind, StartPhase
from autotune.space import Node
from tests.support.docker_mishaps import children_of
from tests.support.docker_plans import client_of
from tests.testbed.bed import Bed

pytestmark = pytest.mark.docker

_PORT = 5055
_IMAGE = f"127.0.0.1:{_PORT}/tiny"
_PROGRAM = Path(__file__).parents[2] / "support/fake_registry.py"


@pytest.fixture
def digest(bed: Bed) -> Iterator[str]:
    """The digest of the one image of a registry that node a reaches."""
    argv = [*bed["a"].enter(), sys.executable, str(_PROGRAM), str(_PORT)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as registry:
        assert registry.stdout is not None
        yield registry.stdout.readline().strip()
        for pid in children_of(registry.pid) or [registry.pid]:
            os.kill(pid, signal.SIGKILL)
    client = client_of(bed["a"])
    client.remove_image(f"{_IMAGE}:1")
    client.close()


def test_a_pull_that_takes_longer_than_the_launches_before_allow_is_given_up(
    bed: Bed, digest: str, tmp_path: Path
) -> None:
    assert digest
    spent = PhaseBudget(StartPhase.IMAGE, limit_s=0.0, slowest_s=0.0, launches=3)
    follow = Pull("node-a", PullLog(tmp_path / "pull.log"), spent)
    with DockerNode(Node(name="node-a", docker=bed["a"].ssh)) as node:
        with pytest.raises(
            NodeError,
            match=r"no image .*tiny:1, and it cannot be pulled: .*0 s in phase image, which took 0 s",
        ) as caught:
            node.require_image(f"{_IMAGE}:1", pull=True, on_progress=follow)
        assert caught.value.kind is FailureKind.IMAGE_MISSING
        node.require_image(f"{_IMAGE}:1", pull=True)


def test_a_missing_image_is_pulled_with_its_steps_told_and_known_by_its_digest(
    bed: Bed, digest: str, tmp_path: Path
) -> None:
    log = tmp_path / "trial" / "pull-node-a.log"
    with DockerNode(Node(name="node-a", docker=bed["a"].ssh)) as node:
        assert node.image(f"{_IMAGE}:1") is None
        found = node.require_image(f"{_IMAGE}:1", pull=True, on_progress=PullLog(log))
        by_digest = node.require_image(f"{_IMAGE}@{digest}", pull=True, on_progress=PullLog(log))
        with pytest.raises(
            NodeError, match=r"no image .*tiny:2, and it cannot be pulled: .*unknown"
        ) as caught:
            node.require_image(f"{_IMAGE}:2", pull=True)
    assert (found.digest, by_digest.digest, by_digest.id) == (digest, digest, found.id)
    assert caught.value.kind is FailureKind.IMAGE_MISSING
    text = log.read_text()
    assert "Pulling fs layer" in text
    assert "Pull complete" in text
    assert f"Digest: {digest}" in text
