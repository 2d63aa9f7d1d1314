from collections.abc import Callable
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.search.sampler import (
    INFORMED_DRAWS,
    UNIFORM_DRAWS,
    SamplerKind,
    coordinates,
    distribution_of,
    make_sampler,
    suggest,
)
from autotune.space import Candidate, SearchSpace
from tests.test_space import space_of

SPACE = space_of(
    tune={
        "chunked-prefill-size": {"int": [1000, 32768], "scale": "log", "multiple_of": 64},
        "max-running-requests": {"int": [10, 100], "multiple_of": 10},
        "mem-fraction-static": {"float": [0.7, 0.92], "step": 0.05},
        "conservativeness": {"float": [0.3, 1.3], "scale": "log"},
        "policy": {"choices": ["fcfs", "lpm"]},
        "interval": {"int": [1, 8], "when": "policy == 'lpm'"},
    }
)


def _asked(kind: SamplerKind, count: int, space: SearchSpace = SPACE) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=make_sampler(kind, space, seed=3))
    seen = []
    for index in range(count):
        trial = study.ask()
        seen.append(suggest(trial, space).to_dict())
        study.tell(trial, float(index))
    assert [trial.params for trial in study.get_trials()] == seen
    return seen


@pytest.mark.parametrize("kind", list(SamplerKind))
def test_every_candidate_lies_on_the_spaces_grid_and_is_stored_as_launched(kind: SamplerKind) -> None:
    for flags in _asked(kind, 20):
        assert all(SPACE.tune[name].contains(value) for name, value in flags.items())
        assert ("interval" in flags) == (flags["policy"] == "lpm")


def test_the_same_seed_asks_for_the_same_candidates() -> None:
    assert _asked(SamplerKind.TPE, 12) == _asked(SamplerKind.TPE, 12)


def _drawn(kind: SamplerKind, accepts: Callable[[Candidate], bool], count: int) -> list[Candidate]:
    study = optuna.create_study(sampler=make_sampler(kind, SPACE, seed=3, accepts=accepts))
    seen = []
    for index in range(count):
        trial = study.ask()
        seen.append(suggest(trial, SPACE))
        study.tell(trial, float(index))
    return seen


@pytest.mark.parametrize("kind", list(SamplerKind))
def test_what_is_not_worth_a_trial_is_drawn_again_before_optuna_sees_it(kind: SamplerKind) -> None:
    def accepts(candidate: Candidate) -> bool:
        flags = candidate.to_dict()
        return flags["policy"] == "lpm" and flags["interval"] in (2, 3)

    seen = _drawn(kind, accepts, 14)

    assert all(accepts(candidate) for candidate in seen)
    assert len(set(seen)) == 14
    assert seen == _drawn(kind, accepts, 14)


def test_a_space_without_anything_worth_a_trial_is_asked_all_the_same() -> None:
    draws: list[Candidate] = []

    def refuse(candidate: Candidate) -> bool:
        draws.append(candidate)
        return False

    (asked,) = _drawn(SamplerKind.TPE, refuse, 1)

    assert asked == draws[-1]
    assert len(draws) == INFORMED_DRAWS + UNIFORM_DRAWS


def test_an_enqueued_candidate_is_not_drawn_for() -> None:
    def refuse(_candidate: Candidate) -> bool:
        raise AssertionError

    study = optuna.create_study(sampler=make_sampler(SamplerKind.TPE, SPACE, seed=3, accepts=refuse))
    study.enqueue_trial({"policy": "fcfs"})

    assert study.ask().suggest_categorical("policy", ["fcfs", "lpm"]) == "fcfs"


def test_a_baseline_outside_the_space_does_not_shrink_it() -> None:
    study = optuna.create_study(sampler=make_sampler(SamplerKind.TPE, SPACE, seed=3))
    outside = study.ask()
    study.tell(outside, 1.0)
    trial = study.ask()

    assert set(study.sampler.infer_relative_search_space(study, trial._cached_frozen_trial)) == (
        set(SPACE.tune) - {"interval"}
    )


def test_a_distribution_covers_exactly_the_allowed_ends() -> None:
    chunk = distribution_of(SPACE.tune["chunked-prefill-size"])

    assert chunk == optuna.distributions.IntDistribution(1024, 32768, log=True)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "chunked-prefill-size": st.integers(0, 100_000),
            "mem-fraction-static": st.floats(0, 1),
            "policy": st.sampled_from(["fcfs", "lpm", "random"]),
            "interval": st.integers(0, 20),
            "unknown": st.integers(),
        },
    )
)
def test_coordinates_are_always_inside_the_space(flags: dict[str, Any]) -> None:
    for name, value in coordinates(SPACE, flags).items():
        assert SPACE.tune[name].contains(value)
