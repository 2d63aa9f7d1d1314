from typing import Any

import pytest

from autotune.errors import ConfigError
from autotune.space import SearchSpace
from autotune.study import read_study
from tests.support.trials import STUDY


def space_of(*nodes: dict[str, Any], **keys: Any) -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "version": "0.5.23",
            "model": "m",
            "image": "i",
            "nodes": list(nodes),
            "tune": {"chunked-prefill-size": {"int": [64, 8192]}},
            **keys,
        }
    )


def on(machine: str, *gpus: str, name: str | None = None, **keys: Any) -> dict[str, Any]:
    return {"name": name or machine, "docker": f"ssh://{machine}", "gpus": 8, "gpu_ids": gpus, **keys}


def test_nodes_are_dealt_into_slots_in_their_order() -> None:
    space = space_of(*map(on, "abcd"), nodes_per_engine=2)

    assert [[node.name for node in slot.nodes] for slot in space.slots] == [["a", "b"], ["c", "d"]]
    assert [node.name for node in space.nodes] == ["a", "b"]
    assert {slot.port for slot in space.slots} == {space.port}


def test_without_slots_one_engine_spans_all_nodes() -> None:
    space = space_of(*map(on, "abc"))

    assert space.slots == (space,)
    assert len(space.nodes) == 3


def test_slots_on_one_machine_have_ports_of_their_own() -> None:
    left, right, other = on("a", "0", name="left"), on("a", "1", name="right"), on("b", "0")
    slots = space_of(left, right, other, nodes_per_engine=1).slots

    assert [slot.port - slots[0].port for slot in slots] == [0, 1, 0]
    assert [slot.rendezvous_port - slots[0].rendezvous_port for slot in slots] == [0, 128, 0]


@pytest.mark.parametrize(
    ("nodes", "keys", "words"),
    [
        ([on("a"), on("b"), on("c")], {"nodes_per_engine": 2}, "3 nodes are no multiple of 2"),
        ([on("a", name="l"), on("a", "1", name="r")], {"nodes_per_engine": 1}, "one takes all its GPUs"),
        ([on("a", "1", name="l"), on("a", "1", name="r")], {"nodes_per_engine": 1}, "share GPU 1"),
        (
            [on("a", "0", name="l"), on("a", "1", name="r")],
            {"nodes_per_engine": 1, "container": {"ipc": "host"}},
            "would share /dev/shm",
        ),
        ([on("a")], {"nodes_per_engine": 0}, "greater than or equal to 1"),
    ],
)
def test_slots_that_cannot_be_are_refused(
    nodes: list[dict[str, Any]], keys: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        space_of(*nodes, **keys)


def test_computers_without_gpus_may_share_a_machine() -> None:
    nodes = [on("a", name=name, accelerator="none") for name in ("left", "right")]
    assert len(space_of(*nodes, nodes_per_engine=1).slots) == 2


def test_the_process_launcher_has_no_slots(tmp_path: Any) -> None:
    (tmp_path / "space.yaml").write_text(
        'version: "0.5.23"\nmodel: m\nlauncher: process\nnodes_per_engine: 1\n'
        "nodes: [{name: a, docker: 'ssh://a'}, {name: b, docker: 'ssh://b'}]\n"
        "tune: {chunked-prefill-size: {int: [64, 8192]}}\n"
    )
    (tmp_path / "slo.yaml").write_text(
        "workload: {input_tokens: 8, output_tokens: 8}\nload: [{concurrency: 4, requests: 40}]\n"
        "ceilings: [ttft p50 < 1s at concurrency 4]\nobjective: maximise output_throughput at concurrency 4\n"
    )
    with pytest.raises(ConfigError, match=r"space.yaml:4: nodes_per_engine: .*one engine at a time"):
        read_study(tmp_path / "space.yaml", tmp_path / "slo.yaml")


def test_a_study_without_slots_is_the_study_that_it_was_before_there_were_any() -> None:
    dumped = STUDY.space.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert "nodes_per_engine" not in dumped
    assert "all_nodes" not in dumped
