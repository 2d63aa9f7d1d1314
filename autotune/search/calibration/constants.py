"""The step-time constants of a profile as a vector that a least-squares fit can move freely.

In: a profile's `StepSeconds`. Out: vectors of shifts, 0 being the profile itself, and the constants that a
vector stands for. Pure. A constant is moved by a factor (its shift is the logarithm), a fixed cost by an
amount, since it may be nothing. Shifts are believed to have a standard deviation of `SPREAD` before any data.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotune.simulator.profile import Profile, StepSeconds

Vector = NDArray[np.float64]

SPREAD = 0.7
"""A profile made for another cluster of the kind is off by a factor of two, give or take."""
MOST = 2.5
"""No constant is moved by more than this (a factor of twelve)."""
_CHUNK_TOKENS = 1024
_BY_FACTOR = (
    "extend_token_s",
    "extend_context_s",
    "extend_minimum_s",
    "decode_fixed_s",
    "decode_experts_s",
    "decode_sequence_s",
    "decode_context_s",
    "decode_longest_s",
    "mixed_context_s",
    "request_s",
)


@dataclass(frozen=True)
class Constants:
    """The movable constants of one profile."""

    base: StepSeconds

    @classmethod
    def of(cls, profile: Profile) -> "Constants":
        """Return the constants of the profile."""
        return cls(profile.step)

    @property
    def names(self) -> tuple[str, ...]:
        """The constants in the order of the vector; those that the profile has at zero are not moved."""
        scaled = tuple(name for name in _BY_FACTOR if getattr(self.base, name))
        eager = ("eager_decode_ratio",) if self.base.eager_decode_ratio > 1 else ()
        return ("extend_fixed_s", *scaled, *eager)

    @property
    def low(self) -> Vector:
        """The least shifts."""
        least = np.full(len(self.names), -MOST)
        least[0] = max(-MOST, -self.base.extend_fixed_s / self._fixed_unit_s)
        return least

    def at(self, shifts: Vector) -> StepSeconds:
        """Return the constants that a vector stands for."""
        update: dict[str, float] = {
            "extend_fixed_s": max(0.0, self.base.extend_fixed_s + self._fixed_unit_s * float(shifts[0]))
        }
        for name, shift in zip(self.names[1:], shifts[1:], strict=True):
            factor = math.exp(float(shift))
            if name == "eager_decode_ratio":
                update[name] = 1 + (self.base.eager_decode_ratio - 1) * factor
            else:
                update[name] = getattr(self.base, name) * factor
        return self.base.model_copy(update=update)

    @property
    def _fixed_unit_s(self) -> float:
        return _CHUNK_TOKENS * self.base.extend_token_s
