import pytest

from autotune.engine.log_watch import classify
from autotune.engine.sglang.log_lines import FAILURE_LINES, START_LINES
from autotune.failure import EngineFailure, FailureKind, StartPhase

NO_KV = (
    "ValueError: Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=0.15. "
    "Raise --mem-fraction-static above 0.193 (minimum viable = 1 - available/pre = 0.1921). "
    "If using speculative decoding, draft weights are now counted."
)
SIGQUIT = "[2026-11-24 11:52:43] Received sigquit from a child process. It usually means the child failed."
CUDA_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1004.00 MiB. GPU 0 has a total "
    "capacity of 79.18 GiB of which 727.38 MiB is free."
)

START: list[tuple[str, StartPhase]] = [
    ("[2026-11-24 11:47:14] Init parallel begin.", StartPhase.RENDEZVOUS),
    ("[2026-11-24 11:52:39 TP1] Init torch distributed begin.", StartPhase.RENDEZVOUS),
    ("[2026-11-24 11:52:50 TP1] Init parallel ends. elapsed=4.03 s", StartPhase.WEIGHTS),
    ("[t] Init torch distributed ends. elapsed=0.20 s, mem usage=0.09 GB", StartPhase.WEIGHTS),
    ("[2026-11-24 11:52:51 DP0 TP0] Load weight begin. avail mem=20.91 GB", StartPhase.WEIGHTS),
    (
        "[t] Load weight end. elapsed=0.17 s, type=LlamaForCausalLM, avail mem=63.48 GB, mem usage=15.02 GB.",
        StartPhase.KV_POOL,
    ),
    (
        "[t] Capture target prefill CUDA graph begin. backend=breakable, num_tokens=[4, 8]",
        StartPhase.GRAPH_CAPTURE,
    ),
    (
        "[t] Capture target decode CUDA graph begin. backend=full, num_tokens_per_req=1, bs=[1, 2]",
        StartPhase.GRAPH_CAPTURE,
    ),
    ("[t] Capture cuda graph begin. This can take up to several minutes.", StartPhase.GRAPH_CAPTURE),
    (
        (
            "[t] max_total_num_tokens=410620, chunked_prefill_size=8192, max_prefill_tokens=16384, "
            "max_running_requests=2048, context_len=131072, available_gpu_mem=10.26 GB"
        ),
        StartPhase.WARM_UP,
    ),
    ("[t] INFO:     Uvicorn running on http://127.0.0.1:30000 (Press CTRL+C to quit)", StartPhase.WARM_UP),
    ("[2026-11-24 11:25:44] The server is fired up and ready to roll!", StartPhase.SERVING),
]


@pytest.mark.parametrize(("line", "phase"), START)
def test_a_start_line_begins_its_phase(line: str, phase: StartPhase) -> None:
    assert [start.phase for start in START_LINES if start.pattern.search(line)] == [phase]


@pytest.mark.parametrize(
    "line",
    [
        "[t] server_args=ServerArgs(model_path='/m', max_total_tokens=None, chunked_prefill_size=8192)",
        "[t] Memory pool end. avail mem=12.34 GB",
        "[t] Capture target decode CUDA graph end. elapsed=5.37 s, mem usage=0.49 GB, avail mem=10.26 GB.",
        "[t] Disable prefill CUDA graph because cuda_graph_config resolved prefill.backend='disabled'",
        "[t] Prefill batch, #new-seq: 1, #new-token: 14, #cached-token: 0, token usage: 0.00",
    ],
)
def test_other_lines_begin_nothing(line: str) -> None:
    assert not [start for start in START_LINES if start.pattern.search(line)]


