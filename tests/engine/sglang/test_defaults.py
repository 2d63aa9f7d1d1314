import pytest

from autotune.engine.sglang import SGLANG
from autotune.space import FlagValue, SearchSpace

_TUNE = {
    "chunked-prefill-size": {"int": [1024, 32768]},
    "mem-fraction-static": {"float": [0.3, 0.92]},
    "max-running-requests": {"int": [16, 4096]},
    "cuda-graph-max-bs-decode": {"int": [8, 512]},
    "cuda-graph-max-bs-prefill": {"int": [8, 8192]},
    "schedule-policy": {"choices": ["fcfs", "lpm"]},
    "schedule-conservativeness": {"float": [0.3, 1.3]},
    "enable-mixed-chunk": {"choices": [False, True]},
    "page-size": {"choices": [1, 64]},
    "attention-backend": {"choices": ["fa3", "triton"]},
}


def expected(model: str = "llama", version: str = "0.5.23", **flags: FlagValue) -> dict[str, FlagValue]:
    space = SearchSpace.model_validate({"version": version, "model": model, "tune": _TUNE})
    return SGLANG.known_defaults(space, {name.replace("_", "-"): value for name, value in flags.items()})


def test_an_h100_gets_what_sglang_chooses_for_it() -> None:
    assert expected() == {
        "chunked-prefill-size": 8192,
        "mem-fraction-static": 0.83,
        "max-running-requests": 2048,
        "cuda-graph-max-bs-decode": 256,
        "cuda-graph-max-bs-prefill": 8192,
        "schedule-policy": "fcfs",
        "schedule-conservativeness": 1.0,
        "enable-mixed-chunk": False,
        "page-size": 1,
    }


@pytest.mark.parametrize(
    ("flags", "fraction"),
    [
        ({"tp_size": 16}, 0.787),
        ({"tp_size": 16, "chunked_prefill_size": 32768}, 0.335),
        ({"tp_size": 16, "attn_dp_size": 16}, 0.335),
        ({"tp_size": 16, "dp_size": 16, "enable_dp_attention": True}, 0.335),
        ({"tp_size": 16, "attn_dp_size": 16, "cuda_graph_max_bs_decode": 128}, 0.721),
    ],
)
def test_the_memory_fraction_of_deepseek_follows_the_other_flags(
    flags: dict[str, FlagValue], fraction: float
) -> None:
    assert expected("deepseek-ai/DeepSeek-R1", **flags)["mem-fraction-static"] == fraction


def test_without_decode_graphs_more_memory_is_left() -> None:
    with_graphs = expected()["mem-fraction-static"]
    assert isinstance(with_graphs, float)
    for flags in ({"disable_cuda_graph": True}, {"cuda_graph_backend_decode": "disabled"}):
        fraction = expected(**flags)["mem-fraction-static"]  # type: ignore[arg-type] # a literal of two kinds
        assert isinstance(fraction, float)
        assert fraction > with_graphs


def test_a_fraction_below_nothing_is_nothing() -> None:
    assert expected(chunked_prefill_size=200_000)["mem-fraction-static"] == 0.0


def test_the_newer_version_lowers_the_graph_limit_to_the_running_limit() -> None:
    assert expected(max_running_requests=64)["cuda-graph-max-bs-decode"] == 64
    assert expected(version="0.5.16", max_running_requests=64)["cuda-graph-max-bs-decode"] == 256


def test_speculation_caps_the_running_requests() -> None:
    assert expected(speculative_algorithm="EAGLE")["max-running-requests"] == 48


def test_attention_groups_each_have_their_own_running_limit() -> None:
    assert expected(tp_size=8, attn_dp_size=8)["max-running-requests"] == 8 * 2048


def test_what_is_set_is_not_a_default() -> None:
    assert "page-size" not in expected(page_size=64)
