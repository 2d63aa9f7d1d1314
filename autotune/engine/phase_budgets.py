"""How long a start phase may take, learnt from the launches that became ready. Pure.

In: the seconds of each phase of a launch. Out: a limit for a phase, None while too little is known.
Invariant: a limit is generous, several times the slowest launch and never below a floor: flags change how
long a phase takes, and it is to end hangs only.
"""

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from autotune.failure import StartPhase

_KEPT = 64


@dataclass(frozen=True)
class BudgetRule:
    """`launches`: how many must have become ready before anything is limited.

    `image_floor_s`: once an image is there the phase takes seconds, and tells nothing of the next pull.
    """

    launches: int = 3
    factor: float = 4.0
    floor_s: float = 120.0
    image_floor_s: float = 3600.0

    def least_s(self, phase: StartPhase) -> float:
        """Return the shortest limit that a phase may get."""
        return self.image_floor_s if phase is StartPhase.IMAGE else self.floor_s


@dataclass(frozen=True)
class PhaseBudget:
    """A phase's limit, and the slowest launch it comes from."""

    phase: StartPhase
    limit_s: float
    slowest_s: float
    launches: int

    def overrun(self, spent_s: float) -> str | None:
        """Return in words that the phase has taken too long, None while it has not."""
        if spent_s < self.limit_s:
            return None
        return (
            f"{spent_s:.0f} s in phase {self.phase}, which took {self.slowest_s:.0f} s at most "
            f"in the {self.launches} launches before"
        )


class PhaseBudgets:
    """What one launcher has learnt; launches of several threads may share it."""

    def __init__(self, rule: BudgetRule) -> None:
        self._rule = rule
        self._seen: deque[Mapping[StartPhase, float]] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def learn(self, phases_s: Mapping[StartPhase, float]) -> None:
        """Take in a launch that became ready."""
        with self._lock:
            self._seen.append(dict(phases_s))

    def of(self, phase: StartPhase) -> PhaseBudget | None:
        """Return how long the phase may take."""
        with self._lock:
            seen_s = [phases_s[phase] for phases_s in self._seen if phase in phases_s]
        if len(seen_s) < self._rule.launches:
            return None
        slowest_s = max(seen_s)
        limit_s = max(self._rule.factor * slowest_s, self._rule.least_s(phase))
        return PhaseBudget(phase, limit_s, slowest_s, len(seen_s))
