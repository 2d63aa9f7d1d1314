import re

import pytest

from autotune.failure import FailureKind, StartPhase
from autotune.simulator import log_text
from autotune.simulator.profile import Profile, read_profile
from autotune.simulator.startup import Ready, StartFailure, StartUp, plan_start
from tests.support.simulated import DEEPSEEK, LLAMA


def quiet(name: str) -> Profile:
    profile = read_profile(name)
    start_up = profile.start_up.model_copy(update={"noise_ratio": 0.0})
    return profile.model_copy(update={"start_up": start_up})


def started(name: str, *words: str) -> StartUp:
    return plan_start(quiet(name), ["--model-path", "m", *words], seed=1)


def seconds(start: StartUp) -> float:
    return sum(run.seconds for run in start.stages)


def failed(start: StartUp) -> StartFailure:
    assert isinstance(start.outcome, StartFailure)
    return start.outcome


def ready(start: StartUp) -> Ready:
    assert isinstance(start.outcome, Ready)
    return start.outcome


def test_a_good_start_goes_through_every_stage_and_says_what_sglang_says() -> None:
    start = started(LLAMA)
    assert [run.phase for run in start.stages] == [
        stage for stage in StartPhase if stage not in (StartPhase.IMAGE, StartPhase.SERVING)
    ]
    lines = "\n".join(line for run in start.stages for line in run.lines)
    assert lines.startswith(log_text.NOTICE)
    assert "Load weight end. elapsed=0.20 s, type=Simulated, avail mem=63.48 GB" in lines
    assert "#tokens: 410619, K size: 25.06 GB, V size: 25.06 GB" in lines
    assert "max_total_num_tokens=410619, chunked_prefill_size=8192, max_prefill_tokens=16384, " in lines


@pytest.mark.parametrize(
    ("chunk", "capture_s"), [(512, 3.5), (2048, 6.1), (8192, 9.1), (16384, 28.2), (32768, 142.6)]
)
def test_prefill_graphs_take_about_as_long_as_measured(chunk: int, capture_s: float) -> None:
    start = started(LLAMA, "--chunked-prefill-size", str(chunk), "--disable-decode-cuda-graph")
    run = next(run for run in start.stages if run.phase is StartPhase.GRAPH_CAPTURE)
    assert run.seconds == pytest.approx(capture_s, rel=0.2)


def test_deepseek_over_two_hosts_takes_twelve_to_fifteen_minutes() -> None:
    assert 12 * 60 < seconds(started(DEEPSEEK)) < 15 * 60


