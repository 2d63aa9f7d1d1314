"""What happens between the start of an engine and its readiness: stages with their times, or a failure.

In: a profile, argv, a seed. Out: a `StartUp`: the stages in order with the lines each writes as it begins,
then either what the engine is `Ready` with or a `StartFailure`. Pure: virtual time adds the seconds up,
the HTTP server sleeps them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune.failure import FailureKind, StartPhase
from autotune.simulator import log_text, memory
from autotune.simulator.arguments import BadArgumentError
from autotune.simulator.flags import SchedulerFlags, parse_argv
from autotune.simulator.profile import Profile

_KILLED = -9
_GIB = 2**30
_LEAST_POOL_TOKENS = 64
_PREFILL_GRAPH_GIB = 4.0  # 0.5.16 on an H100: "at least 4.00 GiB is required for capture"
_CAPTURED_SHARE = 0.7  # assumed: activations that show up while capturing; the rest only under load


@dataclass(frozen=True)
class StageRun:
    """One stage: how long it takes, and what is logged when it begins."""

    phase: StartPhase
    seconds: float
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class StartFailure:
    """How a start ends badly: the decisive line, everything that is written, and the exit code."""

    kind: FailureKind
    phase: StartPhase
    line: str
    text: str
    exit_code: int = _KILLED
    minimum_mem_fraction: float | None = None


@dataclass(frozen=True)
class Capacity:
    """What a started engine serves with; a prefill pass above `prefill_room_tokens` is out of memory."""

    pool_tokens: int
    running_limit: int
    weights_gib: float
    pool_gib: float
    graph_gib: float
    available_gib: float
    prefill_room_tokens: float
    prefill_graph_sizes: tuple[int, ...]
    decode_graph_sizes: tuple[int, ...]


@dataclass(frozen=True)
class Ready:
    """How a start ends well."""

    flags: SchedulerFlags
    capacity: Capacity


@dataclass(frozen=True)
class StartUp:
    """The stages that are gone through, and how it ends; a failure comes at the end of the last stage."""

    stages: tuple[StageRun, ...]
    outcome: Ready | StartFailure


def plan_start(profile: Profile, argv: Sequence[str], *, seed: int) -> StartUp:
    """Return what starting with this command line does; times vary by the profile's noise."""
    try:
        flags = parse_argv(argv, profile)
    except BadArgumentError as error:
        return _refused(profile, error)
    capacity = _capacity(profile, flags)
    outcome = _failure(profile, flags, capacity) or Ready(flags, capacity)
    last = StartPhase.WARM_UP if isinstance(outcome, Ready) else outcome.phase
    factor = max(0.5, 1 + profile.start_up.noise_ratio * np.random.default_rng(seed).standard_normal())
    order = list(StartPhase)
    runs = tuple(
        StageRun(run.phase, run.seconds * factor, run.lines)
        for run in _stages(profile, flags, capacity)
        if order.index(run.phase) <= order.index(last)
    )
    return StartUp(runs, outcome)


def serving_failure(profile: Profile, capacity: Capacity, new_tokens: int) -> StartFailure:
    """Return the death of a serving engine by a prefill pass that does not fit."""
    wanted_gib = profile.memory.chunk_reserve_gib * new_tokens / 1024
    line = log_text.out_of_memory(wanted_gib, profile.memory.gpu_memory_mib / 1024, capacity.available_gib)
    text = log_text.scheduler_exception(line)
    return StartFailure(FailureKind.OUT_OF_MEMORY_SERVING, StartPhase.SERVING, line, text)


def _refused(profile: Profile, error: BadArgumentError) -> StartUp:
    """Return the start that the argument parser or the validation ends."""
    trace = "" if error.usage else "Traceback (most recent call last):\n  (simulated: no frames)\n"
    text = f"{error.usage}{trace}{error.line}"
    failure = StartFailure(FailureKind.BAD_ARGUMENT, StartPhase.PROCESS, error.line, text, error.exit_code)
    return StartUp((StageRun(StartPhase.PROCESS, profile.start_up.arguments_s),), failure)