FAILURES: list[tuple[str, StartPhase, FailureKind]] = [
    (
        "sglang serve: error: argument --schedule-policy: invalid choice: 'nosuch' (choose from 'lpm')",
        StartPhase.PROCESS,
        FailureKind.BAD_ARGUMENT,
    ),
    (
        "sglang serve: error: argument --chunked-prefill-size: invalid int value: 'abc'",
        StartPhase.PROCESS,
        FailureKind.BAD_ARGUMENT,
    ),
    (
        "sglang serve: error: unrecognized arguments: --no-such-flag 1",
        StartPhase.PROCESS,
        FailureKind.BAD_ARGUMENT,
    ),
    (
        (
            "launch_server.py: error: ambiguous option: --cuda-graph-max-bs could match "
            "--cuda-graph-max-bs-decode, --cuda-graph-max-bs-prefill"
        ),
        StartPhase.PROCESS,
        FailureKind.BAD_ARGUMENT,
    ),
    (
        "ValueError: Unknown schedule_policy: policy='priority'",
        StartPhase.KV_POOL,
        FailureKind.BAD_ARGUMENT,
    ),
    (
        "AssertionError: chunked_prefill_size must be divisible by page_size",
        StartPhase.PROCESS,
        FailureKind.BAD_ARGUMENT,
    ),
    ("ValueError: a bug of the engine", StartPhase.GRAPH_CAPTURE, FailureKind.CRASHED),
    (
        "OSError: org/no-model is not a local folder and is not a valid model identifier listed on the hub",
        StartPhase.PROCESS,
        FailureKind.MODEL_MISSING,
    ),
    (
        "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.",
        StartPhase.PROCESS,
        FailureKind.MODEL_MISSING,
    ),
    (NO_KV, StartPhase.KV_POOL, FailureKind.NO_KV_MEMORY),
    (
        (
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. "
            "Current value: mem_fraction_static=0.3"
        ),
        StartPhase.KV_POOL,
        FailureKind.NO_KV_MEMORY,
    ),
    (
        "Exception: Capture cuda graph failed: CUDA out of memory. Tried to allocate 2.00 GiB.",
        StartPhase.GRAPH_CAPTURE,
        FailureKind.OUT_OF_MEMORY_CAPTURE,
    ),
    (
        "Exception: Capture cuda graph failed: operation not permitted when stream is capturing",
        StartPhase.GRAPH_CAPTURE,
        FailureKind.CRASHED,
    ),
    (CUDA_OOM, StartPhase.WEIGHTS, FailureKind.OUT_OF_MEMORY_LOADING),
    (CUDA_OOM, StartPhase.KV_POOL, FailureKind.OUT_OF_MEMORY_LOADING),
    (CUDA_OOM, StartPhase.GRAPH_CAPTURE, FailureKind.OUT_OF_MEMORY_CAPTURE),
    (CUDA_OOM, StartPhase.WARM_UP, FailureKind.OUT_OF_MEMORY_SERVING),
    (CUDA_OOM, StartPhase.SERVING, FailureKind.OUT_OF_MEMORY_SERVING),
    (
        "terminate called after throwing an instance of 'std::bad_alloc'",
        StartPhase.SERVING,
        FailureKind.OUT_OF_MEMORY_SERVING,
    ),
    (
        "RuntimeError: Prefill out of memory. Try to lower your batch size.",
        StartPhase.SERVING,
        FailureKind.OUT_OF_MEMORY_SERVING,
    ),
    (
        "RuntimeError: Decode out of memory. Try to lower your batch size.",
        StartPhase.SERVING,
        FailureKind.OUT_OF_MEMORY_SERVING,
    ),
    (
        (
            "RuntimeError: alloc_req_slots runs out of memory. Please set a smaller number for "
            "`--max-running-requests`."
        ),
        StartPhase.SERVING,
        FailureKind.OUT_OF_MEMORY_SERVING,
    ),
    (
        (
            "RuntimeError: The memory capacity is unbalanced. Some GPUs may be occupied by other processes. "
            "pre_model_load_memory=40.1, local_gpu_memory=78.5, local_gpu_memory * 0.9=70.65"
        ),
        StartPhase.RENDEZVOUS,
        FailureKind.GPU_MEMORY_HELD,
    ),
    (
        "ValueError: dist_init_port at 20000 is not available in 30 seconds. ",
        StartPhase.PROCESS,
        FailureKind.PORT_BUSY,
    ),
    (
        "ValueError: Port is already in use. dist_init_port=20000 port_base=20001 detokenizer_port=20002",
        StartPhase.PROCESS,
        FailureKind.PORT_BUSY,
    ),
    (
        (
            "[t] ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 30000): "
            "address already in use"
        ),
        StartPhase.WARM_UP,
        FailureKind.PORT_BUSY,
    ),
    (
        "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 joined.",
        StartPhase.RENDEZVOUS,
        FailureKind.RENDEZVOUS_TIMEOUT,
    ),
    (
        "[t TP0] Scheduler watchdog timeout (self.watchdog_timeout=300, self.soft=False)",
        StartPhase.SERVING,
        FailureKind.HANG,
    ),
    (
        (
            "[rank3]:[E1124 11:52:43 ProcessGroupNCCL.cpp:632] [Rank 3] Watchdog caught collective operation "
            "timeout: WorkNCCL(SeqNum=12, OpType=ALLREDUCE)"
        ),
        StartPhase.SERVING,
        FailureKind.HANG,
    ),
    (
        "[t] Initialization failed. warmup error: Traceback (most recent call last):",
        StartPhase.WARM_UP,
        FailureKind.WARM_UP_FAILED,
    ),
    ("torch.AcceleratorError: CUDA error: an illegal memory access", StartPhase.SERVING, FailureKind.CRASHED),
    (SIGQUIT, StartPhase.KV_POOL, FailureKind.CRASHED),
    (
        "[t] Scheduler or DataParallelController 2441 terminated with -9",
        StartPhase.SERVING,
        FailureKind.CRASHED,
    ),
]