def test_start_times_differ_between_launches() -> None:
    argv = ["--model-path", "m"]
    first, again, other = (seconds(plan_start(read_profile(LLAMA), argv, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_a_bad_argument_is_known_before_anything_is_loaded() -> None:
    start = started(LLAMA, "--no-such-flag")
    failure = failed(start)
    assert (failure.kind, failure.phase, failure.exit_code) == (
        FailureKind.BAD_ARGUMENT,
        StartPhase.PROCESS,
        2,
    )
    assert failure.text.startswith("usage: sglang serve")
    assert failure.text.endswith("sglang serve: error: unrecognized arguments: --no-such-flag")
    assert seconds(start) == 27.0


def test_a_refused_combination_is_a_traceback_with_exit_code_one() -> None:
    failure = failed(started(LLAMA, "--page-size", "16", "--chunked-prefill-size", "100"))
    assert (failure.kind, failure.exit_code) == (FailureKind.BAD_ARGUMENT, 1)
    assert failure.text.startswith("Traceback (most recent call last):")


def test_a_fraction_below_the_weights_fails_with_the_real_line_and_minimum() -> None:
    failure = failed(started(LLAMA, "--mem-fraction-static", "0.15"))
    assert (failure.kind, failure.phase, failure.exit_code) == (
        FailureKind.NO_KV_MEMORY,
        StartPhase.KV_POOL,
        -9,
    )
    assert failure.minimum_mem_fraction == 0.1921
    assert failure.line == (
        "ValueError: Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=0.15. "
        "Raise --mem-fraction-static above 0.193 (minimum viable = 1 - available/pre = 0.1921). If using "
        "speculative decoding, draft weights are now counted."
    )


def test_a_pool_of_hardly_a_token_fails_too() -> None:
    failure = failed(started(LLAMA, "--max-total-tokens", "10"))
    assert failure.kind is FailureKind.NO_KV_MEMORY
    assert failure.line.startswith("RuntimeError: Not enough memory. Please try to increase")


@pytest.mark.parametrize(("fraction", "starts"), [("0.2", True), ("0.96", True), ("0.99", False)])
def test_the_edges_of_the_memory_fraction_are_where_they_were_on_an_h100(fraction: str, starts: bool) -> None:
    start = started(LLAMA, "--mem-fraction-static", fraction)
    assert isinstance(start.outcome, Ready) is starts
    if not starts:
        assert failed(start).kind is FailureKind.OUT_OF_MEMORY_LOADING
        assert "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate" in failed(start).line


def test_little_free_memory_leaves_out_prefill_graphs() -> None:
    start = started(LLAMA, "--mem-fraction-static", "0.96")
    assert ready(start).capacity.prefill_graph_sizes == ()
    assert any(
        "Disabling auto-selected prefill CUDA graph: only 2.09 GiB" in each for each in start.stages[4].lines
    )


def test_a_large_chunk_and_a_high_fraction_run_out_of_memory_while_capturing() -> None:
    failure = failed(started(DEEPSEEK, "--mem-fraction-static", "0.87"))
    assert (failure.kind, failure.phase) == (FailureKind.OUT_OF_MEMORY_CAPTURE, StartPhase.GRAPH_CAPTURE)
    assert failure.line.startswith("Exception: Capture cuda graph failed: CUDA out of memory.")
    assert "Possible solutions:" in failure.text


def test_an_allocation_that_fails_is_larger_than_what_is_free() -> None:
    line = failed(started(DEEPSEEK, "--mem-fraction-static", "0.87")).line
    found = re.search(r"allocate ([\d.]+) GiB.*of which ([\d.]+) MiB is free", line)
    assert found is not None
    assert float(found[1]) * 1024 > float(found[2])


def test_between_good_and_bad_a_start_succeeds_that_cannot_take_a_whole_chunk() -> None:
    capacity = ready(started(DEEPSEEK, "--mem-fraction-static", "0.84")).capacity
    assert capacity.prefill_room_tokens < 8192
    assert ready(started(DEEPSEEK)).capacity.prefill_room_tokens > 8192


def test_a_smaller_chunk_or_graph_limit_moves_the_edge() -> None:
    for words in (["--chunked-prefill-size", "2048"], ["--cuda-graph-max-bs-decode", "64"]):
        assert isinstance(started(DEEPSEEK, "--mem-fraction-static", "0.87", *words).outcome, Ready)


def test_half_the_cards_do_not_hold_the_weights() -> None:
    failure = failed(started(DEEPSEEK, "--tp-size", "8"))
    assert (failure.kind, failure.phase) == (FailureKind.OUT_OF_MEMORY_LOADING, StartPhase.WEIGHTS)


def test_the_policy_that_only_the_parser_knows_is_refused_by_the_scheduler() -> None:
    failure = failed(started(LLAMA, "--schedule-policy", "priority"))
    assert (failure.kind, failure.phase, failure.exit_code) == (
        FailureKind.BAD_ARGUMENT,
        StartPhase.WARM_UP,
        -9,
    )


def test_a_pool_below_the_context_length_is_a_warning() -> None:
    start = started(LLAMA, "--max-total-tokens", "4000")
    assert (
        start.stages[-1].lines[0].startswith("KV pool holds 4000 tokens, fewer than --context-length 131072.")
    )
