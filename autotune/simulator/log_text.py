"""The lines that SGLang 0.5.23 writes, as far as the simulator has something to say in them. Pure.

In: numbers. Out: text without the time prefix; a traceback is one text of several lines. Sources: real logs
of 0.5.16 on an H100 and of 0.5.23 on a CPU.
"""

import math
from collections.abc import Sequence as Sequence_

from autotune.simulator.turn import Retraction, Turn

NOTICE = "SIMULATED ENGINE: no GPU is involved; every number here comes from autotune's model"
FIRED_UP = "The server is fired up and ready to roll!"
RENDEZVOUS_BEGIN = "Init parallel begin."
CHILD_FAILED = "Received sigquit from a child process. It usually means the child failed."
MODEL_HINT = "Possible solutions:\n1. set --mem-fraction-static to a smaller value (e.g., 0.8 or 0.7)\n"


def rendezvous_end(seconds: float) -> str:
    """Say that all ranks have met."""
    return f"Init parallel ends. elapsed={seconds:.2f} s"


def weights_begin(free_gib: float) -> str:
    """Say what is free before the weights are read."""
    return f"Load weight begin. avail mem={free_gib:.2f} GB"


def weights_end(seconds: float, free_gib: float, weights_gib: float) -> str:
    """Say what the weights took."""
    return (
        f"Load weight end. elapsed={seconds:.2f} s, type=Simulated, "
        f"avail mem={free_gib - weights_gib:.2f} GB, mem usage={weights_gib:.2f} GB."
    )


def pool_allocated(tokens: int, pool_gib: float, *, is_mla: bool) -> str:
    """Say how large the KV pool is."""
    half = pool_gib / 2
    size = f"KV size: {pool_gib:.2f} GB" if is_mla else f"K size: {half:.2f} GB, V size: {half:.2f} GB"
    return f"KV Cache is allocated. dtype: torch.bfloat16, #tokens: {tokens}, {size}"


def pool_end(available_gib: float) -> str:
    """Say what is left after the pools."""
    return f"Memory pool end. avail mem={available_gib:.2f} GB"


def no_prefill_graphs(available_gib: float) -> str:
    """Say that prefill graphs were left out for want of memory."""
    return (
        f"Disabling auto-selected prefill CUDA graph: only {available_gib:.2f} GiB is free after "
        "model/KV/eager-buffer allocation; at least 4.00 GiB is required for capture. Set an explicit "
        "prefill CUDA graph backend to override this safety gate."
    )


def capture_begin(kind: str, sizes: Sequence_[int], available_gib: float) -> str:
    """Say which graphs are captured; `kind` is prefill or decode."""
    what = "backend=breakable, num_tokens" if kind == "prefill" else "backend=full, num_tokens_per_req=1, bs"
    return f"Capture target {kind} CUDA graph begin. {what}={list(sizes)}, avail mem={available_gib:.2f} GB"


def capacity(
    *, tokens: int, chunk: int, max_prefill: int, running_limit: int, context: int, available_gib: float
) -> str:
    """Say what the scheduler works with: the line that tuners read."""
    return (
        f"max_total_num_tokens={tokens}, chunked_prefill_size={chunk}, max_prefill_tokens={max_prefill}, "
        f"max_running_requests={running_limit}, context_len={context}, "
        f"available_gpu_mem={available_gib:.2f} GB"
    )


def small_pool(tokens: int, context: int) -> str:
    """Warn that no request of full length fits."""
    return (
        f"KV pool holds {tokens} tokens, fewer than --context-length {context}. One full-length request "
        "cannot fit, so long requests will be refused or truncated at serving time. Lower "
        "--context-length, raise --mem-fraction-static, or free memory taken before the pool is sized."
    )


def no_kv_memory(mem_fraction: float, minimum: float) -> str:
    """Say that the weights fill the fraction, and what the least fraction would be."""
    return (
        f"ValueError: Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static="
        f"{mem_fraction:g}. Raise --mem-fraction-static above {math.ceil(minimum * 1000) / 1000:g} (minimum "
        f"viable = 1 - available/pre = {minimum:.4f}). If using speculative decoding, draft weights are now "
        "counted."
    )


