from pathlib import Path

import pytest

from autotune.engine.catalogue import FlagSpec
from autotune.engine.sglang import SGLANG
from autotune.simulator.arguments import BadArgumentError, parse_arguments, to_argv
from autotune.simulator.flags import parse_argv, resolve_flags
from autotune.simulator.profile import read_profile
from autotune.space import FlagValue
from tests.support.simulated import DEEPSEEK, LLAMA


def test_defaults_are_those_of_a_real_launch() -> None:
    flags = resolve_flags({}, read_profile(LLAMA))
    assert flags.chunk_tokens == 8192
    assert flags.mem_fraction == 0.83
    assert flags.decode_graph_max_batch == 256
    assert (flags.policy, flags.conservativeness, flags.radix_cache) == ("fcfs", 1.0, True)


@pytest.mark.parametrize(("chunk", "fraction"), [(512, 0.874), (2048, 0.874), (16384, 0.677), (32768, 0.373)])
def test_the_chunk_moves_the_automatic_fraction_as_it_did_on_an_h100(chunk: int, fraction: float) -> None:
    assert resolve_flags({"chunked-prefill-size": chunk}, read_profile(LLAMA)).mem_fraction == fraction


def test_an_argv_with_its_command_is_parsed_with_abbreviations_and_inert_flags() -> None:
    argv = ["python3", "-m", "sglang.launch_server", "--model", "m", "--tp", "16", "--trust-remote-code"]
    argv += ["--nnodes=2", "--node-rank", "1", "--dist-init-addr", "a:1", "--attention-backend", "fa3"]
    flags = parse_argv(argv, read_profile(DEEPSEEK))
    assert (flags.tp, flags.nodes, flags.node_rank, flags.rendezvous) == (16, 2, 1, "a:1")
    assert dict(flags.given)["trust-remote-code"] is True


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            {"schedule-policy": "nosuch"},
            "sglang serve: error: argument --schedule-policy: invalid choice: 'nosuch' (choose from",
        ),
        (
            {"chunked-prefill-size": "abc"},
            "sglang serve: error: argument --chunked-prefill-size: invalid int value: 'abc'",
        ),
        ({"no-such-flag": 1}, "sglang serve: error: unrecognized arguments: --no-such-flag 1"),
        (
            {"cuda-graph-max": 64},
            "sglang serve: error: ambiguous option: --cuda-graph-max could match",
        ),
    ],
)
def test_what_argparse_refuses_has_its_words_and_exit_code(flags: dict[str, FlagValue], line: str) -> None:
    with pytest.raises(BadArgumentError) as caught:
        resolve_flags(flags, read_profile(LLAMA))
    assert caught.value.line.startswith(line)
    assert caught.value.exit_code == 2
    assert caught.value.usage.startswith("usage: sglang serve")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"page-size": 16, "chunked-prefill-size": 100}, "divisible by page_size"),
        ({"tp-size": 3, "nnodes": 2, "dist-init-addr": "a:1"}, "divisible by number of nodes"),
        ({"schedule-conservativeness": -0.5}, "non-negative"),
        ({"tp-size": 4, "dp-size": 3, "enable-dp-attention": True}, "divisible by dp_size"),
        (
            {"tp-size": 4, "dp-size": 2, "nnodes": 2, "dist-init-addr": "a:1"},
            "multi-node data parallel is not supported",
        ),
        ({"schedule-policy": "shortest-prefill-first", "disable-radix-cache": True}, "radix cache"),
        ({"tp-size": 4, "nnodes": 2}, "--dist-init-addr"),
    ],
)
def test_what_validation_refuses_ends_with_exit_code_one(flags: dict[str, FlagValue], words: str) -> None:
    with pytest.raises(BadArgumentError, match=words) as caught:
        resolve_flags(flags, read_profile(LLAMA))
    assert caught.value.exit_code == 1


def test_dp_attention_scales_conservativeness_and_keeps_the_whole_chunk() -> None:
    flags = resolve_flags({"tp-size": 16, "dp-size": 8, "enable-dp-attention": True}, read_profile(DEEPSEEK))
    assert flags.dp == 8
    assert flags.conservativeness == pytest.approx(0.3)
    assert flags.chunk_tokens == 8192
    assert flags.mem_fraction == 0.561


