from autotune.request import Request
from autotune.simulator.pool import KvPool
from autotune.simulator.sequence import Sequence


def sequence(*, group: int | None = None, prefix: int = 0, prompt: int = 100) -> Sequence:
    return Sequence(Request(0, prompt, 10, prefix_group=group, prefix_tokens=prefix), 0.0)


def test_a_prefix_is_a_hit_only_after_somebody_computed_it() -> None:
    pool = KvPool(1000)
    first, second = sequence(group=1, prefix=60), sequence(group=1, prefix=60)
    assert pool.lock(first) == 0
    pool.take(first, 100)
    pool.share_prefix(first)
    assert (first.private, first.shared, pool.cached, pool.locked) == (40, 60, 60, 60)
    assert pool.lock(second) == 60
    assert pool.available == 1000 - 60 - 40


def test_a_whole_prompt_is_never_a_hit_to_its_last_token() -> None:
    pool = KvPool(1000)
    first, second = sequence(group=1, prefix=100), sequence(group=1, prefix=100)
    pool.take(first, 100)
    pool.share_prefix(first)
    assert pool.hit(second) == 99


def test_two_that_computed_the_same_prefix_keep_one_copy() -> None:
    pool = KvPool(1000)
    twins = [sequence(group=1, prefix=60), sequence(group=1, prefix=60)]
    for twin in twins:
        pool.take(twin, 100)
    for twin in twins:
        pool.share_prefix(twin)
    assert pool.private == 80
    assert pool.cached == 60


def test_the_oldest_unused_entry_is_evicted_first_and_a_used_prefix_never() -> None:
    pool = KvPool(300)
    holder, old, young = sequence(group=1, prefix=50), sequence(), sequence()
    pool.take(holder, 100)
    pool.share_prefix(holder)
    for finished in (old, young):
        pool.take(finished, 60)
        pool.retire(finished)
    pool.take(holder, 140)
    assert pool.evicted == 60
    assert pool.cached == 110
    pool.take(holder, 60)
    assert (pool.cached, pool.locked, pool.available) == (50, 50, 0)


def test_of_a_long_entry_only_what_is_in_use_survives() -> None:
    pool = KvPool(200)
    long, short = sequence(group=1, prefix=100), sequence(group=1, prefix=30)
    pool.take(long, 100)
    pool.share_prefix(long)
    assert pool.lock(short) == 30
    pool.retire(long)
    assert pool.available == 170
    pool.take(short, 170)
    assert pool.cached == 30


def test_what_is_given_back_is_not_cached() -> None:
    pool = KvPool(1000)
    retracted = sequence(group=1, prefix=60)
    pool.take(retracted, 100)
    pool.share_prefix(retracted)
    pool.give_back(retracted)
    assert (pool.private, pool.cached, pool.locked, pool.used) == (0, 60, 0, 0)


def test_without_a_cache_nothing_stays() -> None:
    pool = KvPool(1000, caches=False)
    first = sequence(group=1, prefix=60)
    pool.take(first, 100)
    pool.share_prefix(first)
    pool.retire(first)
    assert (pool.cached, pool.available, pool.hit(sequence(group=1, prefix=60))) == (0, 1000, 0)


def test_a_flush_forgets_everything() -> None:
    pool = KvPool(1000)
    first = sequence(group=1, prefix=60)
    pool.take(first, 100)
    pool.share_prefix(first)
    pool.retire(first)
    assert pool.cached == 100
    pool.flush()
    assert (pool.cached, pool.hit(sequence(group=1, prefix=60))) == (0, 0)