def _capacity(profile: Profile, flags: SchedulerFlags) -> Capacity:
    """Return the arithmetic of memory, with negative rooms where something does not fit."""
    has = profile.memory
    weights_gib = memory.weights_gib(
        whole_gib=has.weights_gib * profile.tensor_parallel,
        attention_gib=has.attention_gib,
        tp=flags.tp,
        pp=flags.pp,
        dp=flags.dp,
    )
    pool_gib = memory.kv_pool_gib(
        free_gib=has.free_gib, weights_gib=weights_gib, mem_fraction=flags.mem_fraction
    )
    tokens = memory.kv_pool_tokens(pool_gib, has.cell_bytes, flags.max_total_tokens, flags.page_tokens)
    pool_gib = min(pool_gib, tokens * has.cell_bytes / _GIB)
    after_pool_gib = has.free_gib - weights_gib - pool_gib - has.fixed_reserve_gib
    graph_gib = has.graph_reserve_gib * flags.decode_graph_max_batch
    room_gib = after_pool_gib - graph_gib
    return Capacity(
        pool_tokens=tokens,
        running_limit=memory.running_limit(
            pool_tokens=tokens,
            context_tokens=flags.context_tokens,
            max_running_requests=flags.max_running_requests,
            dp=flags.dp,
        ),
        weights_gib=weights_gib,
        pool_gib=pool_gib,
        graph_gib=graph_gib,
        available_gib=room_gib,
        prefill_room_tokens=room_gib / has.chunk_reserve_gib * 1024 if has.chunk_reserve_gib else np.inf,
        prefill_graph_sizes=_prefill_graph_sizes(profile, flags, after_pool_gib),
        decode_graph_sizes=memory.decode_capture_sizes(flags.decode_graph_max_batch),
    )


def _prefill_graph_sizes(profile: Profile, flags: SchedulerFlags, free_gib: float) -> tuple[int, ...]:
    if not flags.prefill_graphs or free_gib < _PREFILL_GRAPH_GIB:
        return ()
    largest = flags.chunk_tokens or flags.max_prefill_tokens
    return memory.prefill_capture_sizes(min(largest, profile.start_up.prefill_graph_max_tokens or largest))


def _stages(profile: Profile, flags: SchedulerFlags, capacity: Capacity) -> tuple[StageRun, ...]:
    seconds, has = profile.start_up, profile.memory
    is_alone = flags.nodes == 1 and flags.tp == 1
    after_pool_gib = capacity.available_gib + capacity.graph_gib
    return (
        StageRun(StartPhase.PROCESS, seconds.process_s, (log_text.NOTICE,)),
        StageRun(StartPhase.RENDEZVOUS, seconds.rendezvous_s, (log_text.RENDEZVOUS_BEGIN,)),
        StageRun(
            StartPhase.WEIGHTS,
            seconds.weights_s,
            (
                log_text.rendezvous_end(0.2 if is_alone else seconds.rendezvous_s),
                log_text.weights_begin(has.free_gib),
            ),
        ),
        StageRun(
            StartPhase.KV_POOL,
            seconds.kv_pool_s,
            (log_text.weights_end(seconds.weights_s, has.free_gib, capacity.weights_gib),),
        ),
        StageRun(
            StartPhase.GRAPH_CAPTURE,
            _capture_s(profile, capacity),
            (
                log_text.pool_allocated(capacity.pool_tokens, capacity.pool_gib, is_mla=has.is_mla),
                log_text.pool_end(after_pool_gib),
                *_capture_lines(flags, capacity, after_pool_gib),
            ),
        ),
        StageRun(StartPhase.WARM_UP, seconds.warm_up_s, _capacity_lines(flags, capacity)),
    )


