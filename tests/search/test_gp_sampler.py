from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

import autotune.search
from autotune.search import CrashAwareSampler
from autotune.search.gp.acquisition import log_improvement
from autotune.search.gp.history import PARTIAL
from autotune.search.gp.model import signed_log
from autotune.search.gp.output import Output
from autotune.search.gp.prior import Prediction
from autotune.search.gp.room import crash_chance
from autotune.search.gp.sampler import START_UP_TRIALS

SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}


def _peak(x: float, y: float) -> float:
    return float(np.exp(-8 * ((x - 0.7) ** 2 + (y - 0.3) ** 2)))


def _study(**options: Any) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=CrashAwareSampler(seed=3, **options))


def _run(study: optuna.Study, count: int, *, crash_above: float = 2.0, limit: float = 2.0) -> None:
    """Crash where x is above one bound, miss a constraint where y is above another."""
    for _ in range(count):
        trial = study.ask(SPACE)
        x, y = trial.params["x"], trial.params["y"]
        if x > crash_above:
            study.tell(trial, state=TrialState.FAIL)
        else:
            trial.set_constraint("y", y - limit)
            study.tell(trial, _peak(x, y))


def test_it_finds_the_peak_in_a_few_trials() -> None:
    study = _study()

    _run(study, 20)

    assert study.best_value > 0.97


def test_a_region_that_crashes_is_left_alone() -> None:
    study = _study()

    _run(study, 18, crash_above=0.5)

    crashes = [trial.number for trial in study.trials if trial.state is TrialState.FAIL]
    assert sum(number >= START_UP_TRIALS for number in crashes) <= 4
    assert study.best_params["x"] == pytest.approx(0.5, abs=0.1)
    assert study.best_params["y"] == pytest.approx(0.3, abs=0.1)


def test_a_constraint_moves_the_best_to_its_edge() -> None:
    study = _study()

    _run(study, 25, limit=0.2)

    assert study.best_params["y"] == pytest.approx(0.2, abs=0.05)
    assert study.best_params["x"] == pytest.approx(0.7, abs=0.1)


def test_the_same_seed_and_trials_give_the_same_candidates() -> None:
    one, other = _study(), _study()
    for study in (one, other):
        _run(study, 12)

    assert [trial.params for trial in one.trials] == [trial.params for trial in other.trials]


def test_reseeding_parts_two_equal_samplers() -> None:
    one, other = _study(), _study()
    other.sampler.reseed_rng()

    assert one.ask(SPACE).params != other.ask(SPACE).params


def test_the_values_of_a_load_that_was_stopped_teach_nothing() -> None:
    def proposal(value: float, *, partial: bool) -> Mapping[str, Any]:
        study = _study()
        _run(study, 14, limit=0.6)
        trial = study.ask(SPACE)
        trial.set_user_attr(PARTIAL, value=partial)
        trial.set_constraint("y", 0.5)
        study.tell(trial, value)
        return study.ask(SPACE).params

    assert proposal(1e-3, partial=True) == proposal(1e3, partial=True)
    assert proposal(1e-3, partial=False) != proposal(1e3, partial=False)


def test_pending_trials_are_not_proposed_again() -> None:
    study = _study()
    _run(study, 10)

    asked = [study.ask(SPACE).params for _ in range(5)]

    points = np.array([[each["x"], each["y"]] for each in asked])
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)[np.triu_indices(5, 1)]
    assert apart.min() > 0.001


def _gain_after(study: optuna.Study) -> float | None:
    assert isinstance(study.sampler, CrashAwareSampler)
    study.ask(SPACE)
    return study.sampler.expected_gain


def test_less_is_expected_to_be_gained_the_more_is_known() -> None:
    study = _study()
    _run(study, START_UP_TRIALS)
    early = _gain_after(study)
    _run(study, 17)
    late = _gain_after(study)

    assert early is not None
    assert late is not None
    assert 0 <= late < 0.01 < early < 2


def _told(study: optuna.Study, x: float, value: float, constraint: float = -1.0) -> None:
    trial = optuna.create_trial(state=TrialState.RUNNING, params={"x": x, "y": 0.5}, distributions={**SPACE})
    study.add_trial(trial)
    number = len(study.trials) - 1
    optuna.Trial(study, study.trials[number]._trial_id).set_constraint("y", constraint)
    study.tell(number, value)


