"""Which flags a running SGLang server can change, and within which bounds.

In: the flags that it was launched with, read back from it. Out: `LiveFlag`s. Pure, but for knowledge.yaml.
Nothing but the limit of running requests is a flag of a launch (srt/managers/scheduler_components/
internal_state.py:168); a rank of attention data parallelism is told its own part of it.
"""

from autotune.engine.dialect import EffectiveFlags, LiveFlag
from autotune.engine.sglang.flags import live_knowledge
from autotune.space import FlagValue


def live_flags(effective: EffectiveFlags) -> dict[str, LiveFlag]:
    """Return the flags that can be set live; none where no limit is told or it means something else."""
    if effective.running_limit is None:
        return {}
    ranks = _attention_ranks(effective)
    return {
        name: LiveFlag(name, known, maximum=effective.running_limit * ranks, ranks=ranks)
        for name, known in live_knowledge().items()
        if all(_is_unset_or(effective, flag, value) for flag, value in known.needs.items())
    }


def _attention_ranks(effective: EffectiveFlags) -> int:
    old = _whole(effective, "dp-size") if effective.flags.get("enable-dp-attention") is True else 1
    return max(old, _whole(effective, "attn-dp-size"))


def _whole(effective: EffectiveFlags, name: str) -> int:
    value = effective.flags.get(name)
    return value if isinstance(value, int) else 1


def _is_unset_or(effective: EffectiveFlags, name: str, value: FlagValue) -> bool:
    return effective.flags.get(name) in (None, value)
