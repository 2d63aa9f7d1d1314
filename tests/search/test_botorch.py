"""BoTorch itself needs torch, a gigabyte: where it is not installed, only what is shown to it is tested."""

import sys
from importlib.util import find_spec
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from autotune.errors import ConfigError
from autotune.search.botorch import START_UP_TRIALS, WholeTrials, botorch_sampler
from autotune.search.gp.history import PARTIAL

SPACE: dict[str, BaseDistribution] = {"a": IntDistribution(1, 64), "b": IntDistribution(1, 64)}
MET = {"ttft": -1.0, "tpot": -0.5}


class Witness(RandomSampler):
    """Keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.shown: list[FrozenTrial] = []

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self.shown = study.get_trials()
        return super().sample_relative(study, trial, search_space)


def _trial(flags: dict[str, int], value: float | None, **changes: Any) -> FrozenTrial:
    distributions = {name: SPACE.get(name, IntDistribution(1, 64)) for name in flags}
    asked: dict[str, Any] = {"params": flags, "distributions": distributions, "constraints": MET}
    return create_trial(value=value, **asked | changes)


def test_only_trials_that_have_every_flag_and_every_ceiling_and_whole_values_are_shown() -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            _trial({"a": 1, "b": 2, "c": 3}, 10.0),
            _trial({"a": 1}, 20.0),
            _trial({"a": 2, "b": 2}, 30.0, constraints={"ttft": 1.0}),
            _trial({"a": 3, "b": 2}, 40.0, user_attrs={PARTIAL: True}),
            _trial({"a": 4, "b": 2}, None, state=TrialState.FAIL),
            _trial({"a": 5, "b": 2}, 50.0),
        ]
    )
    witness = Witness()

    WholeTrials(witness).sample_relative(study, create_trial(state=TrialState.RUNNING), SPACE)

    assert [trial.params for trial in witness.shown] == [{"a": 1, "b": 2}, {"a": 5, "b": 2}]
    assert [trial.value for trial in witness.shown] == [10.0, 50.0]
    assert all(trial.constraints == MET for trial in witness.shown)


def test_what_it_draws_alone_is_the_inner_samplers() -> None:
    study, trial = optuna.create_study(), create_trial(state=TrialState.RUNNING)
    one, other = RandomSampler(seed=4), WholeTrials(RandomSampler(seed=4))

    draws = [each.sample_independent(study, trial, "a", SPACE["a"]) for each in (one, other)]

    assert draws[0] == draws[1]
    assert other.infer_relative_search_space(study, trial) == {}


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_integration", None)

    with pytest.raises(ConfigError, match=r"--sampler botorch .* pip install 'autotune\[botorch\]'"):
        botorch_sampler(0)


@pytest.mark.skipif(find_spec("botorch") is None, reason="BoTorch is not installed (extra botorch)")
def test_botorch_comes_near_the_optimum_that_its_ceiling_allows() -> None:
    study, sampler = optuna.create_study(direction="maximize"), botorch_sampler(0)
    for _ in range(START_UP_TRIALS + 6):
        trial = create_trial(state=TrialState.RUNNING)
        drawn = sampler.sample_relative(study, trial, SPACE)
        flags = {
            name: drawn.get(name) or sampler.sample_independent(study, trial, name, SPACE[name])
            for name in SPACE
        }
        study.add_trial(_trial(flags, flags["a"], constraints={"limit": flags["a"] + flags["b"] - 64.0}))

    allowed = [trial.params["a"] for trial in study.trials if trial.constraints["limit"] <= 0]
    assert max(allowed) >= 55