def _worth(study: optuna.Study, *xs: float) -> list[float] | None:
    assert isinstance(study.sampler, CrashAwareSampler)
    running = optuna.create_trial(state=TrialState.RUNNING)
    return study.sampler.worth_of(study, running, SPACE, [{"x": x, "y": 0.5} for x in xs])


def test_what_is_worth_most_is_not_what_one_lucky_launch_showed() -> None:
    study = _study()
    for x in np.linspace(0, 1, 6):
        _told(study, float(x), 1.0 + 0.2 * float(x))
    for _ in range(3):
        _told(study, 0.2, 1.04)
    _told(study, 0.2, 1.5)

    worth = _worth(study, 0.2, 1.0)

    assert worth is not None
    assert worth[0] < worth[1]


def test_what_lies_at_a_constraint_is_worth_less_than_a_little_less_with_room() -> None:
    study = _study()
    for x in np.linspace(0, 1, 12):
        _told(study, float(x), 1.0 + 0.02 * float(x), constraint=0.3 * (float(x) - 0.8))

    worth = _worth(study, 0.79, 0.3, 1.0)

    assert worth is not None
    assert worth[2] < worth[0] < worth[1]


@pytest.mark.parametrize("constraint", [-1.0, 0.5], ids=["few", "nothing feasible"])
def test_nothing_is_known_to_be_worth_more_while_little_is_known(constraint: float) -> None:
    study = _study()
    for x in np.linspace(0, 1, 5 if constraint < 0 else 12):
        _told(study, float(x), 1.0 + float(x), constraint)

    assert _worth(study, 0.5, 0.6) is None


def test_a_gain_is_a_share_also_of_values_that_have_no_logarithm() -> None:
    study = _study()
    for _ in range(START_UP_TRIALS):
        trial = study.ask(SPACE)
        study.tell(trial, 100 * _peak(trial.params["x"], trial.params["y"]) - 200)

    gain = _gain_after(study)

    assert gain is not None
    assert 0 < gain < 1


def test_nothing_is_known_of_gains_before_a_feasible_trial_and_with_several_objectives() -> None:
    spread, infeasible = _study(), _study()
    several = optuna.create_study(directions=["maximize", "maximize"], sampler=CrashAwareSampler(seed=3))
    _run(spread, START_UP_TRIALS - 1)
    _run(infeasible, 12, limit=-1.0)
    for _ in range(12):
        trial = several.ask(SPACE)
        several.tell(trial, [trial.params["x"], trial.params["y"]])

    assert [_gain_after(study) for study in (spread, infeasible, several)] == [None] * 3


def test_several_objectives_spread_over_their_front() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=CrashAwareSampler(seed=3))
    for _ in range(25):
        trial = study.ask(SPACE)
        x, y = trial.params["x"], trial.params["y"]
        study.tell(trial, [x - y * y, x * x + y * y])

    front = [trial.params for trial in study.best_trials]

    assert max(each["x"] for each in front) > 0.8
    assert min(each["x"] for each in front) < 0.3
    assert np.mean([each["y"] for each in front]) < 0.2


def test_conditional_parameters_are_modelled_together() -> None:
    study = _study()
    for _ in range(15):
        trial = study.ask()
        is_fast = trial.suggest_categorical("mode", ["slow", "fast"]) == "fast"
        study.tell(trial, 1 + trial.suggest_float("depth", 0, 1) if is_fast else 0.5)

    assert study.best_value > 1.9


def test_failures_that_say_nothing_about_the_parameters_are_no_crashes() -> None:
    study = _study(is_crash=lambda _: False)

    _run(study, 14, crash_above=0.5)

    later = [trial.params["x"] for trial in study.trials[START_UP_TRIALS:]]
    assert np.mean(np.array(later) > 0.5) > 0.3


class _Twin:
    """Expects the peak elsewhere in height, the crash at the wrong place, and the constraint exactly."""

    def __init__(self, factor: float = 2.0, shift: float = 0.1) -> None:
        self.factor, self.shift = factor, shift

    def learn(self, trials: Sequence[FrozenTrial]) -> None:
        """It knows what it knows."""

    def predict(self, params: Mapping[str, Any]) -> Prediction:
        x, y = params["x"], params["y"]
        return Prediction((self.factor * _peak(x, y),), {"y": y - 0.2}, room=(0.5 + self.shift - x) * 5)


