"""What a simulated engine says of itself: the JSON of /server_info and its kin. Pure.

In: profile, flags, capacity. Out: plain data in SGLang 0.5.23's shape, as far as a tuner reads it. That the
engine is simulated stands in `internal_states`, where it cannot be mistaken for a flag.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.simulator.arguments import to_argv
from autotune.simulator.flags import SchedulerFlags
from autotune.simulator.profile import Profile
from autotune.simulator.scheduler import Scheduler
from autotune.simulator.startup import Capacity, Ready

VERSION = "0.5.23"
"""The SGLang whose command line, log and pages are imitated, whatever the profile was measured with."""


def server_info(
    profile: Profile, ready: Ready, *, startup_s: Mapping[str, float], rank_limit: int | None = None
) -> dict[str, Any]:
    """Return the page, with the resolved value of every flag that was given or that the model reads.

    `rank_limit`: how many requests a rank runs at most by now, None: as launched.
    """
    flags, capacity = ready.flags, ready.capacity
    limit = capacity.running_limit if rank_limit is None else rank_limit
    return {
        **_arguments(flags),
        "launch_command": shlex.join(to_argv(dict(flags.given))),
        "status": "ready",
        "max_total_num_tokens": capacity.pool_tokens,
        "max_req_input_len": min(flags.context_tokens, capacity.pool_tokens) - 6,
        "startup_time": dict(startup_s),
        "internal_states": [_state(profile, flags, capacity, limit) for _ in range(flags.dp)],
        "version": VERSION,
    }


def model_info(flags: SchedulerFlags) -> dict[str, Any]:
    """Return the page about the model."""
    return {
        "model_path": flags.model_path,
        "served_model_name": served_name(flags),
        "tokenizer_path": flags.model_path,
        "is_generation": True,
        "preferred_sampling_params": None,
        "weight_version": "default",
        "load_format": "simulated",
        "model_type": "simulated",
        "architectures": ["Simulated"],
    }


def models(flags: SchedulerFlags, created: int) -> dict[str, Any]:
    """Return OpenAI's list of models."""
    name = served_name(flags)
    card = {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "sglang",
        "root": name,
        "parent": None,
        "max_model_len": flags.context_tokens,
    }
    return {"object": "list", "data": [card]}


def loads(scheduler: Scheduler, ready: Ready, timestamp: float) -> dict[str, Any]:
    """Return the load of all ranks, which count as one; the running limit stays as launched, as in SGLang."""
    used, capacity = scheduler.pool.used, scheduler.pool.capacity
    load = {
        "timestamp": timestamp,
        "dp_rank": 0,
        "num_running_reqs": len(scheduler.running),
        "num_waiting_reqs": len(scheduler.waiting),
        "num_used_tokens": used,
        "num_total_tokens": used,
        "max_total_num_tokens": capacity,
        "max_running_requests": ready.capacity.running_limit * ready.flags.dp,
        "token_usage": round(used / capacity, 4),
        "queues": {"waiting": len(scheduler.waiting)},
    }
    return {"version": VERSION, "accelerator": None, "num_accelerators": 1, "loads": [load]}


def metrics(scheduler: Scheduler, flags: SchedulerFlags) -> str:
    """Return the gauges that monitors read, as Prometheus text."""
    gauges: Sequence[tuple[str, float]] = (
        ("num_running_reqs", len(scheduler.running)),
        ("num_queue_reqs", len(scheduler.waiting)),
        ("num_used_tokens", scheduler.pool.used),
        ("token_usage", scheduler.pool.used / scheduler.pool.capacity),
        ("kv_evictable_tokens", scheduler.pool.cached - scheduler.pool.locked),
        ("new_token_ratio", scheduler.ratio),
        ("max_total_num_tokens", scheduler.pool.capacity),
        ("page_size", flags.page_tokens),
        ("context_len", flags.context_tokens),
    )
    labels = (
        f'engine_type="unified",model_name="{served_name(flags)}",moe_ep_rank="0",pp_rank="0",tp_rank="0"'
    )
    lines = [
        f"# TYPE sglang:{name} gauge\nsglang:{name}{{{labels}}} {float(value)}" for name, value in gauges
    ]
    return "\n".join(lines) + "\n"


def served_name(flags: SchedulerFlags) -> str:
    """Return the name that clients use for the model."""
    return str(dict(flags.given).get("served-model-name", flags.model_path))


def _arguments(flags: SchedulerFlags) -> dict[str, Any]:
    given = {name.replace("-", "_"): _plain(value) for name, value in flags.given}
    shares_chunk = flags.dp if given.get("enable_dp_attention") or "attn_dp_size" in given else 1
    return {
        **given,
        "model_path": flags.model_path,
        "served_model_name": served_name(flags),
        "host": flags.host,
        "port": flags.port,
        "nnodes": flags.nodes,
        "node_rank": flags.node_rank,
        "dist_init_addr": flags.rendezvous,
        "tp_size": flags.tp,
        "pp_size": flags.pp,
        "dp_size": flags.dp,
        "mem_fraction_static": flags.mem_fraction,
        "max_running_requests": flags.max_running_requests,
        "max_queued_requests": flags.max_queued_requests,
        "max_total_tokens": flags.max_total_tokens,
        "chunked_prefill_size": (flags.chunk_tokens or -shares_chunk) // shares_chunk,
        "prefill_decode_interval": flags.prefill_decode_interval,
        "prefill_decode_interval_min_bs": flags.prefill_decode_interval_min_bs,
        "max_prefill_tokens": flags.max_prefill_tokens,
        "prefill_max_requests": flags.prefill_max_requests,
        "schedule_policy": flags.policy,
        "schedule_conservativeness": flags.conservativeness,
        "page_size": flags.page_tokens,
        "enable_mixed_chunk": flags.mixed_chunk,
        "disable_radix_cache": not flags.radix_cache,
        "cuda_graph_max_bs_decode": flags.decode_graph_max_batch,
        "decode_log_interval": flags.decode_log_interval,
        "stream_interval": flags.stream_interval,
        "incremental_streaming_output": flags.incremental_streaming,
    }


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _state(profile: Profile, flags: SchedulerFlags, capacity: Capacity, limit: int) -> dict[str, Any]:
    return {
        "simulated": True,
        "profile": profile.name,
        "pp_max_micro_batch_size": limit,
        "effective_max_running_requests_per_dp": capacity.running_limit,
        "decode_cuda_graph_bs": list(capacity.decode_graph_sizes),
        "memory_usage": {
            "weight": round(capacity.weights_gib, 2),
            "kvcache": round(capacity.pool_gib, 2),
            "token_capacity": capacity.pool_tokens * flags.dp,
            "startup_available": round(capacity.available_gib, 2),
            "graph": {"decode": round(capacity.graph_gib, 2)},
        },
    }
