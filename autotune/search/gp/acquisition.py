"""How much a launch of each candidate promises: expected improvement times the chance that it is feasible.

In: a `Model`. Out: the logarithm of the promise of each candidate of its pool. Pure but for the generator
that draws the weights of several objectives. Invariant: with nothing feasible so far, or nothing to tell
better from worse, only the chance of feasibility counts.
"""

import numpy as np
from scipy.special import ndtr

from autotune.search.gp.kernel import Array
from autotune.search.gp.model import Model

_LEAST = 1e-300
_TAIL = -5.0
_DRAWS = 64
_AUGMENTATION = 0.05


def log_promise(model: Model, generator: np.random.Generator) -> Array:
    """Return log(expected improvement) + log(chance of feasibility), the former only once it means something.

    Several objectives become one by the augmented Chebyshev distance to the best of each, with weights drawn
    anew for every call (ParEGO, Knowles 2006), so that a study spreads over the front.
    """
    promise = model.log_feasibility(model.pool)
    incumbents, believed = model.feasible(), model.values(model.pool)
    if believed is None or not len(incumbents.points):
        return promise
    known = model.values(incumbents)
    if known is None:
        return promise
    mean, deviation = believed
    if mean.shape[1] == 1:
        return promise + log_improvement(mean[:, 0], deviation[:, 0], float(known[0].max()))
    scalar = _Chebyshev(known[0], generator)
    mean, deviation = scalar.moments(mean, deviation)
    return promise + log_improvement(mean, deviation, float(scalar.of(known[0]).max()))


def log_worth(model: Model, noise: float) -> Array | None:
    """Return log(value) of each candidate of the pool plus log(the chance that a launch is feasible).

    Of one objective, up to a constant; None without anything feasible. It is what one would recommend after
    a search: by what is believed, since the best of the noisy values that were seen is too good to be true.
    `noise`: as in `Model.log_feasibility`.
    """
    believed, unit = model.values(model.pool), model.gain_unit()
    if believed is None or unit is None:
        return None
    return np.asarray(believed[0][:, 0] / unit + model.log_feasibility(model.pool, noise=noise))


def log_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Return the logarithm of the expected improvement over the best, also far below it."""
    ahead = (mean - best) / deviation
    density = np.exp(-0.5 * ahead**2) / np.sqrt(2 * np.pi)
    near = np.log(np.maximum(ahead * ndtr(ahead) + density, _LEAST))
    # far below the best that sum cancels; what is left is the density times an asymptotic series
    square = np.maximum(ahead**2, 1.0)
    series = np.log1p(np.maximum(-3 / square + 15 / square**2, -0.5)) - np.log(square)
    far = -0.5 * ahead**2 - 0.5 * np.log(2 * np.pi) + series
    return np.asarray(np.log(deviation) + np.where(ahead < _TAIL, far, near))


class _Chebyshev:
    """One direction among several objectives, all of which are maximised."""

    def __init__(self, known: Array, generator: np.random.Generator) -> None:
        self._ideal = known.max(0)
        self._span = np.maximum(self._ideal - known.min(0), 1e-9)
        self._weights = generator.dirichlet(np.ones(known.shape[1]))
        self._noise = generator.standard_normal((_DRAWS, 1, known.shape[1]))

    def of(self, values: Array) -> Array:
        """Return minus the weighted distance to the ideal, along the last axis."""
        weighted = self._weights * (self._ideal - values) / self._span
        return np.asarray(-(weighted.max(-1) + _AUGMENTATION * weighted.sum(-1)))

    def moments(self, mean: Array, deviation: Array) -> tuple[Array, Array]:
        """Return mean and deviation of it for independent normal objectives, from a few draws."""
        drawn = self.of(mean[None] + deviation[None] * self._noise)
        return drawn.mean(0), np.maximum(drawn.std(0), 1e-9)
