import pytest

from autotune.engine.sglang import SGLANG
from autotune.engine.sglang.validity import RULES
from autotune.space import Candidate, FlagValue, SearchSpace


def reason(
    flags: dict[str, FlagValue], *, nodes: int = 1, gpus: int = 0, version: str = "0.5.23"
) -> str | None:
    space = SearchSpace.model_validate(
        {
            "version": version,
            "model": "m",
            "nodes": [{"name": f"n{rank}", "gpus": gpus} for rank in range(nodes)],
            "tune": {"schedule-policy": {"choices": ["fcfs"]}},
        }
    )
    return SGLANG.invalid_reason(space, Candidate.of(flags))


_EAGLE: dict[str, FlagValue] = {"speculative-algorithm": "EAGLE"}
_TREE: dict[str, FlagValue] = {**_EAGLE, "speculative-num-steps": 3, "speculative-eagle-topk": 4}

BROKEN: list[tuple[dict[str, FlagValue], str]] = [
    ({"attn-dp-size": 2, "dp-size": 2, "tp-size": 2}, "cannot both be above 1"),
    ({"tp-size": 8, "attn-dp-size": 3}, "multiple of the attention groups"),
    ({"tp-size": 8, "dp-size": 3, "enable-dp-attention": True}, "multiple of the attention groups"),
    ({"tp-size": 8, "attn-dp-size": 2, "attn-cp-size": 8}, "attn-dp-size x attn-cp-size"),
    ({"enable-dp-lm-head": True}, "enable-dp-lm-head needs attention"),
    ({"tp-size": 8, "moe-dense-tp-size": 4}, "moe-dense-tp-size must be 1 or tp-size"),
    ({"tp-size": 8, "attn-dp-size": 8, "chunked-prefill-size": 4}, "leaves nothing"),
    ({"chunked-prefill-size": 1000, "page-size": 64}, "multiple of page-size"),
    ({"tp-size": 8, "attn-dp-size": 8, "chunked-prefill-size": 256, "page-size": 64}, "multiple of page"),
    ({"disable-cuda-graph-padding": True, "enable-torch-compile": True}, "exclude each other"),
    ({"pp-size": 2, "min-free-slots-delay": 2}, "min-free-slots-delay does not go with"),
    ({"pp-size": 2, "speculative-algorithm": "NGRAM"}, "does not go with pipeline stages"),
    ({**_EAGLE, "speculative-eagle-topk": 4}, "set speculative-num-steps"),
    ({**_TREE, "page-size": 64, "attention-backend": "flashmla"}, "needs flashinfer, fa3 or triton"),
    ({"tp-size": 2, "attn-dp-size": 2, "speculative-algorithm": "NGRAM"}, "STANDALONE and NGRAM"),
    ({"tp-size": 8, "ep-size": 4, "moe-runner-backend": "flashinfer_cutlass"}, "ep-size of 1 or tp-size"),
    ({"enable-two-batch-overlap": True}, "enable-two-batch-overlap without a moe-a2a-backend"),
    ({"enable-priority-scheduling": True, "schedule-policy": "lpm"}, "fcfs or lof"),
    ({"retraction-policy": "priority"}, "needs enable-priority-scheduling"),
    ({"schedule-policy": "priority"}, "stops the scheduler"),
    ({"schedule-policy": "shortest-prefill-first", "disable-radix-cache": True}, "needs the radix cache"),
    ({"enable-pdmux": True, "chunked-prefill-size": 8192}, "enable-pdmux needs"),
]


@pytest.mark.parametrize(("flags", "words"), BROKEN)
def test_a_combination_that_sglang_refuses_is_named_with_its_source(
    flags: dict[str, FlagValue], words: str
) -> None:
    found = reason(flags)
    assert found is not None
    assert words in found
    assert "srt/" in found


def test_every_rule_has_a_case() -> None:
    words = [words for _, words in BROKEN]
    elsewhere = ("more than the GPUs", "number of nodes", "cannot span nodes", "go with speculative decoding")
    for rule in RULES:
        assert any(word in rule.message for word in (*words, *elsewhere)), rule.message


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"tp-size": 16, "attn-dp-size": 8, "enable-dp-lm-head": True, "chunked-prefill-size": 8192},
        {"page-size": 64, "chunked-prefill-size": 4096},
        {"page-size": 64, "chunked-prefill-size": -1},
        {"page-size": 64},
        _EAGLE,
        _TREE,
        {**_TREE, "page-size": 64, "attention-backend": "fa3"},
        {**_TREE, "page-size": 64},
        {**_EAGLE, "speculative-adaptive": True, "speculative-eagle-topk": 1},
        {**_EAGLE, "enable-mixed-chunk": True},
        {"enable-priority-scheduling": True, "schedule-policy": "lof", "retraction-policy": "priority"},
        {"enable-two-batch-overlap": True, "moe-a2a-backend": "deepep"},
        {"tp-size": 8, "ep-size": 4, "moe-runner-backend": "flashinfer_cutlass", "moe-a2a-backend": "deepep"},
        {"enable-pdmux": True, "chunked-prefill-size": -1, "disable-overlap-schedule": True},
        {"schedule-policy": "shortest-prefill-first"},
        {"pp-size": 2, "speculative-algorithm": "EAGLE"},
    ],
)
def test_a_combination_that_sglang_takes_passes(flags: dict[str, FlagValue]) -> None:
    assert reason(flags) is None


def test_ranks_must_fill_the_nodes_evenly() -> None:
    assert "number of nodes" in str(reason({"tp-size": 9}, nodes=2))
    assert reason({"tp-size": 8, "pp-size": 2}, nodes=2) is None


def test_more_ranks_than_gpus_are_refused_where_gpus_are_known() -> None:
    assert "more than the GPUs" in str(reason({"tp-size": 16}, gpus=8))
    assert "more than the GPUs" in str(reason({"tp-size": 8, "dp-size": 2}, gpus=8))
    assert reason({"tp-size": 16}, gpus=8, nodes=2) is None
    assert reason({"tp-size": 16}, gpus=0) is None


def test_replicas_do_not_span_nodes_but_attention_groups_do() -> None:
    assert "cannot span nodes" in str(reason({"tp-size": 2, "dp-size": 2}, nodes=2))
    assert reason({"tp-size": 2, "dp-size": 2, "enable-dp-attention": True}, nodes=2) is None
    assert reason({"tp-size": 2, "attn-dp-size": 2}, nodes=2) is None


def test_speculation_excludes_more_in_the_older_version() -> None:
    mixed: dict[str, FlagValue] = {**_EAGLE, "enable-mixed-chunk": True}
    assert "go with speculative decoding" in str(reason(mixed, version="0.5.16"))
    staged: dict[str, FlagValue] = {**_EAGLE, "pp-size": 2}
    assert "pipeline stages" in str(reason(staged, version="0.5.16"))
    assert reason(staged, version="main") is None


def test_chosen_gpus_are_all_that_an_engine_has() -> None:
    node = {"name": "left", "gpus": 8, "gpu_ids": ["0", "1"]}
    keys = {
        "version": "0.5.23",
        "model": "m",
        "nodes": [node],
        "tune": {"schedule-policy": {"choices": ["lpm"]}},
    }
    space = SearchSpace.model_validate(keys)

    assert SGLANG.invalid_reason(space, Candidate.of({"tp-size": 2})) is None
    assert SGLANG.invalid_reason(space, Candidate.of({"tp-size": 4})) is not None