def judged(*lines: str, phase: StartPhase, exit_code: int | None = 1) -> EngineFailure:
    return classify(lines, phase=phase, exit_code=exit_code, patterns=FAILURE_LINES)


@pytest.mark.parametrize(("line", "phase", "kind"), FAILURES)
def test_a_failure_line_decides_with_what_follows_it(line: str, phase: StartPhase, kind: FailureKind) -> None:
    failure = judged("[t] something before", line, SIGQUIT, "[t] kill_process_tree called", phase=phase)
    assert (failure.kind, failure.line) == (kind, line)


def test_every_row_of_the_table_has_a_line() -> None:
    for row in FAILURE_LINES:
        assert any(row.pattern.search(line) for line, _, _ in FAILURES), row.pattern.pattern


@pytest.mark.parametrize(
    "line",
    [
        "[t] The memory capacity is unbalanced. Some GPUs may be occupied by other processes.",
        "[t TP0] Scheduler watchdog timeout (self.watchdog_timeout=60, self.soft=True)",
        "[t] OpenAI Responses API disabled: init failed (ModuleNotFoundError: No module named 'harmony')",
        "[t] Ignore import error when loading sglang.srt.models.inkling: No module named 'helion'",
        "[t] KV cache pool is full. Retract requests. #retracted_reqs: 1, #new_tokens_gained: 900",
        "[t] Scheduler or DataParallelController 24567 terminated with 0",
        "[t] kill_process_tree called: parent_pid=19883, include_parent=False, pid=19883",
        "[t] Cache not flushed because there are pending requests. #queue-req: 1, #running-req: 2",
    ],
)
def test_lines_of_healthy_engines_decide_nothing(line: str) -> None:
    assert not [row for row in FAILURE_LINES if row.pattern.search(line)]


def test_the_smallest_viable_fraction_is_read_from_the_line() -> None:
    assert judged(NO_KV, phase=StartPhase.KV_POOL).minimum_mem_fraction == 0.1921
    bare = "Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=0.15."
    assert judged(bare, phase=StartPhase.KV_POOL).minimum_mem_fraction is None


def test_of_a_chain_of_exceptions_the_known_one_decides() -> None:
    failure = judged(
        "ValueError: 'priority' is not a valid CacheAgnosticPolicy",
        "During handling of the above exception, another exception occurred:",
        "ValueError: Unknown schedule_policy: policy='priority'",
        SIGQUIT,
        phase=StartPhase.KV_POOL,
        exit_code=-9,
    )
    assert failure.kind is FailureKind.BAD_ARGUMENT
    assert failure.exit_code == -9
