"""What SGLang is expected to choose for the flags that nobody sets.

In: a search space and the flags that are set. Out: values as one would have written them on the command
line (before SGLang divides them among attention groups). Pure.
"""

from collections.abc import Mapping

from autotune.engine.sglang.flags import LaunchFlags
from autotune.simulator.memory import (
    automatic_mem_fraction,
    default_chunked_prefill_tokens,
    default_decode_graph_max_batch,
)
from autotune.space import FlagValue, SearchSpace

# srt/arg_groups/speculative_hook.py:1086 in 0.5.23.
_RUNNING_WITH_SPECULATION = 48
# The lower end of clamp(pool / context * 512, 2048, 4096), which a pool of less than four contexts gives
# (srt/mem_cache/kv_cache_configurator.py); measured on an 80 GB H100 with an 8B model: 2048.
_RUNNING_PER_RANK = 2048


def known_defaults(space: SearchSpace, flags: Mapping[str, FlagValue]) -> dict[str, FlagValue]:
    """Return the expected value of every tunable flag that `flags` leaves out, unless it is unknown."""
    view = LaunchFlags.of(space, flags)
    expected = {name: _expected(name, view) for name in space.tune if name not in view.flags}
    return {name: value for name, value in expected.items() if value is not None}


def _expected(name: str, view: LaunchFlags) -> FlagValue | None:
    match name:
        case "mem-fraction-static":
            return _mem_fraction(view)
        case "chunked-prefill-size":
            return _chunk_tokens(view)
        case "cuda-graph-max-bs-decode" | "cuda-graph-max-bs":
            return _decode_graph_max_batch(view)
        case "cuda-graph-max-bs-prefill":
            return _chunk_tokens(view)
        case "max-running-requests":
            speculates = view.value("speculative-algorithm") is not None
            return _RUNNING_WITH_SPECULATION if speculates else _RUNNING_PER_RANK * view.attention_dp
        case "page-size":
            return 1
        case _:
            return view.value(name)


def _chunk_tokens(view: LaunchFlags) -> int:
    return view.whole("chunked-prefill-size", default_chunked_prefill_tokens(view.gpu_memory_mib))


def _decode_graph_max_batch(view: LaunchFlags) -> int:
    """Return the largest captured batch; from 0.5.23 on a smaller running limit lowers the default."""
    default = default_decode_graph_max_batch(view.gpu_memory_mib, view.tp)
    if not view.is_before(0, 5, 23):
        default = min(default, view.whole("max-running-requests", default))
    return view.whole("cuda-graph-max-bs-decode", view.whole("cuda-graph-max-bs", default))


def _mem_fraction(view: LaunchFlags) -> float:
    has_no_graphs = view.is_on("disable-cuda-graph") or view.value("cuda-graph-backend-decode") == "disabled"
    fraction = automatic_mem_fraction(
        gpu_memory_mib=view.gpu_memory_mib,
        chunked_prefill_tokens=_chunk_tokens(view),
        max_prefill_tokens=view.whole("max-prefill-tokens", 16384),
        tp=view.tp,
        pp=view.pp,
        dp=view.attention_dp,
        decode_graph_max_batch=0 if has_no_graphs else _decode_graph_max_batch(view),
        is_mla=view.is_mla,
    )
    return max(fraction, 0.0)
