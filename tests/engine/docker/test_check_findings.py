from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from autotune.engine.docker.check import (
    _clock_problems,
    _different_images,
    _different_models,
    _fact_problems,
    _Look,
    _missing_interfaces,
    _no_image,
    _problem_of,
    _question,
    _seen_problems,
)
from autotune.engine.docker.container import container_plans
from autotune.engine.docker.faults import NodeError, UnreachableError
from autotune.engine.docker.node import FoundImage
from autotune.engine.docker.survey import Survey
from autotune.engine.plan import LaunchPlan, plan_launch
from autotune.failure import FailureKind
from autotune.space import Candidate, Node, SearchSpace

FACTS: Mapping[str, Any] = {
    "interfaces": ["eth0", "lo"],
    "shm_bytes": 8 << 30,
    "folders": {"/models/m": {"a": 1}},
    "reached": {"10.0.0.10:20000": True},
}


def space_of(**keys: object) -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "version": "0.5.23",
            "model": "/models/m",
            "image": "sglang",
            "nodes": [
                {
                    "name": "node0",
                    "docker": "ssh://me@10.0.0.10/run/d.sock",
                    "address": "10.0.0.10",
                    "gpus": 2,
                },
                {"name": "node1", "docker": "tcp://10.0.0.11:2375", "address": "10.0.0.11", "gpus": 2},
            ],
            "flags": {"tp-size": 4},
            "tune": {"chunked-prefill-size": {"int": [64, 8192]}},
            **keys,
        }
    )


def plan_of(space: SearchSpace) -> LaunchPlan:
    return plan_launch(space, Candidate.of({}), study="s", trial="check")


def seen(node: str = "node0", facts: Mapping[str, Any] = {}, **changes: Any) -> Survey:
    clean: dict[str, Any] = {
        "held": {},
        "first_free": 20000,
        "gpus": {"count": 2},
        "segments": (),
        "leaked": (),
    }
    return Survey(node=node, facts={**FACTS, **facts}, **(clean | changes))


def told(space: SearchSpace, found: Survey, node: Node | None = None) -> list[str]:
    problems = _seen_problems(space, plan_of(space), node or space.nodes[0], found)
    return [str(problem) for problem in problems]


def test_a_good_node_has_no_problem() -> None:
    assert told(space_of(), seen()) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (seen(held={"30000": "pid 7 (nginx)"}), ["port 30000 is held by pid 7 (nginx)", "rendezvous_port"]),
        (
            seen(gpus={"count": 2, "above": {"1": 700}}),
            ["700 MiB of GPU 1", "an unknown process", "Stop what"],
        ),
        (
            seen(gpus={"unknown": "NVML: mismatch"}),
            ["driver does not answer: NVML: mismatch", "nvidia-smi works"],
        ),
        (seen(first_free=None), ["ports in a row are free from 20000 on"]),
        (seen(gpus={"count": 1}), ["1 GPUs instead of 2", "Correct 'gpus'"]),
        (seen(facts={"reached": {"10.0.0.10:20000": False}}), ["no way to 10.0.0.10:20000", "firewall"]),
        (seen(facts={"folders": {"/models/m": None}}), ["sees no files in /models/m", "Mount"]),
    ],
)
def test_each_finding_is_one_problem_with_a_remedy(found: Survey, words: list[str]) -> None:
    (text,) = told(space_of(), found)
    assert "node0: " in text
    assert [word for word in words if word not in text] == []


def test_chosen_gpus_that_are_not_all_there_are_counted() -> None:
    node = Node(name="node0", gpu_ids=("4", "5"))
    (text,) = told(space_of(), seen(gpus={"count": 1}), node)
    assert "1 GPUs instead of 2" in text


def test_one_node_needs_no_range_of_ports_to_meet_at() -> None:
    alone = space_of(nodes=[{"name": "node0", "gpus": 2}], flags={"tp-size": 2})
    assert told(alone, seen(first_free=None)) == []


@pytest.mark.parametrize(("mib", "count"), [(64, 1), (1024, 0)])
def test_the_hosts_shared_memory_matters_only_where_it_is_used(mib: int, count: int) -> None:
    facts = {**FACTS, "shm_bytes": mib << 20}
    host, private = space_of(container={"ipc": "host"}), space_of()
    assert len(list(_fact_problems(host, host.nodes[0], facts))) == count
    assert list(_fact_problems(private, private.nodes[0], facts)) == []


