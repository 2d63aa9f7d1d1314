from dataclasses import dataclass

import pytest

from autotune.simulator.memory import (
    automatic_mem_fraction,
    decode_capture_sizes,
    default_chunked_prefill_tokens,
    default_decode_graph_max_batch,
    kv_pool_gib,
    kv_pool_tokens,
    minimum_mem_fraction,
    prefill_capture_sizes,
    running_limit,
)

H100_MIB = 81559


@dataclass(frozen=True)
class Launch:
    tp: int
    chunk: int = 8192
    dp: int = 1
    graph: int = 512
    is_mla: bool = True


FRACTIONS = {
    Launch(1, graph=256, is_mla=False): 0.830,
    Launch(2, graph=256, is_mla=False): 0.828,
    Launch(4, is_mla=False): 0.819,
    Launch(8, is_mla=False): 0.812,
    Launch(16, is_mla=False): 0.800,
    Launch(8, 2048, is_mla=False): 0.874,
    Launch(8, 16384, is_mla=False): 0.660,
    Launch(8, graph=64, is_mla=False): 0.823,
    Launch(8): 0.799,
    Launch(16, 2048): 0.874,
    Launch(16, 4096): 0.862,
    Launch(16): 0.787,
    Launch(16, 16384): 0.636,
    Launch(16, 32768): 0.335,
    Launch(16, graph=64): 0.798,
    Launch(16, dp=2): 0.730,
    Launch(16, dp=8): 0.561,
    Launch(16, dp=16): 0.335,
    Launch(16, dp=16, graph=128): 0.721,
    Launch(16, dp=16, graph=64): 0.760,
    Launch(8, dp=8): 0.573,
    Launch(8, dp=8, graph=128): 0.771,
}


@pytest.mark.parametrize("launch", FRACTIONS, ids=str)
def test_the_automatic_fraction_is_that_of_sglangs_formula(launch: Launch) -> None:
    fraction = automatic_mem_fraction(
        gpu_memory_mib=H100_MIB,
        chunked_prefill_tokens=launch.chunk,
        max_prefill_tokens=16384,
        tp=launch.tp,
        pp=1,
        dp=launch.dp,
        decode_graph_max_batch=launch.graph,
        is_mla=launch.is_mla,
    )
    assert fraction == FRACTIONS[launch]


def test_without_chunking_the_prefill_limit_sets_the_activation_reserve() -> None:
    def fraction(chunk: int, limit: int) -> float:
        return automatic_mem_fraction(
            gpu_memory_mib=H100_MIB,
            chunked_prefill_tokens=chunk,
            max_prefill_tokens=limit,
            tp=1,
            pp=1,
            dp=1,
            decode_graph_max_batch=256,
            is_mla=False,
        )

    assert fraction(-1, 16384) == fraction(16384, 8192)


@pytest.mark.parametrize(
    ("gib", "chunk", "graph_tp1", "graph_tp8"),
    [
        (16, 2048, 8, 8),
        (24, 4096, 48, 160),
        (48, 4096, 32, 160),
        (80, 8192, 256, 512),
        (141, 8192, 256, 512),
        (180, 16384, 512, 512),
    ],
)
def test_chunk_and_graph_defaults_follow_the_card(
    gib: int, chunk: int, graph_tp1: int, graph_tp8: int
) -> None:
    assert default_chunked_prefill_tokens(gib * 1024 - 100) == chunk
    assert default_decode_graph_max_batch(gib * 1024 - 100, 1) == graph_tp1
    assert default_decode_graph_max_batch(gib * 1024 - 100, 8) == graph_tp8


def test_capture_lists_have_the_lengths_that_were_measured() -> None:
    assert [len(decode_capture_sizes(largest)) for largest in (256, 512)] == [36, 52]
    assert [len(prefill_capture_sizes(largest)) for largest in (2048, 8192, 16384)] == [42, 58, 74]
    assert decode_capture_sizes(30) == (1, 2, 4, 8, 12, 16, 24, 30)
    assert decode_capture_sizes(0) == ()


@pytest.mark.parametrize(
    ("fraction", "tokens"),
    [(0.83, 410620), (0.874, 438941), (0.677, 312140), (0.373, 116468), (0.96, 494296), (0.2, 5115)],
)
def test_pool_sizes_of_six_real_launches_are_predicted_to_three_tokens(fraction: float, tokens: int) -> None:
    gib = kv_pool_gib(free_gib=78.572, weights_gib=15.0903, mem_fraction=fraction)
    assert kv_pool_tokens(gib, 131072, None, 1) == pytest.approx(tokens, abs=3)


def test_the_pool_is_whole_pages_and_a_limit_only_lowers_it() -> None:
    assert kv_pool_tokens(1.0, 2**20, None, 64) == 1024
    assert kv_pool_tokens(1.0, 2**20, 1000, 64) == 960
    assert kv_pool_tokens(1.0, 2**20, 10_000, 1) == 1024
    assert kv_pool_tokens(-1.0, 2**20, None, 1) == 0


def test_the_minimum_fraction_is_the_one_a_real_failed_launch_printed() -> None:
    assert round(minimum_mem_fraction(free_gib=78.572, weights_gib=15.0903), 4) == 0.1921


def test_the_running_limit_is_clamped_divided_and_bound_by_the_pool() -> None:
    def limit(asked: int | None, tokens: int = 400_000, dp: int = 1) -> int:
        return running_limit(pool_tokens=tokens, context_tokens=131072, max_running_requests=asked, dp=dp)

    assert limit(None) == 2048
    assert limit(None, tokens=2_000_000) == 4096
    assert limit(64, dp=16) == 4
    assert limit(4, dp=16) == 1
    assert limit(500, tokens=100) == 50
