"""Mixed parameters as points: units for moving about, columns for the kernel, values for Optuna.

In: Optuna's distributions by name. Out: an `Encoding`. A candidate is a row of units, one per parameter: in
[0, 1] for a number (on its log scale), the index of a choice, NaN for one that takes no part. Its columns are
its units, one-hot for choices. Pure. Invariant: every value it decodes lies in its distribution, on its grid.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from autotune.search.gp.kernel import Array

_CHOICE_HEIGHT = 0.7
"""Two choices are 0.99 apart, about the range of a number."""
_MIDDLE = 0.5
_SCALES = (0.03, 0.1, 0.25)
_MOVED_SHARE, _SWITCHED_SHARE = 0.5, 0.4


class Encoding:
    """The parameters of a space in a fixed order."""

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.names = tuple(distributions)
        self._axes = [_axis(distribution) for distribution in distributions.values()]
        widths = [axis.width for axis in self._axes]
        self.groups: NDArray[np.intp] = np.repeat(np.arange(len(widths)), widths)

    def units(self, rows: Sequence[Mapping[str, Any]]) -> Array:
        """Return candidates as rows of units; what a candidate does not set is NaN."""
        units = np.full((len(rows), len(self.names)), np.nan)
        for column, (name, axis) in enumerate(zip(self.names, self._axes, strict=True)):
            set_ = [row for row, values in enumerate(rows) if name in values]
            units[set_, column] = axis.units([rows[row][name] for row in set_])
        return units

    def knows(self, values: Mapping[str, Any]) -> bool:
        """Whether every value is of a parameter of this space."""
        return values.keys() <= set(self.names)

    def columns(self, units: Array) -> Array:
        """Return the kernel's coordinates; what takes no part lies in the middle of its range."""
        return np.hstack([axis.columns(units[:, index]) for index, axis in enumerate(self._axes)])

    def values(self, units: Array) -> list[dict[str, Any]]:
        """Return the values of rows of units, without what takes no part."""
        rows: list[dict[str, Any]] = [{} for _ in units]
        for column, (name, axis) in enumerate(zip(self.names, self._axes, strict=True)):
            taking_part = np.flatnonzero(~np.isnan(units[:, column]))
            for row, value in zip(taking_part, axis.values(units[taking_part, column]), strict=True):
                rows[row][name] = value
        return rows

    def spread(self, count: int, generator: np.random.Generator) -> Array:
        """Return random candidates, uniform in units, on the grid."""
        return np.column_stack([axis.on_grid(axis.draw(count, generator)) for axis in self._axes])

    def around(self, unit: Array, count: int, generator: np.random.Generator) -> Array:
        """Return candidates near one: each moves about half of its parameters by one of three scales."""
        scale = generator.choice(_SCALES, size=count)
        moved = generator.random((count, len(self._axes))) < _MOVED_SHARE
        columns = []
        for index, axis in enumerate(self._axes):
            here = np.full(count, unit[index])
            there = axis.step(here, scale, generator)
            columns.append(axis.on_grid(np.where(moved[:, index] | np.isnan(here), there, here)))
        return np.column_stack(columns)


class _Number:
    """A float or an integer, linear or logarithmic."""

    width = 1

    def __init__(self, distribution: FloatDistribution | IntDistribution) -> None:
        self._is_int = isinstance(distribution, IntDistribution)
        self._is_log = distribution.log
        self._low, self._high, self._step = distribution.low, distribution.high, distribution.step
        self._start = float(self._scaled(distribution.low))
        self._length = float(self._scaled(distribution.high)) - self._start or 1.0
        self._is_single = distribution.single()

    def units(self, values: Sequence[Any]) -> Array:
        return np.asarray((self._scaled(values) - self._start) / self._length)

    def columns(self, units: Array) -> Array:
        return np.where(np.isnan(units), _MIDDLE, units)[:, None]

    def values(self, units: Array) -> list[float] | list[int]:
        numbers: list[float] = self._values(units).tolist()
        return [int(number) for number in numbers] if self._is_int else numbers

    def on_grid(self, units: Array) -> Array:
        return np.asarray((self._scaled(self._values(units)) - self._start) / self._length)

    def draw(self, count: int, generator: np.random.Generator) -> Array:
        return generator.random(count)

    def step(self, here: Array, scale: Array, generator: np.random.Generator) -> Array:
        moved = np.clip(here + scale * generator.standard_normal(len(here)), 0.0, 1.0)
        return np.where(np.isnan(here), self.draw(len(here), generator), moved)

    def _scaled(self, values: Any) -> Any:
        return np.log(values) if self._is_log else np.asarray(values, dtype=float)

    def _values(self, units: Array) -> Array:
        if self._is_single:
            return np.full(len(units), float(self._low))
        scaled = self._start + np.clip(units, 0.0, 1.0) * self._length
        values = np.exp(scaled) if self._is_log else scaled
        if self._step is not None:
            values = self._low + np.round((values - self._low) / self._step) * self._step
        return np.clip(values, self._low, self._high)


class _Choice:
    """A categorical parameter; its unit is the index of the choice."""

    def __init__(self, distribution: CategoricalDistribution) -> None:
        self._distribution = distribution
        self.width = len(distribution.choices)

    def units(self, values: Sequence[Any]) -> Array:
        return np.array([self._distribution.to_internal_repr(value) for value in values], dtype=float)

    def columns(self, units: Array) -> Array:
        return np.asarray(_CHOICE_HEIGHT * (units[:, None] == np.arange(self.width)))

    def values(self, units: Array) -> list[Any]:
        return [self._distribution.choices[int(unit)] for unit in units]

    def on_grid(self, units: Array) -> Array:
        return units

    def draw(self, count: int, generator: np.random.Generator) -> Array:
        return generator.integers(self.width, size=count).astype(float)

    def step(self, here: Array, _scale: Array, generator: np.random.Generator) -> Array:
        switched = generator.random(len(here)) < _SWITCHED_SHARE
        return np.where(switched | np.isnan(here), self.draw(len(here), generator), here)


def _axis(distribution: BaseDistribution) -> _Number | _Choice:
    if isinstance(distribution, CategoricalDistribution):
        return _Choice(distribution)
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return _Number(distribution)
    raise AssertionError(f"Optuna has no {type(distribution).__name__}")