@pytest.mark.parametrize(
    ("wanted", "missing"),
    [
        ("", []),
        ("eth", []),
        ("eth0,ib0", ["ib0"]),
        ("=eth", ["eth"]),
        ("=eth0", []),
        ("^docker", []),
    ],
)
def test_interfaces_are_named_as_nccl_reads_them(wanted: str, missing: list[str]) -> None:
    assert _missing_interfaces(wanted, ["eth0", "lo"]) == missing
    space = space_of(environment={"NCCL_SOCKET_IFNAME": wanted})
    keys = [problem.key for problem in _fact_problems(space, space.nodes[0], FACTS)]
    assert keys == ["environment.NCCL_SOCKET_IFNAME"] * len(missing)


@pytest.mark.parametrize(("off_s", "count"), [(0.0, 0), (-30.0, 1), (30.0, 1)])
def test_a_clock_that_is_off_is_told(off_s: float, count: int) -> None:
    shown = datetime.now(UTC) + timedelta(seconds=off_s)
    stamp = f"{shown:%Y-%m-%dT%H:%M:%S}.{shown.microsecond:06d}123Z"  # nanoseconds, as Docker writes it
    now = datetime.now(UTC)
    problems = list(_clock_problems(Node(name="node0"), {"SystemTime": stamp}, now, now))
    assert len(problems) == count
    assert all(f"{off_s:+.0f}"[:2] in str(problem) for problem in problems)


def test_an_answer_that_took_long_is_no_skew() -> None:
    asked = datetime(2026, 11, 24, tzinfo=UTC)
    information = {"SystemTime": "2026-11-24T00:00:04.1Z"}
    answered = asked + timedelta(seconds=9)
    assert list(_clock_problems(Node(name="node0"), information, asked, answered)) == []


def test_the_remedy_for_a_node_out_of_reach_is_the_command_that_shows_why() -> None:
    first, second = space_of().nodes
    for node, remedy in (
        (first, "Try: ssh me@10.0.0.10 docker"),
        (second, "Try: docker -H tcp://10.0.0.11:2375"),
    ):
        assert remedy in str(_problem_of(node, UnreachableError(node.name, "silence", is_refused=False)))
    taken = NodeError("node0", "a name is taken", FailureKind.NAME_TAKEN)
    assert "autotune clean" in str(_problem_of(first, taken))
    assert _problem_of(first, NodeError("node0", "what nobody knows")).remedy is None
    assert "docker -H tcp://10.0.0.11:2375 pull sglang" in str(_no_image(second, "sglang"))


def test_only_the_other_ranks_dial_the_first_and_only_local_models_are_looked_for() -> None:
    space = space_of()
    first, second = (_question(space, plan_of(space), node) for node in space.nodes)
    assert (first.facts["peers"], second.facts["peers"]) == ([], ["10.0.0.10:20000"])
    assert first.facts["folders"] == ["/models/m"]
    assert first.ranges[0][0] == 20000
    remote = space_of(model="deepseek-ai/DeepSeek-R1")
    assert _question(remote, plan_of(remote), remote.nodes[0]).facts["folders"] == []


def test_nodes_with_different_images_or_models_are_told_and_alike_ones_are_not() -> None:
    space = space_of()
    plans = container_plans(plan_of(space), "here-0/1/2")
    one, other = FoundImage("id1", "sha256:1"), FoundImage("id2", "sha256:2")
    alike = [_Look((), one, seen("node0")), _Look((), one, seen("node1"))]
    unlike = [alike[0], _Look((), other, seen("node1", {"folders": {"/models/m": {"a": 2}}}))]
    unknown = [alike[0], _Look(())]

    for looks in (alike, unknown):
        assert list(_different_images(looks, plans)) == []
        assert list(_different_models(space, looks)) == []
    (image,), (model,) = list(_different_images(unlike, plans)), list(_different_models(space, unlike))
    assert "node1: its image sglang is another than that of node0" in str(image)
    assert "node1: /models/m holds other files than on node0" in str(model)
