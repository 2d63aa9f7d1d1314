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


def expected(
    flags: dict[str, FlagValue] | None = None, *, model: str = "llama", version: str = "0.5.23"
) -> dict[str, FlagValue]:
    space = SearchSpace.model_validate({"version": version, "model": model, "tune": _TUNE})
    return SGLANG.known_defaults(space, flags or {})


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
        ({"tp-size": 16}, 0.787),
        ({"tp-size": 16, "chunked-prefill-size": 32768}, 0.335),
        ({"tp-size": 16, "attn-dp-size": 16}, 0.335),
        ({"tp-size": 16, "dp-size": 16, "enable-dp-attention": True}, 0.335),
        ({"tp-size": 16, "attn-dp-size": 16, "cuda-graph-max-bs-decode": 128}, 0.721),
    ],
)
def test_the_memory_fraction_of_deepseek_follows_the_other_flags(
    flags: dict[str, FlagValue], fraction: float
) -> None:
    assert expected(flags, model="deepseek-ai/DeepSeek-R1")["mem-fraction-static"] == fraction


def test_without_decode_graphs_more_memory_is_left() -> None:
    with_graphs = expected()["mem-fraction-static"]
    assert isinstance(with_graphs, float)
    without: list[dict[str, FlagValue]] = [
        {"disable-cuda-graph": True},
        {"cuda-graph-backend-decode": "disabled"},
    ]
    for flags in without:
        fraction = expected(flags)["mem-fraction-static"]
        assert isinstance(fraction, float)
        assert fraction > with_graphs


def test_a_fraction_below_nothing_is_nothing() -> None:
    assert expected({"chunked-prefill-size": 200_000})["mem-fraction-static"] == 0.0


def test_the_newer_version_lowers_the_graph_limit_to_the_running_limit() -> None:
    assert expected({"max-running-requests": 64})["cuda-graph-max-bs-decode"] == 64
    assert expected({"max-running-requests": 64}, version="0.5.16")["cuda-graph-max-bs-decode"] == 256


def test_speculation_caps_the_running_requests() -> None:
    assert expected({"speculative-algorithm": "EAGLE"})["max-running-requests"] == 48


def test_attention_groups_each_have_their_own_running_limit() -> None:
    assert expected({"tp-size": 8, "attn-dp-size": 8})["max-running-requests"] == 8 * 2048


def test_what_is_set_is_not_a_default() -> None:
    assert "page-size" not in expected({"page-size": 64})
