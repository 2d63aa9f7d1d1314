from collections.abc import Callable
from importlib.util import find_spec
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
    default_sampler,
    distribution_of,
    make_sampler,
    trial_at,
)
from autotune.space import Candidate, LauncherKind
from tests.support.trials import STUDY
from tests.test_space import space_of

INSTALLED = [kind for kind in SamplerKind if kind is not SamplerKind.BOTORCH or find_spec("botorch")]

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


def _drawn(
    kind: SamplerKind, count: int, accepts: Callable[[Candidate], bool] = lambda _: True
) -> list[Candidate]:
    study, sampler = optuna.create_study(), make_sampler(kind, SPACE, seed=3, accepts=accepts)
    seen = []
    for index in range(count):
        seen.append(sampler.draw(study))
        study.add_trial(trial_at(SPACE, seen[-1].to_dict(), {}))
        study.tell(index, float(index))
    assert [Candidate.of(trial.params) for trial in study.get_trials()] == seen
    return seen


@pytest.mark.parametrize("kind", INSTALLED)
def test_every_candidate_lies_on_the_spaces_grid_and_is_stored_as_launched(kind: SamplerKind) -> None:
    for flags in (candidate.to_dict() for candidate in _drawn(kind, 20)):
        assert all(SPACE.tune[name].contains(value) for name, value in flags.items())
        assert ("interval" in flags) == (flags["policy"] == "lpm")


def test_the_same_seed_asks_for_the_same_candidates() -> None:
    assert _drawn(SamplerKind.TPE, 12) == _drawn(SamplerKind.TPE, 12)


@pytest.mark.parametrize("kind", INSTALLED)
def test_what_is_not_worth_a_trial_is_drawn_again_before_optuna_sees_it(kind: SamplerKind) -> None:
    def accepts(candidate: Candidate) -> bool:
        flags = candidate.to_dict()
        return flags["policy"] == "lpm" and flags["interval"] in (2, 3)

    seen = _drawn(kind, 14, accepts)

    assert all(accepts(candidate) for candidate in seen)
    assert len(set(seen)) == 14
    assert seen == _drawn(kind, 14, accepts)


def test_a_space_without_anything_worth_a_trial_is_asked_all_the_same() -> None:
    draws: list[Candidate] = []

    def refuse(candidate: Candidate) -> bool:
        draws.append(candidate)
        return False

    (asked,) = _drawn(SamplerKind.TPE, 1, refuse)

    assert asked == draws[-1]
    assert len(draws) == INFORMED_DRAWS + UNIFORM_DRAWS


def test_trials_outside_the_space_do_not_shrink_it() -> None:
    study, sampler = optuna.create_study(), make_sampler(SamplerKind.TPE, SPACE, seed=3)
    for index in range(10):
        study.add_trial(trial_at(SPACE, {"policy": "fcfs"}, {}))
        study.tell(index, float(index))

    assert set(sampler.draw(study).to_dict()) >= set(SPACE.tune) - {"interval"}


def test_a_trial_has_its_parameters_in_the_spaces_order() -> None:
    trial = trial_at(SPACE, {"policy": "lpm", "chunked-prefill-size": 2048, "unknown": 1}, {"again": 3})

    assert list(trial.params.items()) == [("chunked-prefill-size", 2048), ("policy", "lpm")]
    assert trial.user_attrs == {"again": 3}


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


@pytest.mark.parametrize("launcher", list(LauncherKind))
def test_only_a_simulated_study_is_searched_without_a_model_by_default(launcher: LauncherKind) -> None:
    space = STUDY.space.model_copy(update={"launcher": launcher})

    is_simulated = launcher is LauncherKind.SIMULATED

    assert default_sampler(space) is (SamplerKind.TPE if is_simulated else SamplerKind.GP)
