"""The combinations of flags that SGLang refuses at start, as a table; each rule names its source.

In: a search space and a candidate. Out: the first broken rule in words, or None. Pure.
A rule speaks only of what is set or has a sure default: what the engine decides by itself never breaks one.
References are to SGLang 0.5.23 (srt/ = sglang/srt/) unless a version is given.
"""

from collections.abc import Callable
from dataclasses import dataclass

from autotune.engine.sglang.flags import LaunchFlags
from autotune.space import Candidate, SearchSpace


@dataclass(frozen=True)
class Rule:
    """A combination that is refused: when it is broken, what to say, and where SGLang says so."""

    is_broken: Callable[[LaunchFlags], bool]
    message: str
    source: str


def invalid_reason(space: SearchSpace, candidate: Candidate) -> str | None:
    """Return why SGLang would refuse the candidate, with the rule's source; None if no rule is broken."""
    flags = LaunchFlags.of(space, candidate.to_dict())
    broken = next((rule for rule in RULES if rule.is_broken(flags)), None)
    return None if broken is None else f"{broken.message} ({broken.source})"


def _needs_more_gpus(flags: LaunchFlags) -> bool:
    gpus = [len(node.gpu_ids) or node.gpus for node in flags.space.nodes]
    return min(gpus) > 0 and flags.tp * flags.pp * flags.replicas > sum(gpus)


def _replicates_over_nodes(flags: LaunchFlags) -> bool:
    return flags.replicas > 1 and flags.nodes > 1


def _chunk_is_no_whole_pages(flags: LaunchFlags) -> bool:
    chunk = flags.whole("chunked-prefill-size", -1)
    # The test comes after the division by the attention groups.
    return chunk > 0 and chunk // flags.attention_dp % flags.whole("page-size", 1) != 0


def _chunk_vanishes(flags: LaunchFlags) -> bool:
    chunk = flags.whole("chunked-prefill-size", -1)
    return chunk > 0 and chunk < flags.attention_dp


def _splits_context_unevenly(flags: LaunchFlags) -> bool:
    groups = flags.whole("attn-cp-size", 1)
    return groups > 1 and flags.tp % (flags.attention_dp * groups) != 0


def _speculates(flags: LaunchFlags) -> bool:
    return flags.value("speculative-algorithm") is not None


def _speculates_with(flags: LaunchFlags, *algorithms: str) -> bool:
    return flags.value("speculative-algorithm") in algorithms


def _mixes_chunks_while_speculating(flags: LaunchFlags) -> bool:
    # 0.5.23 switches mixed chunks off by itself for the algorithms that cannot do it.
    return flags.is_before(0, 5, 20) and _speculates(flags) and flags.is_on("enable-mixed-chunk")


def _speculates_in_stages(flags: LaunchFlags) -> bool:
    if flags.pp == 1 or not _speculates(flags):
        return False
    return flags.is_before(0, 5, 20) or not _speculates_with(flags, "EAGLE", "DSPARK")


def _lacks_draft_steps(flags: LaunchFlags) -> bool:
    if not _speculates_with(flags, "EAGLE", "EAGLE3", "NEXTN", "STANDALONE"):
        return False
    others = ("speculative-eagle-topk", "speculative-num-draft-tokens")
    lacks = flags.value("speculative-num-steps") is None and not flags.is_on("speculative-adaptive")
    return lacks and any(flags.value(name) is not None for name in others)


def _drafts_a_tree_over_pages(flags: LaunchFlags) -> bool:
    if flags.whole("speculative-eagle-topk", 1) == 1 or flags.whole("page-size", 1) == 1:
        return False
    backend = flags.value("attention-backend")
    return _speculates(flags) and backend is not None and backend not in ("flashinfer", "fa3", "triton")


def _mixes_policy_and_priority(flags: LaunchFlags) -> bool:
    policies = ("fcfs", "lof")
    return flags.is_on("enable-priority-scheduling") and flags.value("schedule-policy") not in policies


def _retracts_by_absent_priority(flags: LaunchFlags) -> bool:
    by_priority = flags.value("retraction-policy") == "priority"
    return by_priority and not flags.is_on("enable-priority-scheduling")


def _sorts_by_absent_cache(flags: LaunchFlags) -> bool:
    sorts = flags.value("schedule-policy") == "shortest-prefill-first"
    return sorts and flags.is_on("disable-radix-cache")


def _multiplexes_wrongly(flags: LaunchFlags) -> bool:
    fits = (
        flags.pp == 1
        and flags.whole("chunked-prefill-size", 0) == -1
        and flags.is_on("disable-overlap-schedule")
    )
    return flags.is_on("enable-pdmux") and not fits


def _overlaps_two_batches_alone(flags: LaunchFlags) -> bool:
    alone = flags.value("moe-a2a-backend") in (None, "none") and flags.attention_dp == 1
    return flags.is_on("enable-two-batch-overlap") and alone


def _spreads_experts_wrongly(flags: LaunchFlags) -> bool:
    # An all-to-all backend that spans the ranks sets ep-size to tp-size by itself.
    if flags.value("moe-a2a-backend") not in (None, "none"):
        return False
    fixed_layout = flags.value("moe-runner-backend") in ("flashinfer_cutlass", "flashinfer_cutedsl")
    return fixed_layout and flags.whole("ep-size", 1) not in (1, flags.tp)


