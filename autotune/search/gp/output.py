"""One quantity of a candidate as a Gaussian process, on top of what a prior expects of it.

In: targets at points, and the prior's expectation there, if there is one. Out: an `Output`, which predicts
the quantity elsewhere. Pure. Invariant: a prior that explains the targets worse than their own mean does is
dropped, by the marginal likelihoods of both.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotune.search.gp.kernel import Array, GaussianProcess

_FEWEST_WITHOUT_PRIOR = 3
_FEWEST_TO_DOUBT = 6
"""From so many targets on it is asked whether the prior helps."""
_PSEUDO_TARGETS = 3.0
"""How much the expected error of a prior weighs against the errors that were seen."""
_NO_SPREAD = 1e-12


@dataclass(frozen=True)
class Output:
    """The quantity is `trend` times the prior, plus `centre`, plus `scale` times the process."""

    process: GaussianProcess
    centre: float
    scale: float
    trend: float

    @classmethod
    def fit(
        cls,
        points: Array,
        targets: Array,
        groups: NDArray[np.intp],
        *,
        expected: Array | None = None,
        error: float,
    ) -> "Output | None":
        """Return the model, None if there are too few targets, all targets are alike, or there is no prior.

        `expected`: the prior at the points; `error`: how far it is expected to be off (standard deviation).
        """
        plain = cls._plain(points, targets, groups)
        if expected is None:
            return plain
        left = targets - expected
        centre = float(left.mean()) if len(left) else 0.0
        squares = float(((left - centre) ** 2).sum()) + _PSEUDO_TARGETS * error**2
        scale = float(np.sqrt(squares / (_PSEUDO_TARGETS + max(len(left) - 1, 0))))
        informed = cls(GaussianProcess.fit(points, (left - centre) / scale, groups), centre, scale, 1.0)
        if plain is not None and len(targets) >= _FEWEST_TO_DOUBT and plain.evidence > informed.evidence:
            return plain
        return informed

    @classmethod
    def _plain(cls, points: Array, targets: Array, groups: NDArray[np.intp]) -> "Output | None":
        if len(targets) < _FEWEST_WITHOUT_PRIOR or targets.std() < _NO_SPREAD:
            return None
        centre, scale = float(targets.mean()), float(targets.std())
        return cls(GaussianProcess.fit(points, (targets - centre) / scale, groups), centre, scale, 0.0)

    @property
    def evidence(self) -> float:
        """The logarithm of the targets' likelihood, comparable between scales."""
        return self.process.log_evidence - len(self.process.targets) * float(np.log(self.scale))

    def believing(self, points: Array) -> "Output":
        """Return the model that takes its own means at these points for measured."""
        return Output(self.process.believing(points), self.centre, self.scale, self.trend)

    def predict(self, points: Array, expected: Array | None) -> tuple[Array, Array]:
        """Return mean and standard deviation of the quantity; `expected`: the prior at these points."""
        mean, deviation = self.process.predict(points)
        mean = self.centre + self.scale * mean
        if expected is not None and self.trend:
            mean = mean + self.trend * expected
        return mean, self.scale * deviation
