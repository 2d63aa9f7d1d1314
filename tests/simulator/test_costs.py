from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.simulator.costs import PassLoad, StepCosts, token_pairs, with_groups
from autotune.simulator.profile import read_profile
from tests.support.simulated import DEEPSEEK, LLAMA, profile_without_noise

NOISY = read_profile(LLAMA)


def costs_of(name: str = LLAMA, *, graph: int = 256, **step: float) -> StepCosts:
    return StepCosts(profile_without_noise(name, **step), decode_graph_max_batch=graph, seed=1)


def prefill(new_tokens: int, pairs: float) -> PassLoad:
    return PassLoad(new_tokens, pairs, 0, 0, 0)


def decode(sequences: int, context_sum: int = 0, longest_context: int = 0) -> PassLoad:
    return PassLoad(0, 0.0, sequences, context_sum, longest_context)


def decode_s(costs: StepCosts, load: PassLoad) -> float:
    return costs.decode_ends_s(load, now_s=0.0, most_steps=1, until_s=inf)[0]


def test_a_prefill_pass_is_linear_in_tokens_and_token_pairs() -> None:
    costs = costs_of(DEEPSEEK)
    pairs = token_pairs(0, 1000) + token_pairs(500, 100)
    assert pairs == 1000 * 500 + 100 * 550
    assert costs.prefill_s(prefill(1100, pairs)) == pytest.approx(2.76e-4 * 1100 + 3.8e-9 * 555_000)


def test_a_tiny_prefill_pass_takes_its_minimum() -> None:
    assert costs_of().prefill_s(prefill(1, 0.5)) == pytest.approx(14e-3)


def test_only_the_first_pass_after_a_launch_is_cold() -> None:
    costs = costs_of(cold_start_s=2.0)
    load = prefill(1000, 0.0)
    assert costs.prefill_s(load) - costs.prefill_s(load) == pytest.approx(2.0)


def test_a_single_stream_of_deepseek_takes_its_fixed_time() -> None:
    assert decode_s(costs_of(DEEPSEEK), decode(1)) == pytest.approx(31.5e-3)


def test_experts_are_covered_with_diminishing_growth() -> None:
    costs = costs_of(DEEPSEEK)
    times = [decode_s(costs, decode(batch)) for batch in (1, 2, 33, 34)]
    assert times[1] - times[0] > times[3] - times[2] > 0


def test_decode_passes_above_the_largest_graph_are_slower() -> None:
    costs = costs_of(graph=8)
    in_graph, eager = (decode_s(costs, decode(size)) for size in (8, 9))
    assert eager / in_graph == pytest.approx(1.15, rel=0.01)


def test_a_mixed_pass_costs_a_prefill_and_a_decode_less_half_the_fixed_part() -> None:
    costs = costs_of(DEEPSEEK)
    apart = costs.prefill_s(prefill(1000, 5e5)) + decode_s(costs, decode(4, 4000, 1000))
    assert costs.prefill_s(PassLoad(1000, 5e5, 4, 4000, 1000)) == pytest.approx(apart - 31.5e-3 / 2)


def test_a_mixed_pass_takes_what_was_measured_where_it_was() -> None:
    costs = costs_of()
    mixed = PassLoad(1000, 5e5, 16, 131_000, 8200)
    extra = costs.prefill_s(mixed) - costs.prefill_s(prefill(1000, 5e5))
    assert extra == pytest.approx(3.6e-6 * 131_000)


@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_decode_times_do_not_depend_on_how_a_run_is_cut(cuts: list[int]) -> None:
    total = sum(cuts)
    whole = StepCosts(NOISY, decode_graph_max_batch=256, seed=3)
    parts = StepCosts(NOISY, decode_graph_max_batch=256, seed=3)
    context, batch, longest, times = 5000, 7, 900, list[float]()
    for cut in cuts:
        now_s = times[-1] if times else 0.0
        load = decode(batch, context, longest)
        times += parts.decode_ends_s(load, now_s=now_s, most_steps=cut, until_s=inf)
        context, longest = context + cut * batch, longest + cut
    assert times == whole.decode_ends_s(decode(batch, 5000, 900), now_s=0.0, most_steps=total, until_s=inf)


def test_decode_passes_end_with_the_first_that_somebody_waits_for() -> None:
    every = costs_of().decode_ends_s(decode(4, 4000, 1000), now_s=1.0, most_steps=9, until_s=inf)
    for until_s, passes in ((0.0, 1), (every[3], 4), (np.nextafter(every[3], inf), 5), (every[-1] + 1, 9)):
        cut = costs_of().decode_ends_s(decode(4, 4000, 1000), now_s=1.0, most_steps=9, until_s=until_s)
        assert cut == every[:passes]


def test_noise_differs_between_launches_and_repeats_for_a_seed() -> None:
    first, again, other = (
        np.diff(
            StepCosts(NOISY, decode_graph_max_batch=256, seed=seed).decode_ends_s(
                decode(4, 4000, 1000), now_s=0.0, most_steps=2000, until_s=inf
            )
        )
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert np.std(first / other) == pytest.approx(0.03 * np.sqrt(2), rel=0.1)
    assert abs(np.mean(first / other) - 1) > 3 * 0.03 * np.sqrt(2 / 2000)


@pytest.mark.parametrize(("name", "share"), [(DEEPSEEK, 0.25), (LLAMA, 1.0)])
def test_attention_dp_spreads_the_context_that_every_card_of_an_mla_model_would_read(
    name: str, share: float
) -> None:
    profile = profile_without_noise(name)

    assert with_groups(profile, 4).decode_context_s == share * profile.step.decode_context_s
    assert with_groups(profile, 1) == profile.step