def _capture_s(profile: Profile, capacity: Capacity) -> float:
    seconds, sizes = profile.start_up, capacity.prefill_graph_sizes
    return (
        seconds.decode_graph_s * len(capacity.decode_graph_sizes)
        + seconds.prefill_graph_s * len(sizes)
        + seconds.prefill_graph_token2_s * sum(size * size for size in sizes)
    )


def _capture_lines(flags: SchedulerFlags, capacity: Capacity, free_gib: float) -> list[str]:
    lines = []
    if capacity.prefill_graph_sizes:
        lines.append(log_text.capture_begin("prefill", capacity.prefill_graph_sizes, free_gib))
    elif flags.prefill_graphs:
        lines.append(log_text.no_prefill_graphs(free_gib))
    if capacity.decode_graph_sizes:
        lines.append(log_text.capture_begin("decode", capacity.decode_graph_sizes, free_gib))
    return lines


def _capacity_lines(flags: SchedulerFlags, capacity: Capacity) -> tuple[str, ...]:
    line = log_text.capacity(
        tokens=capacity.pool_tokens,
        chunk=flags.chunk_tokens or -1,
        max_prefill=flags.max_prefill_tokens,
        running_limit=capacity.running_limit,
        context=flags.context_tokens,
        available_gib=capacity.available_gib,
    )
    is_small = capacity.pool_tokens < flags.context_tokens
    return (*([log_text.small_pool(capacity.pool_tokens, flags.context_tokens)] if is_small else ()), line)


def _failure(profile: Profile, flags: SchedulerFlags, capacity: Capacity) -> StartFailure | None:
    """Return the first thing that goes wrong, in the order in which the engine would meet it."""
    has, total_gib = profile.memory, profile.memory.gpu_memory_mib / 1024
    minimum = memory.minimum_mem_fraction(free_gib=has.free_gib, weights_gib=capacity.weights_gib)
    chunk_gib = has.chunk_reserve_gib * (flags.chunk_tokens or flags.max_prefill_tokens) / 1024
    if capacity.weights_gib >= has.free_gib:
        line = log_text.out_of_memory(capacity.weights_gib, total_gib, has.free_gib)
        return _crash(FailureKind.OUT_OF_MEMORY_LOADING, StartPhase.WEIGHTS, line)
    if minimum >= flags.mem_fraction:
        line = log_text.no_kv_memory(flags.mem_fraction, minimum)
        return _crash(FailureKind.NO_KV_MEMORY, StartPhase.KV_POOL, line, round(minimum, 4))
    if capacity.pool_tokens < _LEAST_POOL_TOKENS:
        line = log_text.not_enough_memory(flags.mem_fraction)
        return _crash(FailureKind.NO_KV_MEMORY, StartPhase.KV_POOL, line)
    if capacity.available_gib + capacity.graph_gib < 0:
        line = log_text.out_of_memory(-(capacity.available_gib + capacity.graph_gib), total_gib, 0.0)
        return _crash(FailureKind.OUT_OF_MEMORY_LOADING, StartPhase.KV_POOL, line)
    captured_gib = _CAPTURED_SHARE * chunk_gib
    if capacity.available_gib < captured_gib:
        line = log_text.capture_failed(
            log_text.out_of_memory(captured_gib, total_gib, capacity.available_gib)
        )
        return _crash(FailureKind.OUT_OF_MEMORY_CAPTURE, StartPhase.GRAPH_CAPTURE, line)
    if flags.policy == "priority":
        line = "ValueError: Unknown schedule_policy: policy='priority'"
        return _crash(FailureKind.BAD_ARGUMENT, StartPhase.WARM_UP, line)
    return None


def _crash(kind: FailureKind, phase: StartPhase, line: str, minimum: float | None = None) -> StartFailure:
    text = log_text.scheduler_exception(line)
    return StartFailure(kind, phase, line.partition("\n")[0], text, minimum_mem_fraction=minimum)