def test_a_prior_finds_the_peak_without_a_start_up() -> None:
    study = _study(prior=_Twin())

    _run(study, 10, crash_above=0.5, limit=0.2)

    assert study.best_params["x"] == pytest.approx(0.5, abs=0.06)
    assert study.best_params["y"] == pytest.approx(0.2, abs=0.06)


def test_a_prior_is_used_before_anything_was_measured() -> None:
    study = _study(prior=_Twin())
    trial = optuna.create_trial(state=TrialState.RUNNING)

    params = study.sampler.sample_relative(study, trial, SPACE)

    assert params["x"] < 0.7
    assert params["y"] < 0.3


class _Misled:
    """Expects the peak where the valley is."""

    def learn(self, trials: Sequence[FrozenTrial]) -> None:
        """It knows what it knows."""

    def predict(self, params: Mapping[str, Any]) -> Prediction:
        return Prediction((_peak(1 - params["x"], 1 - params["y"]),), {}, room=3.0)


def test_a_wrong_prior_is_overruled() -> None:
    study = _study(prior=_Misled())

    _run(study, 25)

    assert study.best_value > 0.9


class _Speechless:
    """Cannot tell anything but that there is room."""

    def learn(self, trials: Sequence[FrozenTrial]) -> None:
        """It knows what it knows."""

    def predict(self, params: Mapping[str, Any]) -> Prediction:  # noqa: ARG002 - the protocol's name
        return Prediction(None, {}, room=3.0)


def test_a_prior_that_cannot_tell_is_as_good_as_none() -> None:
    study = _study(prior=_Speechless())

    _run(study, 20)

    assert study.best_value > 0.9


class _Domain:
    """Accepts the left half on a grid of tenths."""

    distributions = SPACE

    def complete(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {name: round(value, 1) for name, value in params.items()}

    def accepts(self, params: Mapping[str, Any]) -> bool:
        return bool(params["x"] < 0.45)


def test_nothing_is_proposed_that_the_domain_does_not_accept() -> None:
    study = _study(domain=_Domain())

    _run(study, 14)

    assert all(trial.params["x"] < 0.45 for trial in study.trials)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 14


def test_a_prior_that_explains_less_than_the_mean_is_dropped() -> None:
    generator = np.random.default_rng(0)
    points = generator.random((12, 1))
    targets = np.sin(3 * points[:, 0])
    groups = np.array([0])

    misled = Output.fit(points, targets, groups, expected=5 * generator.random(12), error=0.2)
    informed = Output.fit(points, targets, groups, expected=targets + 0.01, error=0.2)

    assert misled is not None
    assert misled.trend == 0
    assert informed is not None
    assert informed.trend == 1


def test_a_crash_and_a_survival_move_the_belief_about_all_others() -> None:
    room = np.array([-0.5, 0.0, 0.5, 1.0])
    before = crash_chance(room, np.empty(0), np.empty(0, dtype=bool))
    crashed = crash_chance(room, np.array([0.6]), np.array([True]))
    survived = crash_chance(room, np.array([-0.2]), np.array([False]))

    assert (np.diff(before) < 0).all()
    assert before[1] == pytest.approx(0.5)
    assert crashed[2] > 0.9
    assert survived[1] < 0.1


def test_the_logarithm_of_the_improvement_keeps_its_slope_far_below_the_best() -> None:
    mean = np.array([1.0, 0.0, -4.999, -5.001, -50.0, -60.0])

    improvement = log_improvement(mean, np.ones(6), 0.0)

    assert improvement[1] == pytest.approx(np.log(0.398942), abs=1e-5)
    assert (np.diff(improvement) < 0).all()
    assert np.isfinite(improvement).all()
    assert improvement[2] - improvement[3] < 0.15


def test_a_violation_is_the_logarithm_of_the_ratio_and_monotone_below_half_the_limit() -> None:
    assert signed_log(1.0) == pytest.approx(np.log(2))
    values = [signed_log(each) for each in (-3.0, -1.0, -0.6, -0.5, -0.4, 0.0, 10.0)]
    assert values == sorted(values)


def test_the_package_knows_no_other_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Sampler'"):
        _ = autotune.search.Sampler