RULES: tuple[Rule, ...] = (
    Rule(
        _needs_more_gpus,
        "tp-size x pp-size x replicas is more than the GPUs of the nodes",
        "one scheduler per GPU, srt/entrypoints/engine.py",
    ),
    Rule(
        lambda flags: flags.tp * flags.pp % flags.nodes != 0,
        "tp-size x pp-size must be a multiple of the number of nodes",
        "srt/arg_groups/validation_hook.py:179",
    ),
    Rule(
        _replicates_over_nodes,
        "replicas (dp-size) cannot span nodes; use attention data parallelism",
        "srt/arg_groups/validation_hook.py:199; 0.5.16 srt/server_args.py:7601",
    ),
    Rule(
        lambda flags: flags.whole("attn-dp-size", 1) > 1 and flags.whole("dp-size", 1) > 1,
        "attn-dp-size and dp-size cannot both be above 1",
        "srt/arg_groups/parallel_hook.py:287",
    ),
    Rule(
        lambda flags: flags.tp % flags.attention_dp != 0,
        "tp-size must be a multiple of the attention groups (attn-dp-size, or dp-size with DP attention)",
        "srt/arg_groups/parallel_hook.py:326; 0.5.16 srt/server_args.py:5608",
    ),
    Rule(
        _splits_context_unevenly,
        "tp-size must be a multiple of attn-dp-size x attn-cp-size",
        "srt/arg_groups/parallel_hook.py:162",
    ),
    Rule(
        lambda flags: flags.is_on("enable-dp-lm-head") and flags.attention_dp == 1,
        "enable-dp-lm-head needs attention data parallelism",
        "srt/arg_groups/overrides.py:1424",
    ),
    Rule(
        lambda flags: flags.value("moe-dense-tp-size") not in (None, 1, flags.tp),
        "moe-dense-tp-size must be 1 or tp-size",
        "srt/arg_groups/validation_hook.py:207",
    ),
    Rule(
        _chunk_vanishes,
        "chunked-prefill-size is divided by the attention groups and leaves nothing",
        "srt/arg_groups/parallel_hook.py:327",
    ),
    Rule(
        _chunk_is_no_whole_pages,
        "chunked-prefill-size (divided by the attention groups) must be a multiple of page-size",
        "srt/arg_groups/validation_hook.py:244",
    ),
    Rule(
        lambda flags: flags.is_on("disable-cuda-graph-padding") and flags.is_on("enable-torch-compile"),
        "disable-cuda-graph-padding and enable-torch-compile exclude each other",
        "srt/arg_groups/validation_hook.py:188",
    ),
    Rule(
        lambda flags: flags.pp > 1 and flags.value("min-free-slots-delay") is not None,
        "min-free-slots-delay does not go with pipeline stages",
        "srt/arg_groups/validation_hook.py:165",
    ),
    Rule(
        _speculates_in_stages,
        "this speculative-algorithm does not go with pipeline stages",
        "srt/arg_groups/validation_hook.py:121; 0.5.16 srt/server_args.py:7597",
    ),
    Rule(
        _mixes_chunks_while_speculating,
        "enable-mixed-chunk does not go with speculative decoding",
        "0.5.16 srt/server_args.py:7627",
    ),
    Rule(
        _lacks_draft_steps,
        "set speculative-num-steps, or leave all three speculative sizes to the engine",
        "srt/arg_groups/speculative_hook.py:1160",
    ),
    Rule(
        _drafts_a_tree_over_pages,
        "speculative-eagle-topk above 1 with page-size above 1 needs flashinfer, fa3 or triton attention",
        "srt/arg_groups/speculative_hook.py:1278",
    ),
    Rule(
        lambda flags: _speculates_with(flags, "STANDALONE", "NGRAM") and flags.attention_dp > 1,
        "STANDALONE and NGRAM speculation do not go with attention data parallelism",
        "srt/arg_groups/speculative_hook.py:1082 and :1361",
    ),
    Rule(
        _spreads_experts_wrongly,
        "this moe-runner-backend needs an ep-size of 1 or tp-size",
        "srt/arg_groups/moe_hook.py:80",
    ),
    Rule(
        _overlaps_two_batches_alone,
        "enable-two-batch-overlap without a moe-a2a-backend needs attention data parallelism",
        "srt/arg_groups/validation_hook.py:756",
    ),
    Rule(
        _mixes_policy_and_priority,
        "enable-priority-scheduling needs the schedule-policy fcfs or lof",
        "srt/arg_groups/validation_hook.py:282",
    ),
    Rule(
        _retracts_by_absent_priority,
        "retraction-policy priority needs enable-priority-scheduling",
        "srt/arg_groups/validation_hook.py:304",
    ),
    Rule(
        lambda flags: flags.value("schedule-policy") == "priority",
        "schedule-policy priority passes the parser and stops the scheduler",
        "srt/managers/schedule_policy.py:344",
    ),
    Rule(
        _sorts_by_absent_cache,
        "schedule-policy shortest-prefill-first needs the radix cache",
        "srt/managers/schedule_policy.py:334",
    ),
    Rule(
        _multiplexes_wrongly,
        "enable-pdmux needs one pipeline stage, chunked-prefill-size -1 and disable-overlap-schedule",
        "srt/arg_groups/validation_hook.py:250",
    ),
)
