from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autotune.export.compose import compose_files
from autotune.export.selection import select
from tests.support import histories as made

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def service_of(space: Mapping[str, object], node: int = 0) -> dict[str, Any]:
    selection = select(made.improved(space), number=None, force=False)
    found: dict[str, Any] = yaml.safe_load(compose_files(selection)[node].text)["services"]["sglang"]
    return found


@given(model=WORDS, value=WORDS, source=WORDS)
def test_compose_reads_back_every_word_with_its_dollars_doubled(model: str, value: str, source: str) -> None:
    space = {
        "model": model,
        "environment": {"NAME": value},
        "mounts": [{"source": source, "target": "/models"}],
    }
    service = service_of(space)
    command = service["command"]
    assert command[command.index("--model-path") + 1] == model.replace("$", "$$")
    assert f"NAME={value}".replace("$", "$$") in service["environment"]
    assert service["volumes"][0]["source"] == source.replace("$", "$$")


def test_every_word_of_the_command_is_a_string_for_any_reader_of_yaml() -> None:
    selection = select(made.improved({"model": "1e3"}), number=None, force=False)
    text = compose_files(selection)[0].text
    assert all(isinstance(word, str) for word in yaml.safe_load(text)["services"]["sglang"]["command"])
    assert "- '1e3'\n" in text


def test_the_gpus_of_the_node_are_reserved() -> None:
    (device,) = service_of({})["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 8, "capabilities": ["gpu"]}


def test_a_node_without_gpus_reserves_none() -> None:
    assert "deploy" not in service_of({"nodes": [{"name": "node0", "accelerator": "none"}]})


@pytest.mark.parametrize("memory", ["900g", "1073741824"])
def test_the_memory_limit_of_the_trial_is_kept_and_none_is_invented(memory: str) -> None:
    service = service_of({"container": {"memory": memory}})
    assert service["mem_limit"] == service["memswap_limit"] == memory
    assert not {"mem_limit", "memswap_limit"} & service_of({}).keys()


def test_secrets_are_named_and_never_written() -> None:
    assert service_of({})["environment"] == ["NCCL_DEBUG=INFO", "HF_TOKEN"]


def test_every_node_has_its_own_rank() -> None:
    for rank in (0, 1):
        command = service_of(made.TWO_NODES, rank)["command"]
        assert command[command.index("--node-rank") + 1] == str(rank)


def test_nothing_is_written_that_is_empty() -> None:
    service = service_of({"mounts": [], "environment": {}, "environment_from": []})
    assert not {"volumes", "environment", "devices", "group_add"} & service.keys()
