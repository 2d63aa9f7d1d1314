from autotune.engine.dialect import EffectiveFlags
from autotune.engine.sglang import SGLANG

_LIMIT = "max-running-requests"


def test_a_server_can_change_its_running_limit_up_to_what_it_was_launched_with() -> None:
    flag = SGLANG.live_flags(EffectiveFlags(flags={_LIMIT: 64, "pp-size": 1}, running_limit=64))[_LIMIT]

    assert (flag.minimum, flag.maximum) == (1, 64)
    assert flag.body(8) == {"server_args": {"pp_max_micro_batch_size": 8}}


def test_ranks_of_attention_data_parallelism_share_the_limit() -> None:
    old = EffectiveFlags(flags={"enable-dp-attention": True, "dp-size": 8}, running_limit=6)
    new = EffectiveFlags(flags={"attn-dp-size": 8}, running_limit=6)

    for effective in (old, new):
        flag = SGLANG.live_flags(effective)[_LIMIT]
        assert (flag.minimum, flag.maximum, flag.part_of(23)) == (8, 48, 2)
        assert flag.applied_to(effective, 23).running_limit == 2


def test_whole_replicas_do_not_share_it() -> None:
    effective = EffectiveFlags(flags={"dp-size": 8}, running_limit=64)

    assert SGLANG.live_flags(effective)[_LIMIT].ranks == 1


def test_nothing_is_live_where_the_limit_is_not_told_or_is_that_of_a_micro_batch() -> None:
    assert SGLANG.live_flags(EffectiveFlags(flags={})) == {}
    assert SGLANG.live_flags(EffectiveFlags(flags={"pp-size": 2}, running_limit=64)) == {}
