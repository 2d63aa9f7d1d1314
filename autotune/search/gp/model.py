"""The model of a study: every objective, every constraint and the crash, each as an output of its own.

In: a `History` and, if there is a prior, its predictions of the same trials. Out: a `Model`, which tells for
any candidates how good they are and how likely they are feasible. Pure. Invariants: a crash never gives a
value to an objective or a constraint; positive values and constraints are modelled as logarithms, because
noise and wrong priors are factors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_ndtr

from autotune.search.gp.encoding import Encoding
from autotune.search.gp.history import History
from autotune.search.gp.kernel import Array
from autotune.search.gp.output import Output
from autotune.search.gp.prior import Prediction
from autotune.search.gp.room import crash_chance

_CRASH_ERROR = 0.3
"""How far a prior is expected to be off in a crash's label of -1 or 1."""
_NO_ERROR_TOLD = 0.2
_SAFE_LABEL = -0.5
"""Survivals are -1 and crashes 1: halfway to the former, since a crash teaches less than it costs."""
_LINEAR_BELOW = -0.5


@dataclass(frozen=True)
class Batch:
    """Candidates as the kernel sees them, and what the prior predicts of them (None without a prior)."""

    points: Array
    predictions: Sequence[Prediction] | None

    def part(self, rows: Sequence[int]) -> "Batch":
        """Return some of them."""
        told = self.predictions
        return Batch(self.points[list(rows)], None if told is None else [told[row] for row in rows])

    def joined(self, others: "Batch") -> "Batch":
        """Return them with others behind; both have predictions, or neither has."""
        told = None if self.predictions is None else [*self.predictions, *(others.predictions or ())]
        return Batch(np.vstack((self.points, others.points)), told)


@dataclass(frozen=True)
class _Objective:
    """How an objective's value (more is better) is modelled: as itself, or as a signed logarithm."""

    index: int
    sign: float
    is_log: bool

    def target(self, value: float) -> float:
        return self.sign * float(np.log(self.sign * value)) if self.is_log else value

    def expected(self, predictions: Sequence[Prediction] | None) -> Array | None:
        """Return the prior's values, where it has none the worst of them, None without a prior."""
        if predictions is None:
            return None
        told = [each.values[self.index] if each.values else np.nan for each in predictions]
        return _filled(np.array([self.target(self.sign * value) for value in told]), np.nanmin)


