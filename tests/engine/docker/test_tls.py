"""Docker engines that speak TLS and want to know who asks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.engine.docker.connection import Connection
from autotune.engine.docker.faults import UnreachableError
from autotune.engine.docker.launcher import DockerLauncher
from autotune.engine.plan import LaunchPlan, plan_launch
from autotune.space import Candidate, Node
from tests.engine.launcher_contract import Phases
from tests.support.docker_plans import SHORT, Wish, containers_on, space_of
from tests.testbed.bed import Bed
from tests.testbed.certificates import dockerd_options, make_certificates

pytestmark = pytest.mark.docker


@pytest.fixture
def certificates(bed: Bed, tmp_path: Path) -> Iterator[Path]:
    """The folder of a client that the engine on node a trusts."""
    folder = tmp_path / "tls"
    make_certificates(folder, bed["a"].address)
    bed["a"].kill_dockerd()
    bed["a"].start_dockerd(*dockerd_options(folder))
    yield folder
    bed["a"].kill_dockerd()
    bed["a"].start_dockerd()


def plan_with(bed: Bed, certificates: Path | None) -> LaunchPlan:
    space = space_of(bed, wish=Wish(transport="tcp", names="a"))
    shown = None if certificates is None else str(certificates)
    node = space.nodes[0].model_copy(update={"certificates": shown})
    space = space.model_copy(update={"all_nodes": (node,)})
    return plan_launch(space, Candidate.of({}), study="tls", trial="0000")


def why_not(node: Node) -> str:
    with pytest.raises(UnreachableError) as caught:
        Connection(node).__enter__()
    return str(caught.value)


def test_an_engine_behind_tls_is_used_with_certificates_and_refused_without(
    bed: Bed, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle")  # has no say
    plan = plan_with(bed, certificates)
    with DockerLauncher([plan.ranks[0].node], SHORT).launch(plan, tmp_path / "log", Phases()) as engine:
        assert engine.failure() is None
    assert containers_on(bed["a"], "tls") == []

    assert "give 'certificates'" in why_not(plan_with(bed, None).ranks[0].node)
    make_certificates(tmp_path / "other", bed["a"].address)
    stranger = why_not(plan_with(bed, tmp_path / "other").ranks[0].node)
    assert "is not signed by ca.pem" in stranger
