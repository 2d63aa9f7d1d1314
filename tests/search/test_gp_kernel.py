import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.search.gp.kernel import Array, GaussianProcess, Settings, _loss, _squares


def _data(count: int, columns: int, seed: int = 0) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    points = generator.random((count, columns))
    return points, np.sin(5 * points[:, 0]) + 0.01 * generator.standard_normal(count)


@given(st.integers(0, 20))
def test_the_gradient_is_that_of_the_loss(seed: int) -> None:
    points, targets = _data(9, 2, seed)
    squares = np.stack([_squares(points[:, [column]], points[:, [column]]) for column in (0, 1)])
    vector = np.random.default_rng(seed).normal(scale=0.5, size=4)

    _, gradient = _loss(vector, squares, targets)

    for index, step in enumerate(1e-5 * np.eye(4)):
        rise = _loss(vector + step, squares, targets)[0] - _loss(vector - step, squares, targets)[0]
        assert gradient[index] == pytest.approx(rise / 2e-5, rel=1e-3, abs=1e-3)


def test_it_learns_which_parameter_matters_and_predicts_between_its_points() -> None:
    points, targets = _data(40, 2)
    process = GaussianProcess.fit(points, targets, np.array([0, 1]))

    mean, deviation = process.predict(np.array([[0.5, 0.5], [5.0, 5.0]]))

    assert process.settings.log_lengths[0] < process.settings.log_lengths[1]
    assert mean[0] == pytest.approx(np.sin(2.5), abs=0.1)
    assert deviation[0] < 0.1 < deviation[1]


def test_the_columns_of_one_parameter_share_their_length() -> None:
    points, targets = _data(12, 3)

    process = GaussianProcess.fit(points, targets, np.array([0, 0, 1]))

    assert len(process.settings.log_lengths) == 2


def test_without_targets_it_knows_nothing() -> None:
    process = GaussianProcess.fit(np.empty((0, 2)), np.empty(0), np.array([0, 1]))

    mean, deviation = process.predict(np.zeros((1, 2)))

    assert (mean[0], deviation[0]) == (0.0, 1.0)


def test_few_targets_leave_the_settings_at_their_centre() -> None:
    process = GaussianProcess.fit(np.zeros((3, 2)), np.ones(3), np.array([0, 1]))

    assert (process.settings.vector == Settings.centre(2).vector).all()


def test_a_point_that_is_believed_is_less_uncertain_and_moves_no_mean() -> None:
    points, targets = _data(12, 2)
    process = GaussianProcess.fit(points, targets, np.array([0, 1]))
    there = np.array([[2.0, 2.0]])

    believing = process.believing(there)

    assert believing.predict(there)[0] == pytest.approx(process.predict(there)[0], abs=0.05)
    assert believing.predict(there)[1] < process.predict(there)[1] / 2
    assert process.believing(np.empty((0, 2))) is process


def test_equal_points_do_not_break_it() -> None:
    process = GaussianProcess.fit(np.zeros((30, 1)), np.linspace(-1, 1, 30), np.array([0]))

    assert process.predict(np.zeros((1, 1)))[0] == pytest.approx([0.0], abs=1e-6)