def test_a_cache_aware_policy_is_fcfs_without_a_cache() -> None:
    flags = resolve_flags({"schedule-policy": "lpm", "disable-radix-cache": True}, read_profile(LLAMA))
    assert flags.policy == "fcfs"


@pytest.mark.parametrize(
    "flags",
    [
        {"disable-cuda-graph": True},
        {"disable-decode-cuda-graph": True},
        {"cuda-graph-backend-decode": "disabled"},
    ],
)
def test_decode_graphs_can_be_switched_off_in_three_ways(flags: dict[str, FlagValue]) -> None:
    assert resolve_flags(flags, read_profile(LLAMA)).decode_graph_max_batch == 0


def test_a_small_running_limit_lowers_the_graph_limit_that_nobody_set() -> None:
    profile = read_profile(LLAMA)
    assert resolve_flags({"max-running-requests": 16}, profile).decode_graph_max_batch == 16
    both: dict[str, FlagValue] = {"max-running-requests": 16, "cuda-graph-max-bs-decode": 64}
    assert resolve_flags(both, profile).decode_graph_max_batch == 64


def test_a_negative_chunk_switches_chunking_off() -> None:
    assert resolve_flags({"chunked-prefill-size": -1}, read_profile(LLAMA)).chunk_tokens is None


def test_a_config_file_gives_flags_and_the_command_line_wins(tmp_path: Path) -> None:
    config = tmp_path / "engine.yaml"
    config.write_text(
        "model-path: m\nchunked_prefill_size: 1024\nenable-mixed-chunk: true\n"
        "disable-radix-cache: false\nwarmups: null\ncuda-graph-bs-decode: [1, 2]\n"
    )
    flags = parse_argv(["--config", str(config), "--chunked-prefill-size", "512"], read_profile(LLAMA))
    assert (flags.model_path, flags.chunk_tokens, flags.mixed_chunk) == ("m", 512, True)
    assert flags.radix_cache
    assert dict(flags.given)["cuda-graph-bs-decode"] == (1, 2)


@pytest.mark.parametrize("text", [None, "- 1\n"])
def test_a_config_file_that_is_no_mapping_is_a_bad_argument(tmp_path: Path, text: str | None) -> None:
    config = tmp_path / "engine.yaml"
    if text is not None:
        config.write_text(text)
    with pytest.raises(BadArgumentError, match="ValueError"):
        parse_argv(["--config", str(config), "--model-path", "m"], read_profile(LLAMA))


def test_flags_become_words_as_a_shell_would_have_them() -> None:
    assert to_argv({"a": True, "b": False, "c": 1, "d": (1, 2), "e": "x"}) == [
        *("--a", "--c", "1"),
        *("--d", "1", "2", "--e", "x"),
    ]


def _words(spec: FlagSpec) -> list[list[str]]:
    """Every choice of a flag, or one value of its type."""
    if spec.type == "bool":
        return [[]]
    if spec.choices is not None:
        return [[str(choice)] for choice in spec.choices]
    return [["0.5" if "float" in (spec.type, spec.item) else "1"]]


@pytest.mark.parametrize("version", ["0.5.16", "0.5.23"])
def test_every_flag_of_every_catalogued_version_is_accepted_in_every_spelling(version: str) -> None:
    for name, spec in SGLANG.catalogue(version).flags.items():
        if name == "config":
            continue
        for spelling in (name, *spec.aliases):
            for words in _words(spec):
                assert parse_arguments(["--model-path", "m", f"--{spelling}", *words])
        if spec.negation is not None:
            assert parse_arguments(["--model-path", "m", f"--{spec.negation}"])[name] is False


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"cuda-graph-max-bs": 64}, {"cuda-graph-max-bs-decode": 64}),
        ({"stream-output": True}, {"incremental-streaming-output": True}),
        ({"disable-piecewise-cuda-graph": True}, {"cuda-graph-backend-prefill": "disabled"}),
        ({"fp8-gemm-backend": "triton"}, {"fp8-gemm-backend": "triton"}),
    ],
)
def test_a_deprecated_spelling_acts_as_what_replaced_it(
    old: dict[str, FlagValue], new: dict[str, FlagValue]
) -> None:
    profile = read_profile(LLAMA)

    assert resolve_flags(old, profile) == resolve_flags(new, profile)
