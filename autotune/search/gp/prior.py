"""What is believed about a candidate before it was measured.

In: a `Prior` that somebody else brings (`autotune.search.twin`). Out: predictions in the units of the trials.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Prediction:
    """What a prior expects of a candidate.

    `values`: one per objective, as they would be told; None if it cannot tell. `constraints`: as they would
    be set on the trial, at most 0 if met; keys that it cannot tell are left out. `room`: what is left before
    the candidate crashes, in standard errors of the prior's own belief; negative if it will. `error`: the
    standard error of the logarithms of values and constraints' measured parts.
    """

    values: tuple[float, ...] | None
    constraints: Mapping[str, float]
    room: float
    error: float = 0.2


class Prior(Protocol):
    """A model of the system that may be wrong: measurements correct it."""

    def learn(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in what the study's trials showed; called before every draw with all of them."""
        ...

    def predict(self, params: Mapping[str, Any]) -> Prediction:
        """Return what is expected of a candidate; the same one is expected to do the same until `learn`."""
        ...
