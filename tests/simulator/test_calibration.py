import numpy as np
import pytest

from autotune.request import LoadResult, OfferedLoad, Request
from autotune.space import FlagValue
from tests.support.simulated import (
    DEEPSEEK,
    LLAMA,
    endpoint_of,
    equal_requests,
    percentile,
    profile_without_noise,
    run,
    scheduler_of,
    tokens_per_s,
    ttft_s,
)

# What a published benchmark of DeepSeek-R1 on 2x8 H100 with SGLang 0.4.3 said, and its flags' defaults then.
AS_PUBLISHED: dict[str, FlagValue] = {"mem-fraction-static": 0.79, "cuda-graph-max-bs-decode": 160}


def deepseek(requests: list[Request], concurrency: int) -> LoadResult:
    return run(profile_without_noise(DEEPSEEK), OfferedLoad(requests, concurrency), AS_PUBLISHED)


def uniform_requests(count: int, seed: int) -> list[Request]:
    sizes = np.random.default_rng(seed).integers(1, 1025, size=(count, 2)).tolist()
    return [Request(index, prompt, output) for index, (prompt, output) in enumerate(sizes)]


def test_the_published_pool_size_follows_from_the_published_fraction() -> None:
    assert scheduler_of(profile_without_noise(DEEPSEEK), AS_PUBLISHED).pool.capacity == 307_000


def test_the_published_single_stream_speed_is_met() -> None:
    (record,) = deepseek(equal_requests(1, 512, 256), 1).records
    gap_s = float(np.mean(np.diff(record.chunk_times_s)))
    assert 1 / gap_s == pytest.approx(31.5, rel=0.02)


@pytest.mark.parametrize(
    ("prompt", "published_s", "error"), [(8192, 2.94, 0.05), (16384, 5.11, 0.07), (32768, 11.78, 0.03)]
)
def test_the_published_first_token_times_are_met(prompt: int, published_s: float, error: float) -> None:
    (ttft,) = ttft_s(deepseek(equal_requests(1, prompt, 8), 1).records)
    assert ttft == pytest.approx(published_s, rel=error)


def test_a_cache_hit_takes_little_more_than_the_constant_of_a_request() -> None:
    records = deepseek(equal_requests(2, 1024, 8, groups=1, prefix_tokens=1000), 1).records
    assert ttft_s(records)[1] == pytest.approx(0.43, abs=0.01)


def test_the_published_maximum_throughput_is_met() -> None:
    records = deepseek(uniform_requests(1000, seed=1), 500).records
    assert tokens_per_s(records) == pytest.approx(1192, rel=0.03)


@pytest.mark.parametrize(("concurrency", "p95_s"), [(10, 1.8), (30, 4.7), (50, 7.4), (70, 9.5), (100, 13.1)])
def test_first_token_times_of_a_closed_loop_are_those_of_the_reference_model(
    concurrency: int, p95_s: float
) -> None:
    records = deepseek(uniform_requests(2 * concurrency, seed=1), concurrency).records
    assert percentile(ttft_s(records), 0.95) == pytest.approx(p95_s, rel=0.2)


@pytest.mark.parametrize(("burst", "p95_s"), [(30, 9.0), (40, 11.8), (50, 14.1)])
def test_first_token_times_of_a_burst_are_those_of_the_reference_model(burst: int, p95_s: float) -> None:
    records = deepseek(equal_requests(burst, 1024, 128), burst).records
    assert percentile(ttft_s(records), 0.95) == pytest.approx(p95_s, rel=0.02)


# Measured on one H100 80 GB with SGLang 0.5.16, an 8B model, closed loops of exact lengths. One row each:
# flags, concurrency, requests, prompt, output, tokens/s, TTFT p95 in s.
MEASURED: list[tuple[dict[str, FlagValue], int, int, int, int, float, float]] = [
    ({}, 16, 32, 1024, 256, 1822, 0.399),
    ({}, 50, 100, 1024, 256, 3510, 1.217),
    ({}, 128, 256, 1024, 256, 4568, 2.994),
    ({}, 256, 512, 1024, 256, 5408, 5.879),
    ({}, 32, 64, 8192, 128, 361, 8.297),
    ({}, 512, 512, 1024, 1024, 6629, 62.85),
    ({"chunked-prefill-size": 2048}, 50, 100, 1024, 256, 3482, 1.220),
    ({"chunked-prefill-size": 16384}, 128, 256, 1024, 256, 4587, 3.133),
    ({"chunked-prefill-size": 32768}, 128, 256, 1024, 256, 4265, 6.173),
    ({"max-running-requests": 16, "mem-fraction-static": 0.83}, 50, 100, 1024, 256, 1679, 6.765),
    ({"max-running-requests": 64, "mem-fraction-static": 0.83}, 128, 256, 1024, 256, 3786, 5.832),
    ({"mem-fraction-static": 0.96}, 50, 50, 1024, 256, 3480, 1.226),
    ({"max-total-tokens": 40000, "schedule-conservativeness": 0.3}, 50, 100, 1024, 256, 2400, 3.415),
    ({"chunked-prefill-size": 1024, "enable-mixed-chunk": True}, 32, 64, 8192, 128, 36.1, 85.1),
]


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: f"{row[0]} at {row[1]}, {row[3]}/{row[4]}")
def test_the_llama_profile_predicts_what_was_measured_within_six_per_cent(
    row: tuple[dict[str, FlagValue], int, int, int, int, float, float],
) -> None:
    flags, concurrency, count, prompt, output, measured_tps, measured_p95_s = row
    load = OfferedLoad(equal_requests(count, prompt, output), concurrency)
    records = run(profile_without_noise(LLAMA), load, flags).records
    assert tokens_per_s(records) == pytest.approx(measured_tps, rel=0.06)
    assert percentile(ttft_s(records), 0.95) == pytest.approx(measured_p95_s, rel=0.06)


def test_retractions_of_a_full_pool_are_about_as_many_as_measured() -> None:
    profile = profile_without_noise(LLAMA)
    scheduler = scheduler_of(profile)
    retracted: list[int] = []
    endpoint = endpoint_of(
        scheduler,
        profile,
        on_turn=lambda turn: retracted.extend(
            [1] * len(turn.retraction.sequences) if turn.retraction else []
        ),
    )
    endpoint.run(OfferedLoad(equal_requests(512, 1024, 1024), 512))
    assert len(retracted) == pytest.approx(36, abs=6)
