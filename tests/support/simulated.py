import functools
from collections.abc import Callable

import numpy as np

from autotune.request import LoadResult, OfferedLoad, Request, RequestRecord
from autotune.simulator.costs import StepCosts
from autotune.simulator.flags import SchedulerFlags, resolve_flags
from autotune.simulator.memory import kv_pool_gib, kv_pool_tokens, running_limit
from autotune.simulator.profile import Profile, read_profile
from autotune.simulator.scheduler import Scheduler
from autotune.simulator.turn import Turn
from autotune.simulator.virtual import VirtualEndpoint
from autotune.space import FlagValue

LLAMA = "llama-8b-1xh100"
DEEPSEEK = "deepseek-r1-2x8h100"
_read = functools.cache(read_profile)


def profile_without_noise(name: str = LLAMA, **step: float) -> Profile:
    profile = _read(name)
    constants = {"noise_ratio": 0.0, "launch_noise_ratio": 0.0, "cold_start_s": 0.0, **step}
    return profile.model_copy(update={"step": profile.step.model_copy(update=constants)})


def scheduler_of(
    profile: Profile,
    flags: dict[str, FlagValue] | None = None,
    *,
    pool_tokens: int | None = None,
    seed: int = 1,
    prefill_room_tokens: float = float("inf"),
) -> Scheduler:
    resolved = resolve_flags(flags or {}, profile)
    tokens = _pool_tokens(profile, resolved) if pool_tokens is None else pool_tokens
    return Scheduler(
        flags=resolved,
        costs=StepCosts(profile, decode_graph_max_batch=resolved.decode_graph_max_batch, seed=seed),
        pool_tokens=tokens,
        running_limit=running_limit(
            pool_tokens=tokens,
            context_tokens=resolved.context_tokens,
            max_running_requests=resolved.max_running_requests,
            dp=resolved.dp,
        ),
        reserves_ignored_eos=profile.reserves_ignored_eos,
        prefill_room_tokens=prefill_room_tokens,
        seed=seed,
    )


def endpoint_of(
    scheduler: Scheduler,
    profile: Profile,
    *,
    on_turn: Callable[[Turn], None] | None = None,
    most_steps: int | None = None,
    joins_chunks: bool = False,
) -> VirtualEndpoint:
    return VirtualEndpoint(
        scheduler,
        request_s=profile.step.request_s,
        on_turn=on_turn,
        most_steps=most_steps,
        joins_chunks=joins_chunks,
    )


def run(
    profile: Profile,
    load: OfferedLoad,
    flags: dict[str, FlagValue] | None = None,
    *,
    pool_tokens: int | None = None,
    seed: int = 1,
) -> LoadResult:
    scheduler = scheduler_of(profile, flags, pool_tokens=pool_tokens, seed=seed)
    return endpoint_of(scheduler, profile).run(load)


def equal_requests(
    count: int, input_tokens: int, output_tokens: int, *, groups: int = 0, prefix_tokens: int = 0
) -> list[Request]:
    return [
        Request(
            index,
            input_tokens,
            output_tokens,
            prefix_group=index % groups if groups else None,
            prefix_tokens=prefix_tokens,
        )
        for index in range(count)
    ]


def ttft_s(records: tuple[RequestRecord, ...]) -> list[float]:
    return [
        record.first_token_s - record.sent_s
        for record in records
        if record.first_token_s is not None and record.sent_s is not None
    ]


def tokens_per_s(records: tuple[RequestRecord, ...]) -> float:
    return sum(record.output_tokens for record in records) / max(record.ended_s for record in records)


def percentile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share))


def _pool_tokens(profile: Profile, flags: SchedulerFlags) -> int:
    gib = kv_pool_gib(
        free_gib=profile.memory.free_gib,
        weights_gib=profile.memory.weights_gib,
        mem_fraction=flags.mem_fraction,
    )
    return kv_pool_tokens(gib, profile.memory.cell_bytes, flags.max_total_tokens, flags.page_tokens)
