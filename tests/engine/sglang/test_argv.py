import argparse
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.engine.plan import plan_launch
from autotune.engine.sglang import SGLANG
from autotune.errors import ConfigError
from autotune.space import Candidate, FlagValue, SearchSpace


def space(**keys: object) -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "version": "0.5.23",
            "model": "deepseek-ai/DeepSeek-R1",
            "tune": {"chunked-prefill-size": {"int": [1024, 32768]}},
            **keys,
        }
    )


def argv(of: SearchSpace, rank: int = 0, **flags: FlagValue) -> str:
    candidate = Candidate.of({name.replace("_", "-"): value for name, value in flags.items()})
    return " ".join(SGLANG.argv(of, candidate, rank=rank, port=30000, rendezvous_port=20000))


def test_one_node_in_a_container() -> None:
    of = space(flags={"trust-remote-code": True, "tp-size": 8})
    assert argv(of, chunked_prefill_size=4096, enable_mixed_chunk=False, mem_fraction_static=0.885) == (
        "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --host 0.0.0.0 --port 30000 "
        "--trust-remote-code --tp-size 8 --chunked-prefill-size 4096 --mem-fraction-static 0.885"
    )


def test_two_nodes_with_sixteen_ranks() -> None:
    of = space(
        nodes=[{"name": "a", "address": "10.0.0.10"}, {"name": "b", "address": "10.0.0.11"}],
        flags={"tp-size": 16},
    )
    for rank in (0, 1):
        assert argv(of, rank=rank, max_running_requests=64) == (
            "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --host 0.0.0.0 "
            f"--port 30000 --nnodes 2 --node-rank {rank} --dist-init-addr 10.0.0.10:20000 "
            "--tp-size 16 --max-running-requests 64"
        )


def test_attention_data_parallelism() -> None:
    of = space(flags={"tp-size": 16, "attn-dp-size": 8, "cuda-graph-bs-decode": [1, 2, 4, 8]})
    assert argv(of, enable_dp_lm_head=True).endswith(
        " --tp-size 16 --attn-dp-size 8 --cuda-graph-bs-decode 1 2 4 8 --enable-dp-lm-head"
    )


def test_ranks_that_share_a_machine_serve_on_ports_of_their_own() -> None:
    of = space(
        launcher="process",
        command=["/opt/engine", "serve"],
        nodes=[{"name": "a"}, {"name": "b", "address": "127.0.0.2"}],
    )
    assert argv(of, rank=1) == (
        "/opt/engine serve --model-path deepseek-ai/DeepSeek-R1 --host 127.0.0.2 --port 30001 "
        "--nnodes 2 --node-rank 1 --dist-init-addr 127.0.0.1:20000"
    )


def test_the_candidate_wins_over_a_fixed_flag() -> None:
    assert argv(space(flags={"page-size": 16}), page_size=64).endswith(" --page-size 64")


def test_a_flag_that_is_on_by_default_is_switched_off_by_its_negation() -> None:
    assert argv(space(), dllm_fdfo=False).endswith(" --no-dllm-fdfo")
    assert argv(space(), dllm_fdfo=True).endswith(" --dllm-fdfo")


def test_a_flag_that_is_on_by_default_without_a_negation_cannot_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flags = {"always": {"type": "bool", "default": True}}
    catalogue = {"engine": "sglang", "version": "0.9.0", "source": "test", "flags": flags}
    (tmp_path / "sglang-0.9.0.json").write_text(json.dumps(catalogue))
    monkeypatch.setenv("AUTOTUNE_CATALOGUES", str(tmp_path))
    with pytest.raises(ConfigError, match="no flag to switch it off"):
        argv(space(version="0.9.0"), always=False)


def test_a_value_that_looks_like_a_flag_stays_a_value() -> None:
    assert argv(space(), served_model_name="-x").endswith(" --served-model-name=-x")
    assert argv(space(), chunked_prefill_size=-1).endswith(" --chunked-prefill-size -1")


def test_the_plan_carries_the_argv_of_every_rank() -> None:
    plan = plan_launch(space(), Candidate.of({"page-size": 2}), study="s", trial="1", port=31000)
    assert plan.ranks[0].argv[-6:] == ("--host", "0.0.0.0", "--port", "31000", "--page-size", "2")  # noqa: S104 - text


_VALUES = st.one_of(
    st.integers(-1, 10**6),
    st.floats(0, 1),
    st.text("abc-=._ ", min_size=1).filter(lambda text: text != "--"),
)


@given(st.dictionaries(st.sampled_from(["page-size", "mem-fraction-static", "model-impl"]), _VALUES))
def test_argparse_reads_back_what_was_rendered(flags: dict[str, FlagValue]) -> None:
    words = SGLANG.argv(space(), Candidate.of(flags), rank=0, port=30000, rendezvous_port=20000)
    parser = argparse.ArgumentParser()
    for name in ("model-path", "host", "port", *flags):
        parser.add_argument(f"--{name}")
    read = parser.parse_args(words[3:])
    assert {name: vars(read)[name.replace("-", "_")] for name in flags} == {
        name: str(value) for name, value in flags.items()
    }
