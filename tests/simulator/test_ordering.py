import numpy as np
import pytest

from autotune.request import Request
from autotune.simulator.ordering import in_policy_order
from autotune.simulator.pool import KvPool
from autotune.simulator.sequence import Sequence


def waiting(*requests: tuple[int, int, int | None, int]) -> list[Sequence]:
    return [
        Sequence(Request(index, prompt, output, prefix_group=group, prefix_tokens=prefix), float(index))
        for index, (prompt, output, group, prefix) in enumerate(requests)
    ]


def cached(pool: KvPool, group: int, tokens: int) -> None:
    (owner,) = waiting((tokens + 10, 5, group, tokens))
    pool.take(owner, tokens + 10)
    pool.share_prefix(owner)
    pool.retire(owner)


def order(policy: str, queue: list[Sequence], pool: KvPool | None = None) -> list[int]:
    generator = np.random.default_rng(1)
    ordered = in_policy_order(policy, queue, pool or KvPool(10_000), 100.0, generator)
    return [each.request.index for each in ordered]


def test_lpm_takes_the_longest_cached_prefix_first() -> None:
    pool = KvPool(10_000)
    cached(pool, 1, 100)
    cached(pool, 2, 300)
    queue = waiting((400, 5, None, 0), (400, 5, 1, 100), (400, 5, 2, 300))
    assert order("lpm", queue, pool) == [2, 1, 0]


def test_lpm_computes_an_uncached_prefix_once_before_its_repeats() -> None:
    queue = waiting((400, 5, 1, 300), (400, 5, 1, 300), (400, 5, None, 0), (400, 5, 2, 300))
    assert order("lpm", queue) == [0, 2, 3, 1]


def test_lpm_and_hrrn_are_fcfs_in_a_long_queue() -> None:
    pool = KvPool(10_000)
    cached(pool, 1, 100)
    queue = waiting(*[(400, 5, None, 0)] * 128, (400, 5, 1, 100))
    assert order("lpm", queue, pool) == list(range(129))
    assert order("hrrn", queue, pool) == list(range(129))
    assert order("lpm", queue[1:], pool)[0] == 128


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("fcfs", [0, 1, 2]),
        ("routing-key", [0, 1, 2]),
        ("lof", [1, 2, 0]),
        ("shortest-prefill-first", [2, 0, 1]),
        ("hrrn", [2, 0, 1]),
    ],
)
def test_the_other_policies_sort_as_documented(policy: str, expected: list[int]) -> None:
    assert order(policy, waiting((200, 1, None, 0), (900, 9, None, 0), (50, 5, None, 0))) == expected


def test_dfs_weight_takes_the_group_with_most_requests_first() -> None:
    queue = waiting((9, 1, 1, 5), (9, 1, 2, 5), (9, 1, 2, 5), (9, 1, None, 0))
    assert order("dfs-weight", queue)[:2] == [1, 2]


def test_random_is_a_permutation_that_differs_from_fcfs() -> None:
    shuffled = order("random", waiting(*[(9, 1, None, 0)] * 50))
    assert sorted(shuffled) == list(range(50)) != shuffled
