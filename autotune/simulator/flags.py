"""What a launch runs with: every flag that the model reads, resolved as SGLang 0.5.23 resolves it.

In: flags or argv, and the profile that supplies the automatic values. Out: `SchedulerFlags`, or a
BadArgumentError in the engine's own words. Pure but for the parser's package data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune.simulator.arguments import BadArgumentError, parse_arguments, to_argv
from autotune.simulator.memory import (
    automatic_mem_fraction,
    default_chunked_prefill_tokens,
    default_decode_graph_max_batch,
)
from autotune.simulator.profile import Profile
from autotune.space import FlagValue

_DP_ATTENTION_CONSERVATIVENESS = 0.3  # SGLang 0.5.23, arg_groups/parallel_hook.py:312
_CACHE_AWARE = frozenset({"lpm", "dfs-weight", "hrrn"})


@dataclass(frozen=True, kw_only=True)
class SchedulerFlags:
    """The resolved flags. Token and request counts are those of the whole engine, not of one DP rank.

    `chunk_tokens` None: chunking is off. `decode_graph_max_batch` 0: no decode graphs. `dp`: attention-DP
    groups (or replicas). `given`: the flags that were set, as they were set.
    """

    model_path: str
    host: str
    port: int
    nodes: int
    node_rank: int
    rendezvous: str | None
    rendezvous_timeout_s: float
    tp: int
    pp: int
    dp: int
    chunk_tokens: int | None
    max_prefill_tokens: int
    prefill_max_requests: int | None
    max_running_requests: int | None
    max_queued_requests: int | None
    mem_fraction: float
    max_total_tokens: int | None
    policy: str
    conservativeness: float
    mixed_chunk: bool
    prefill_decode_interval: int
    prefill_decode_interval_min_bs: int
    decode_graph_max_batch: int
    prefill_graphs: bool
    radix_cache: bool
    page_tokens: int
    context_tokens: int
    decode_log_interval: int
    incremental_streaming: bool
    stream_interval: int
    given: tuple[tuple[str, FlagValue], ...]


def parse_argv(argv: Sequence[str], profile: Profile) -> SchedulerFlags:
    """Return the resolved flags of one rank's command line.

    Raises:
        BadArgumentError: the engine would refuse them.
    """
    return _resolve(parse_arguments(argv), profile)


def resolve_flags(given: Mapping[str, FlagValue], profile: Profile) -> SchedulerFlags:
    """Return the resolved flags of a mapping, checked as if they had stood on a command line.

    Raises:
        BadArgumentError: the engine would refuse them.
    """
    return parse_argv(to_argv({"model-path": profile.model, **given}), profile)


def _resolve(given: Mapping[str, FlagValue], profile: Profile) -> SchedulerFlags:
    read = _Reader(given)
    tp, pp = read.whole("tp-size", profile.tensor_parallel), read.whole("pp-size", 1)
    dp = max(read.whole("attn-dp-size", 1), read.whole("dp-size", 1))
    chunk = read.whole("chunked-prefill-size", default_chunked_prefill_tokens(profile.memory.gpu_memory_mib))
    graph = _decode_graph_max_batch(read, profile, tp)
    has_dp_attention = read.switch("enable-dp-attention") or read.whole("attn-dp-size", 1) > 1
    flags = SchedulerFlags(
        model_path=read.word("model-path") or profile.model,
        host=read.word("host") or "127.0.0.1",
        port=read.whole("port", 30000),
        nodes=read.whole("nnodes", 1),
        node_rank=read.whole("node-rank", 0),
        rendezvous=read.word("dist-init-addr"),
        rendezvous_timeout_s=float(read.whole("dist-timeout", 60)),
        tp=tp,
        pp=pp,
        dp=dp,
        chunk_tokens=chunk if chunk > 0 else None,
        max_prefill_tokens=read.whole("max-prefill-tokens", 16384),
        prefill_max_requests=read.maybe("prefill-max-requests"),
        max_running_requests=read.maybe("max-running-requests"),
        max_queued_requests=read.maybe("max-queued-requests"),
        mem_fraction=_mem_fraction(read, profile, tp, pp, dp, chunk, graph),
        max_total_tokens=read.maybe("max-total-tokens"),
        policy=_policy(read),
        conservativeness=read.number("schedule-conservativeness", 1.0)
        * (_DP_ATTENTION_CONSERVATIVENESS if has_dp_attention else 1.0),
        mixed_chunk=read.switch("enable-mixed-chunk"),
        prefill_decode_interval=read.whole("prefill-decode-interval", 0),
        prefill_decode_interval_min_bs=read.whole("prefill-decode-interval-min-bs", 0),
        decode_graph_max_batch=graph,
        prefill_graphs=not read.is_disabled("prefill"),
        radix_cache=not read.switch("disable-radix-cache"),
        page_tokens=read.whole("page-size", 1),
        context_tokens=read.whole("context-length", profile.context_tokens),
        decode_log_interval=read.whole("decode-log-interval", 40),
        incremental_streaming=read.switch("incremental-streaming-output"),
        stream_interval=read.whole("stream-interval", 1),
        given=tuple(given.items()),
    )
    _refuse_invalid(flags, has_dp_attention=has_dp_attention)
    return flags


class _Reader:
    """Typed access to the given flags; argparse has already made each value of the right type."""

    def __init__(self, given: Mapping[str, FlagValue]) -> None:
        self._given = given

    def maybe(self, name: str) -> int | None:
        value = self._given.get(name)
        return None if value is None else int(str(value))

    def whole(self, name: str, default: int) -> int:
        value = self.maybe(name)
        return default if value is None else value

    def number(self, name: str, default: float) -> float:
        return float(str(self._given.get(name, default)))

    def word(self, name: str) -> str | None:
        value = self._given.get(name)
        return None if value is None else str(value)

    def switch(self, name: str) -> bool:
        return bool(self._given.get(name, False))

    def is_disabled(self, stage: str) -> bool:
        """Whether the CUDA graphs of a stage were switched off, by any of the three spellings."""
        switches = ("disable-cuda-graph", f"disable-{stage}-cuda-graph")
        by_backend = self.word(f"cuda-graph-backend-{stage}") == "disabled"
        return by_backend or any(map(self.switch, switches))


def _decode_graph_max_batch(read: _Reader, profile: Profile, tp: int) -> int:
    if read.is_disabled("decode"):
        return 0
    default = default_decode_graph_max_batch(profile.memory.gpu_memory_mib, tp)
    limit = read.maybe("max-running-requests")
    return read.whole("cuda-graph-max-bs-decode", default if limit is None else min(default, max(limit, 1)))


def _mem_fraction(  # noqa: PLR0917 - one positional call, right above
    read: _Reader, profile: Profile, tp: int, pp: int, dp: int, chunk: int, graph: int
) -> float:
    automatic = automatic_mem_fraction(
        gpu_memory_mib=profile.memory.gpu_memory_mib,
        chunked_prefill_tokens=chunk,
        max_prefill_tokens=read.whole("max-prefill-tokens", 16384),
        tp=tp,
        pp=pp,
        dp=dp,
        decode_graph_max_batch=graph,
        is_mla=profile.memory.is_mla,
    )
    return read.number("mem-fraction-static", automatic)


def _policy(read: _Reader) -> str:
    """Return the policy in force: cache-aware ones silently become fcfs without a radix cache."""
    policy = read.word("schedule-policy") or "fcfs"
    without_cache = read.switch("disable-radix-cache")
    return "fcfs" if without_cache and policy in _CACHE_AWARE else policy


def _refuse_invalid(flags: SchedulerFlags, *, has_dp_attention: bool) -> None:
    """Raise what SGLang asserts before it loads anything (arg_groups/validation_hook.py)."""
    chunk = (flags.chunk_tokens or 0) // (flags.dp if has_dp_attention else 1)
    rules = (
        (
            flags.tp * flags.pp % flags.nodes == 0,
            "AssertionError: tp_size must be divisible by number of nodes",
        ),
        (flags.conservativeness >= 0, "AssertionError: schedule_conservativeness must be non-negative"),
        (
            chunk % flags.page_tokens == 0,
            "AssertionError: chunked_prefill_size must be divisible by page_size",
        ),
        (
            not has_dp_attention or flags.tp % flags.dp == 0,
            "AssertionError: tp_size must be divisible by dp_size",
        ),
        (
            has_dp_attention or flags.dp == 1 or flags.nodes == 1,
            "AssertionError: multi-node data parallel is not supported unless dp attention!",
        ),
        (
            flags.policy != "shortest-prefill-first" or flags.radix_cache,
            "ValueError: schedule_policy='shortest-prefill-first' requires the radix cache",
        ),
        (flags.nodes == 1 or flags.rendezvous, "AssertionError: --dist-init-addr is required for multi-node"),
    )
    for holds, line in rules:
        if not holds:
            raise BadArgumentError(line, exit_code=1)
