"""SGLang's log lines that tell how a launch proceeds and why one failed, as two tables.

Pure data. The texts are those of 0.5.23 with the older forms beside them (0.5.16 unless a version is given);
srt/ = sglang/srt/. Lines come without colours. A failure line is searched for from the top of the table; the
first group named `minimum`, where there is one, is the smallest viable --mem-fraction-static.
"""

import re
from collections.abc import Mapping

from autotune.engine.dialect import FailureLine, StartLine
from autotune.failure import FailureKind, StartPhase

# "[2026-11-24 11:52:46 TP1] ": only the axes in use are named.
_PREFIX = r"^(?:\[[^\]]*\] )?"
# The last line of a traceback, which carries no prefix of its own.
_RAISED = r"^(?:[\w.]+\.)?"


def _start(pattern: str, phase: StartPhase) -> StartLine:
    return StartLine(re.compile(_PREFIX + pattern), phase)


def _failure(
    pattern: str,
    kind: FailureKind,
    by_phase: Mapping[StartPhase, FailureKind] | None = None,
    *,
    is_cause: bool = True,
) -> FailureLine:
    return FailureLine(re.compile(pattern), kind, by_phase or {}, is_cause)


START_LINES: tuple[StartLine, ...] = (
    # srt/distributed/bootstrap.py:115; older: srt/model_executor/model_runner.py
    _start(r"Init (parallel|torch distributed) begin", StartPhase.RENDEZVOUS),
    _start(r"Init (parallel|torch distributed) ends", StartPhase.WEIGHTS),
    _start(r"Load weight begin", StartPhase.WEIGHTS),
    _start(r"Load weight end", StartPhase.KV_POOL),
    # srt/model_executor/model_runner_components/cuda_graph_setup.py:685; 0.4 says "cuda graph"
    _start(r"Capture .*(CUDA|cuda) graph begin", StartPhase.GRAPH_CAPTURE),
    # srt/managers/scheduler.py:1267: what the pools hold, the scheduler's last word before HTTP
    _start(r"max_total_num_tokens=\d+, ", StartPhase.WARM_UP),
    _start(r"INFO: +Uvicorn running on ", StartPhase.WARM_UP),
    _start(r"The server is fired up and ready to roll!", StartPhase.SERVING),
)

_LOADING = (StartPhase.PROCESS, StartPhase.RENDEZVOUS, StartPhase.WEIGHTS, StartPhase.KV_POOL)
_MEMORY_BY_PHASE = {
    **dict.fromkeys(_LOADING, FailureKind.OUT_OF_MEMORY_LOADING),
    StartPhase.GRAPH_CAPTURE: FailureKind.OUT_OF_MEMORY_CAPTURE,
}

FAILURE_LINES: tuple[FailureLine, ...] = (
    # argparse; exit code 2
    _failure(
        r"^[\w. -]+: error: (argument |unrecognized arguments|ambiguous option|the following arguments)",
        FailureKind.BAD_ARGUMENT,
    ),
    # srt/managers/schedule_policy.py:344: passes the parser
    _failure(r"^ValueError: Unknown schedule_policy", FailureKind.BAD_ARGUMENT),
    # huggingface_hub and transformers
    _failure(
        r"(is not a local folder and is not a valid model identifier|"
        r"does not appear to have a file named config\.json|Repository Not Found for url|"
        r"Cannot access gated repo|Unrecognized model in )",
        FailureKind.MODEL_MISSING,
    ),
    _failure(
        _RAISED + r"(RepositoryNotFoundError|GatedRepoError|LocalEntryNotFoundError|OfflineModeIsEnabled)\b",
        FailureKind.MODEL_MISSING,
    ),
    # srt/mem_cache/kv_cache_configurator.py:3051
    _failure(
        r"Loaded weights leave no GPU memory for the KV cache"
        r"(?:.*minimum viable = [^=]*= (?P<minimum>\d+(?:\.\d+)?))?",
        FailureKind.NO_KV_MEMORY,
    ),
    # srt/mem_cache/pool_configurator.py:96
    _failure(r"Not enough memory\. Please try to increase --mem-fraction-static", FailureKind.NO_KV_MEMORY),
    # srt/model_executor/runner/decode_cuda_graph_runner.py:603 wraps whatever went wrong
    _failure(r"Capture cuda graph failed: .*out of memory", FailureKind.OUT_OF_MEMORY_CAPTURE),
    # srt/mem_cache/allocation.py:239, 613, 345
    _failure(
        r"(Prefill|Decode) out of memory\. Try to lower your batch size", FailureKind.OUT_OF_MEMORY_SERVING
    ),
    _failure(r"alloc_req_slots runs out of memory", FailureKind.OUT_OF_MEMORY_SERVING),
    # torch, and the markers of sglang/auto_benchmark_lib.py:558 (0.5.16)
    _failure(
        r"(OutOfMemoryError: |CUDA out of memory|HIP out of memory|CUDNN_STATUS_ALLOC_FAILED|std::bad_alloc)",
        FailureKind.OUT_OF_MEMORY_SERVING,
        _MEMORY_BY_PHASE,
    ),
    # srt/distributed/bootstrap.py:445; a warning with the same words is not fatal
    _failure(r"^RuntimeError: The memory capacity is unbalanced", FailureKind.GPU_MEMORY_HELD),
    # srt/utils/network.py:102, srt/server_args.py:886, uvicorn, torch
    _failure(r"^ValueError: \w+ at \d+ is not available in ", FailureKind.PORT_BUSY),
    _failure(r"Port is already in use\. dist_init_port=", FailureKind.PORT_BUSY),
    _failure(r"(\[Errno 98\].*address already in use|EADDRINUSE)", FailureKind.PORT_BUSY),
    # torch.distributed
    _failure(
        r"(Timed out after \d+ seconds waiting for clients|The client socket has timed out after|"
        r"DistNetworkError: |DistStoreError: )",
        FailureKind.RENDEZVOUS_TIMEOUT,
    ),
    # srt/utils/watchdog.py:153 (a soft watchdog only reports); torch's NCCL watchdog
    _failure(r"watchdog timeout \(self\.watchdog_timeout=.*self\.soft=False", FailureKind.HANG),
    _failure(r"Watchdog caught collective operation timeout", FailureKind.HANG),
    # srt/entrypoints/http_server.py:2533
    _failure(r"Initialization failed\. warmup error", FailureKind.WARM_UP_FAILED),
    # What follows decides only if nothing above was seen.
    _failure(r"Capture cuda graph failed: ", FailureKind.CRASHED, is_cause=False),
    # Arguments are resolved before anything else; later the same exceptions are bugs.
    _failure(
        r"^(AssertionError|ValueError|NotImplementedError|TypeError|KeyError)\b",
        FailureKind.CRASHED,
        {StartPhase.PROCESS: FailureKind.BAD_ARGUMENT},
        is_cause=False,
    ),
    _failure(_RAISED + r"[A-Z]\w*(Error|Exception)\b", FailureKind.CRASHED, is_cause=False),
    # srt/entrypoints/engine.py:1977 and :1024, srt/managers/tokenizer_manager.py:4075
    _failure(
        r"(It usually means (the|one) child failed|DataParallelController \d+ terminated with [^0])",
        FailureKind.CRASHED,
        is_cause=False,
    ),
)
