import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from autotune.engine.docker.container import container_plans
from autotune.engine.docker.node import create_settings
from autotune.engine.plan import LaunchPlan, plan_launch
from autotune.errors import ConfigError, InfrastructureError
from autotune.space import Candidate, SearchSpace

_GOLDEN = Path(__file__).parent / "golden"


def plan_of(**keys: object) -> LaunchPlan:
    space = SearchSpace.model_validate(
        {
            "version": "0.5.23",
            "model": "deepseek-ai/DeepSeek-R1",
            "image": "lmsysorg/sglang:v0.5.23",
            "nodes": [
                {"name": "node0", "docker": "ssh://tuner@10.0.0.10", "address": "10.0.0.10", "gpus": 8},
                {"name": "node1", "docker": "ssh://tuner@10.0.0.11", "address": "10.0.0.11", "gpus": 8},
            ],
            "environment": {"NCCL_SOCKET_IFNAME": "eth0"},
            "environment_from": ["SECRET_TOKEN"],
            "mounts": [{"source": "/data/models", "target": "/root/.cache/huggingface", "read_only": True}],
            "flags": {"tp-size": 16},
            "tune": {"chunked-prefill-size": {"int": [64, 8192]}},
            **keys,
        }
    )
    candidate = Candidate.of({"chunked-prefill-size": 2048})
    return plan_launch(space, candidate, study="r1-0a1b2c3d", trial="0007")


def settings_of(plan: LaunchPlan, rank: int) -> dict[str, Any]:
    """Return what Docker would be asked, without asking it."""
    client = docker.APIClient("unix:///nowhere", version="1.41")
    container = container_plans(plan, "here-0/1/2")[rank]
    settings = create_settings(client, container)
    client.close()
    return settings


def one_node(**keys: object) -> list[dict[str, object]]:
    return [{"name": "node0", "gpus": 8, **keys}]


@pytest.mark.parametrize(
    ("name", "keys", "rank"),
    [
        ("two-h100-nodes-rank1", {}, 1),
        ("chosen-gpus", {"nodes": one_node(gpu_ids=["4", "5"])}, 0),
        ("amd", {"nodes": one_node(accelerator="amd")}, 0),
        ("ascend", {"nodes": one_node(accelerator="ascend", gpus=2)}, 0),
        ("none", {"nodes": one_node(accelerator="none")}, 0),
        (
            "infiniband-host-ipc",
            {
                "nodes": one_node(),
                "container": {
                    "ipc": "host",
                    "devices": ["/dev/infiniband"],
                    "capabilities": ["IPC_LOCK"],
                    "memory": "512g",
                    "ulimits": {"memlock": -1},
                },
            },
            0,
        ),
    ],
)
def test_what_docker_is_asked_for(
    name: str, keys: dict[str, object], rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    asked = json.dumps(settings_of(plan_of(**keys), rank), indent=2, sort_keys=True) + "\n"
    assert asked == (_GOLDEN / f"{name}.json").read_text()


def test_a_container_is_never_restarted_nor_removed_by_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    host = settings_of(plan_of(), 0)["host_config"]
    assert not host.get("RestartPolicy")
    assert not host.get("AutoRemove")
    assert host["Init"] is True


def test_a_secret_is_read_when_a_container_is_made_and_stands_in_no_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    plan = plan_of()
    assert settings_of(plan, 0)["environment"]["SECRET_TOKEN"] == "s3cret"  # noqa: S105 - made up
    assert "s3cret" not in repr((plan, container_plans(plan, "c")))


def test_a_secret_that_is_not_set_is_named() -> None:
    with pytest.raises(InfrastructureError, match="SECRET_TOKEN is not set"):
        settings_of(plan_of(), 0)


def test_a_plan_without_an_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs an 'image'"):
        container_plans(replace(plan_of(), image=None), "c")


def test_a_plan_moved_to_other_ports_differs_in_nothing_else() -> None:
    plan = plan_of()
    moved = plan.meeting_at(20016)
    assert [" ".join(rank.argv).replace(":20016", ":20000") for rank in moved.ranks] == [
        " ".join(rank.argv) for rank in plan.ranks
    ]
    assert "10.0.0.10:20016" in moved.ranks[1].argv
    assert replace(moved, rendezvous_port=plan.rendezvous_port, ranks=plan.ranks) == plan