def not_enough_memory(mem_fraction: float) -> str:
    """Say that the pool would be empty."""
    return (
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. "
        f"Current value: mem_fraction_static={mem_fraction:g}"
    )


def out_of_memory(wanted_gib: float, total_gib: float, free_gib: float) -> str:
    """Say, in torch's words, what could not be allocated."""
    return (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {wanted_gib:.2f} GiB. GPU 0 has a "
        f"total capacity of {total_gib:.2f} GiB of which {max(free_gib, 0.0) * 1024:.2f} MiB is free."
    )


def capture_failed(reason: str) -> str:
    """Say that graph capture ran out of memory."""
    return (
        f"Exception: Capture cuda graph failed: {reason.partition(': ')[2]}\n{MODEL_HINT}"
        "2. set --cuda-graph-max-bs-decode to a smaller value (e.g., 16)\n"
        "3. disable CUDA graph by --disable-cuda-graph. (Not recommended. Huge performance loss)"
    )


def scheduler_exception(line: str) -> str:
    """Wrap an exception's line as the scheduler logs it; the frames in between are left out."""
    return f"Scheduler hit an exception: Traceback (most recent call last):\n  (simulated: no frames)\n{line}"


def tree_killed(pid: int) -> str:
    """Say that the server ends its processes."""
    return f"kill_process_tree called: parent_pid={pid}, include_parent=True, pid={pid}"


def http_up(host: str, port: int) -> str:
    """Say, in uvicorn's words, that HTTP is served."""
    return f"INFO:     Uvicorn running on http://{host}:{port} (Press CTRL+C to quit)"


def port_in_use(host: str, port: int, error: OSError) -> str:
    """Say, in asyncio's words, that the HTTP port cannot be had."""
    reason = (error.strerror or str(error)).lower()
    where = f"({host!r}, {port})"
    return f"ERROR:    [Errno {error.errno}] error while attempting to bind on address {where}: {reason}"


def dummy_server(host: str, port: int) -> str:
    """Say that a rank above 0 answers health checks."""
    return f"Dummy health check server started in background thread at {host}:{port}"


def sigterm_ignored(node_rank: int) -> str:
    """Say that a rank above 0 stops only with rank 0."""
    return (
        f"SIGTERM received on node_rank {node_rank}; waiting for the rank-0 ShutdownReq broadcast to stop "
        "the schedulers."
    )


def prefill_batch(turn: Turn, *, used: int, capacity: int, running: int, queued: int, pending: int) -> str:
    """Report a prefill pass."""
    new = sum(piece.new for piece in turn.pieces)
    cached = sum(piece.sequence.shared for piece in turn.pieces if piece.before == piece.sequence.shared)
    rate = new / max(turn.ended_s - turn.started_s, 1e-9)
    return (
        f"Prefill batch, #new-seq: {len(turn.pieces)}, #new-token: {new}, #cached-token: {cached}, "
        f"token usage: {used / capacity:.2f}, #running-req: {running}, #queue-req: {queued}, "
        f"#pending-token: {pending}, cuda graph: True, input throughput (token/s): {rate:.2f}"
    )


def decode_batch(
    *, running: int, used: int, capacity: int, queued: int, tokens_per_s: float, has_graph: bool
) -> str:
    """Report the decode passes since the last such line."""
    return (
        f"Decode batch, #running-req: {running}, #token: {used}, token usage: {used / capacity:.2f}, "
        f"cuda graph: {has_graph}, gen throughput (token/s): {tokens_per_s:.2f}, #queue-req: {queued}"
    )


def retraction(event: Retraction) -> str:
    """Report that the pool was exhausted."""
    return (
        f"KV cache pool is full. Retract requests. #retracted_reqs: {len(event.sequences)}, "
        f"#new_tokens_gained: {event.tokens_gained}, #new_token_ratio: {event.ratio_before:.4f} -> "
        f"{event.ratio_after:.4f}"
    )
