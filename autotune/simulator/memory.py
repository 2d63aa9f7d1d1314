"""SGLang's memory arithmetic: what it chooses when a flag is left out, and how many tokens its KV pool holds.

In: GPU memory, weights and flags. Out: sizes and fractions. Pure. Every formula names the file of SGLang
0.5.23 that it was read from. GPU memory is in MiB as nvidia-smi prints it, everything measured on the GPU
in GiB.
"""

import math

_BYTES_PER_GIB = 2**30


def default_chunked_prefill_tokens(gpu_memory_mib: float) -> int:
    """Return the chunk size SGLang picks for a card (srt/arg_groups/memory_hook.py)."""
    gpu_memory_gib = gpu_memory_mib / 1024
    for below_gib, tokens in ((20, 2048), (60, 4096), (160, 8192)):
        if gpu_memory_gib < below_gib:
            return tokens
    return 16384


def default_decode_graph_max_batch(gpu_memory_mib: float, tp: int) -> int:
    """Return the largest decode batch that gets a CUDA graph (srt/arg_groups/memory_hook.py)."""
    gpu_memory_gib = gpu_memory_mib / 1024
    for below_gib, few_ranks, many_ranks in ((20, 8, 8), (35, 48, 160), (60, 32, 160), (160, 256, 512)):
        if gpu_memory_gib < below_gib:
            return few_ranks if tp < 4 else many_ranks  # noqa: PLR2004 - SGLang's own threshold
    return 512


def decode_capture_sizes(largest: int) -> tuple[int, ...]:
    """Return the batch sizes captured for decoding, without speculation (decode_cuda_graph_runner.py)."""
    sizes = (1, 2, 4, 8, 12, *range(16, 257, 8), *range(272, 497, 16), *range(512, largest + 1, 32))
    kept = tuple(size for size in sizes if size <= largest)
    return kept if largest in kept or largest < 1 else (*kept, largest)


def prefill_capture_sizes(largest: int) -> tuple[int, ...]:
    """Return the token counts captured for prefill, up to `largest` (memory_hook.py, calculator B)."""
    sizes = (
        *range(4, 33, 4),
        *range(48, 257, 16),
        *range(288, 513, 32),
        *range(576, 1025, 64),
        *range(1280, 4097, 256),
        *range(4608, largest + 1, 512),
    )
    return tuple(size for size in sizes if size <= largest)


def automatic_mem_fraction(
    *,
    gpu_memory_mib: float,
    chunked_prefill_tokens: int,
    max_prefill_tokens: int,
    tp: int,
    pp: int,
    dp: int,
    decode_graph_max_batch: int,
    is_mla: bool,
) -> float:
    """Return the --mem-fraction-static that SGLang computes (memory_hook.py, calculator A).

    `chunked_prefill_tokens` is the value before its division by dp, 0 or less if chunking is off; `dp` counts
    attention-DP groups; `decode_graph_max_batch` 0 means that decode graphs are off. Can be negative.
    """
    chunk = chunked_prefill_tokens if chunked_prefill_tokens > 0 else max_prefill_tokens
    reserve_mib = 512 + 1.5 * max(chunk, 2048) + tp * pp / 8 * 1024 + 2 * decode_graph_max_batch
    if dp > 1:
        over_300 = 1.5 if decode_graph_max_batch > 300 else 0  # noqa: PLR2004 - SGLang's own threshold
        reserve_mib += (3 + over_300) * decode_graph_max_batch * dp
    reserve_mib += 1536 if is_mla else 8 * len(prefill_capture_sizes(chunk))
    if gpu_memory_mib > 60 * 1024:
        reserve_mib = max(reserve_mib, 10 * 1024)
    return round((gpu_memory_mib - reserve_mib) / gpu_memory_mib, 3)


def weights_gib(*, whole_gib: float, attention_gib: float, tp: int, pp: int, dp: int) -> float:
    """Return what the weights take of one card; attention DP keeps the attention's once in every group."""
    return (whole_gib + attention_gib * (dp - 1)) / (tp * pp)


def kv_pool_gib(*, free_gib: float, weights_gib: float, mem_fraction: float) -> float:
    """Return the GiB left for the KV pool, negative if the weights alone exceed the fraction.

    `free_gib` is what is free before the weights are loaded (srt/mem_cache/kv_cache_configurator.py).
    """
    return free_gib - weights_gib - free_gib * (1 - mem_fraction)


def kv_pool_tokens(pool_gib: float, cell_bytes: int, max_total_tokens: int | None, page: int) -> int:
    """Return the tokens the pool holds, whole pages; `max_total_tokens` only lowers it."""
    tokens = math.floor(max(pool_gib, 0.0) * _BYTES_PER_GIB / cell_bytes)
    tokens = tokens if max_total_tokens is None else min(tokens, max_total_tokens)
    return tokens // page * page


def minimum_mem_fraction(*, free_gib: float, weights_gib: float) -> float:
    """Return the fraction at which the pool is empty: `minimum viable` in SGLang's own message."""
    return weights_gib / free_gib


def running_limit(*, pool_tokens: int, context_tokens: int, max_running_requests: int | None, dp: int) -> int:
    """Return how many requests one DP rank runs at once (srt/mem_cache/kv_cache_configurator.py)."""
    if max_running_requests is not None:
        asked = max(1, max_running_requests // dp)
    else:
        asked = min(max(int(pool_tokens / context_tokens * 512), 2048), 4096)
    return max(1, min(asked, pool_tokens // 2))