class Model:
    """What is believed about candidates, above all those of the pool.

    `seen` and `pending` are batches in the order of the history.
    """

    def __init__(
        self, history: History, encoding: Encoding, *, seen: Batch, pending: Batch, pool: Batch
    ) -> None:
        self.pool = pool
        self._history = history
        self._groups = encoding.groups
        self._seen = seen
        self._pending = pending
        self._error = _usual_error(pool.predictions)
        self._objectives = [_objective(history, (seen, pool), index) for index in range(len(history.signs))]
        self._values = [self._value_output(objective) for objective in self._objectives]
        self._constraints = {key: self._constraint_output(key) for key in self._keys()}
        self._crash = self._crash_output()

    def values(self, batch: Batch) -> tuple[Array, Array] | None:
        """Return mean and deviation of every objective (candidates x objectives), None if one is unknown."""
        columns = []
        for objective, output in zip(self._objectives, self._values, strict=True):
            if output is None:
                return None
            mean, deviation = output.predict(batch.points, objective.expected(batch.predictions))
            columns.append((mean, self._widened(output, deviation, batch)))
        means, deviations = zip(*columns, strict=True)
        return np.column_stack(means), np.column_stack(deviations)

    def log_feasibility(self, batch: Batch, *, noise: float = 0.0) -> Array:
        """Return the logarithm of the chance that each candidate neither crashes nor misses a constraint.

        `noise`: what a launch adds to that, the standard deviation of a constraint's logarithm.
        """
        total = self.log_survival(batch)
        for key, output in self._constraints.items():
            if output is not None:
                mean, deviation = output.predict(batch.points, _expected_constraint(key, batch.predictions))
                total += log_ndtr(-mean / np.hypot(self._widened(output, deviation, batch), noise))
        return total

    def log_survival(self, batch: Batch) -> Array:
        """Return the logarithm of the chance that each candidate does not crash."""
        if self._crash is None:
            return np.zeros(len(batch.points))
        mean, deviation = self._crash.predict(batch.points, self._expected_crash(batch.predictions))
        return np.asarray(log_ndtr((_SAFE_LABEL - mean) / deviation))

    def feasible(self) -> Batch:
        """Return the trials that were measured and met every constraint."""
        return self._seen.part([row for row, each in enumerate(self._history.seen) if each.is_feasible])

    def gain_unit(self) -> float | None:
        """Return what an improvement is to be divided by to be a share of the best feasible trial's value.

        None with several objectives, nothing feasible, or no belief about values.
        """
        feasible = self.feasible()
        known = self.values(feasible) if len(self._objectives) == 1 and len(feasible.points) else None
        if known is None:
            return None
        return 1.0 if self._objectives[0].is_log else abs(float(known[0].max())) or None

    def _measured(self) -> list[int]:
        return [row for row, each in enumerate(self._history.seen) if each.values is not None]

    def _value_output(self, objective: _Objective) -> Output | None:
        rows = [row for row in self._measured() if not self._history.seen[row].is_partial]
        told = [each.values[objective.index] for each in self._history.whole if each.values]
        targets = np.array([objective.target(value) for value in told], dtype=float)
        return self._output(rows, targets, objective.expected(self._seen.part(rows).predictions), self._error)

    def _widened(self, output: Output, deviation: Array, batch: Batch) -> Array:
        """Return the deviations, wider where the prior is less sure of itself than it usually is."""
        if batch.predictions is None or not output.trend:
            return deviation
        errors = np.array([each.error for each in batch.predictions])
        return np.sqrt(deviation**2 + np.maximum(errors**2 - self._error**2, 0.0))

    def _keys(self) -> list[str]:
        told = [each.constraints for each in self._history.measured]
        expected = [each.constraints for each in self.pool.predictions or ()]
        return sorted({key for constraints in (*told, *expected) for key in constraints})

    def _constraint_output(self, key: str) -> Output | None:
        rows = [row for row in self._measured() if key in self._history.seen[row].constraints]
        targets = np.array([signed_log(self._history.seen[row].constraints[key]) for row in rows])
        return self._output(
            rows, targets, _expected_constraint(key, self._seen.part(rows).predictions), self._error
        )

    def _crash_output(self) -> Output | None:
        rows = list(range(len(self._history.seen)))
        labels = np.array([1.0 if each.crashed else -1.0 for each in self._history.seen])
        return self._output(rows, labels, self._expected_crash(self._seen.predictions), _CRASH_ERROR)

    def _output(self, rows: list[int], targets: Array, expected: Array | None, error: float) -> Output | None:
        output = Output.fit(self._seen.points[rows], targets, self._groups, expected=expected, error=error)
        return None if output is None else output.believing(self._pending.points)

    def _expected_crash(self, predictions: Sequence[Prediction] | None) -> Array | None:
        """Return the label that the prior's room gives, corrected by the crashes and survivals so far."""
        if predictions is None or self._seen.predictions is None:
            return None
        room = np.array([each.room for each in predictions])
        seen = np.array([each.room for each in self._seen.predictions])
        crashed = np.array([each.crashed for each in self._history.seen], dtype=bool)
        return 2 * crash_chance(room, seen, crashed) - 1


def signed_log(violation: float) -> float:
    """Return log(value / limit) of a ceiling whose violation is value / limit - 1; linear far below it."""
    if violation < _LINEAR_BELOW:
        return float(np.log1p(_LINEAR_BELOW) + (violation - _LINEAR_BELOW) / (1 + _LINEAR_BELOW))
    return float(np.log1p(violation))


def _usual_error(predictions: Sequence[Prediction] | None) -> float:
    """Return how far a prior is expected to be off, in logarithms."""
    errors = [each.error for each in predictions or () if each.values is not None]
    return float(np.median(errors)) if errors else _NO_ERROR_TOLD


def _objective(history: History, batches: Sequence[Batch], index: int) -> _Objective:
    sign = history.signs[index]
    values = [sign * each.values[index] for each in history.whole if each.values]
    predictions = [each for batch in batches for each in batch.predictions or ()]
    values += [each.values[index] for each in predictions if each.values]
    return _Objective(index, sign, is_log=all(value > 0 for value in values))


def _expected_constraint(key: str, predictions: Sequence[Prediction] | None) -> Array | None:
    """Return what the prior expects of a constraint; where it does not tell, the worst that it does."""
    if predictions is None:
        return None
    told: list[Mapping[str, float]] = [each.constraints for each in predictions]
    return _filled(np.array([signed_log(each[key]) if key in each else np.nan for each in told]), np.nanmax)


def _filled(values: Array, worst: Callable[[Array], Any]) -> Array | None:
    """Return the values without gaps, None if there are gaps only."""
    if not len(values):
        return values
    return np.where(np.isnan(values), worst(values), values) if np.isfinite(values).any() else None
