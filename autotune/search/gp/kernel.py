"""A Gaussian process with a Matérn-5/2 kernel and one length scale per parameter, fitted to its data.

In: points in [0, 1]^columns, standardised targets, and which columns belong to one parameter. Out: a mean
and a standard deviation anywhere. Pure; numpy and scipy. Invariant: the settings maximise the marginal
likelihood times log-normal priors, so that few or equal targets give the priors' centres and no extremes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

Array: TypeAlias = NDArray[np.float64]

_JITTER = 1e-6
_LEAST_VARIANCE = 1e-9
_CENTRE_LENGTH, _SPREAD_LENGTH = 0.7, 0.9
_CENTRE_NOISE, _SPREAD_NOISE = 0.02, 1.5
"""Priors of the logarithms; that of the signal's variance is 1 with a spread of 1."""
_BOUNDS_LENGTH, _BOUNDS_SIGNAL, _BOUNDS_NOISE = (-2.5, 2.5), (-3.0, 3.0), (-9.0, 0.0)
_MOST_ITERATIONS = 25
_NOT_POSITIVE = 1e10
_FEWEST_TO_FIT = 4


@dataclass(frozen=True)
class Settings:
    """What is fitted: the logarithms of a length per parameter, and of the signal's and noise's variance."""

    log_lengths: Array
    log_signal: float
    log_noise: float

    @classmethod
    def centre(cls, parameters: int) -> "Settings":
        """Return the settings that are most likely before any data."""
        return cls(np.full(parameters, np.log(_CENTRE_LENGTH)), 0.0, float(np.log(_CENTRE_NOISE)))

    @classmethod
    def of(cls, vector: Array) -> "Settings":
        """Return the settings that the optimiser's vector stands for."""
        return cls(vector[:-2], float(vector[-2]), float(vector[-1]))

    @property
    def vector(self) -> Array:
        """All of them in one row, for the optimiser."""
        return np.append(self.log_lengths, (self.log_signal, self.log_noise))


@dataclass(frozen=True)
class GaussianProcess:
    """The process given its data; `groups` holds each column's parameter."""

    points: Array
    targets: Array
    groups: NDArray[np.intp]
    settings: Settings

    @classmethod
    def fit(cls, points: Array, targets: Array, groups: NDArray[np.intp]) -> "GaussianProcess":
        """Return the process with the most likely settings; with fewer than four targets the priors'."""
        parameters = int(groups.max()) + 1
        centre = Settings.centre(parameters)
        if len(targets) < _FEWEST_TO_FIT:
            return cls(points, targets, groups, centre)
        squares = np.stack(
            [_squares(points[:, groups == group], points[:, groups == group]) for group in range(parameters)]
        )
        found = minimize(
            _loss,
            centre.vector,
            args=(squares, targets),
            jac=True,
            method="L-BFGS-B",
            bounds=[_BOUNDS_LENGTH] * parameters + [_BOUNDS_SIGNAL, _BOUNDS_NOISE],
            options={"maxiter": _MOST_ITERATIONS},
        )
        return cls(points, targets, groups, Settings.of(found.x))

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the noise-free process at each point."""
        if not len(self.targets):
            return np.zeros(len(points)), np.full(len(points), np.exp(0.5 * self.settings.log_signal))
        across = self._kernel(points, self.points)
        explained = solve_triangular(self._factor, across.T, lower=True, check_finite=False)
        variance = np.exp(self.settings.log_signal) - np.einsum("ij,ij->j", explained, explained)
        return across @ self._weights, np.sqrt(np.maximum(variance, _LEAST_VARIANCE))

    def believing(self, points: Array) -> "GaussianProcess":
        """Return the process that takes its own means at these points for measured (pending trials)."""
        if not len(points):
            return self
        believed = np.concatenate((self.targets, self.predict(points)[0]))
        return GaussianProcess(np.vstack((self.points, points)), believed, self.groups, self.settings)

    @property
    def log_evidence(self) -> float:
        """The logarithm of the targets' marginal likelihood, without the settings' priors."""
        half = 0.5 * float(self.targets @ self._weights) + float(np.log(np.diag(self._factor)).sum())
        return -half - 0.5 * len(self.targets) * float(np.log(2 * np.pi))

    @cached_property
    def _factor(self) -> Array:
        covariance = self._kernel(self.points, self.points)
        covariance[np.diag_indices_from(covariance)] += np.exp(self.settings.log_noise) + _JITTER
        return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)

    @cached_property
    def _weights(self) -> Array:
        return np.asarray(cho_solve((self._factor, True), self.targets, check_finite=False))

    def _kernel(self, left: Array, right: Array) -> Array:
        scale = np.exp(-self.settings.log_lengths)[self.groups]
        root = np.sqrt(5 * _squares(left * scale, right * scale))
        return np.asarray(np.exp(self.settings.log_signal) * (1 + root + root * root / 3) * np.exp(-root))


def _squares(left: Array, right: Array) -> Array:
    """Return the squared distances between all rows."""
    mixed = (left**2).sum(1)[:, None] + (right**2).sum(1)[None, :] - 2 * left @ right.T
    return np.asarray(np.maximum(mixed, 1e-18))


def _loss(vector: Array, squares: Array, targets: Array) -> tuple[float, Array]:
    """Return the negative log posterior of the settings, and its gradient."""
    settings = Settings.of(vector)
    scaled = squares * np.exp(-2 * settings.log_lengths)[:, None, None]
    root = np.sqrt(5 * scaled.sum(0))
    decay = np.exp(settings.log_signal - root)
    signal = (1 + root + root * root / 3) * decay
    covariance = signal.copy()
    covariance[np.diag_indices_from(covariance)] += np.exp(settings.log_noise) + _JITTER
    try:
        factor = cho_factor(covariance, lower=True, check_finite=False)
    except LinAlgError:
        return _NOT_POSITIVE, np.zeros_like(vector)
    weights = cho_solve(factor, targets, check_finite=False)
    loss = 0.5 * float(targets @ weights) + float(np.log(np.diag(factor[0])).sum())
    inverse = cho_solve(factor, np.eye(len(targets)), check_finite=False)
    slope = 0.5 * (inverse - np.outer(weights, weights))
    by_length = 5 / 3 * np.einsum("ij,gij->g", slope * (1 + root) * decay, scaled)
    by_noise = np.exp(settings.log_noise) * np.trace(slope)
    gradient = np.append(by_length, ((slope * signal).sum(), by_noise))
    off, spread = _off_centre(vector)
    return loss + 0.5 * float(off @ off), gradient + off / spread


def _off_centre(vector: Array) -> tuple[Array, Array]:
    """Return how many of their priors' spreads the settings are off their centres, and the spreads."""
    spread = np.append(np.full(len(vector) - 2, _SPREAD_LENGTH), (1.0, _SPREAD_NOISE))
    return (vector - Settings.centre(len(vector) - 2).vector) / spread, spread
