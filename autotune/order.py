"""What a trial is told before it begins: its number, its candidate, how it measures, and until when.

In: the tuner's decisions and a launcher's clock. Out: plain values that a trial and its measuring share. Pure
but for the clock. Invariant: whoever is out of time, or called off, hears of it as `TimeIsUpError`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from autotune.engine.launcher import Clock
from autotune.record import Role
from autotune.slo import Course
from autotune.space import Candidate

_ROUNDING_S = 1e-6


class TimeIsUpError(Exception):
    """The trial's deadline has passed, or it was called off."""


@dataclass(frozen=True)
class LiveValue:
    """A flag that is changed on an engine which serves already, and what to."""

    flag: str
    value: int


@dataclass(frozen=True)
class TrialOrder:
    """What is to be run; `nodes` and `slots`: as in the record.

    `measure_all`: do not skip load points once a ceiling is missed; `stops_early`: end one that is decided.
    `courses`: what is expected of load points that end once they cannot beat the best, by their labels.
    `live`: what makes this candidate of the one that the engine is launched for; None: it is that one.
    `then`: candidates to be measured live on the engine, if that tells something; the first ones matter most.
    """

    number: int
    role: Role
    candidate: Candidate
    confirms: int | None
    measure_all: bool
    stops_early: bool = False
    nodes: tuple[str, ...] = ()
    slots: int = 1
    courses: Mapping[str, Course] = field(default_factory=dict)
    live: LiveValue | None = None
    then: "tuple[TrialOrder, ...]" = ()

    @property
    def name(self) -> str:
        """The trial's folder and label."""
        return f"{self.number:04d}"

    @property
    def records_folder(self) -> str:
        """Where its raw records lie among those of all trials."""
        return self.name if self.live is None else f"{self.name}/live-{self.live.value}"


@dataclass(frozen=True)
class TrialTime:
    """What time a trial has: until `deadline_s` on the launcher's clock, or until it is called off."""

    clock: Clock
    deadline_s: float
    is_called_off: Callable[[], bool]

    @property
    def left_s(self) -> float:
        """Seconds that are left; what was called off has none, and it may be negative."""
        return 0.0 if self.is_called_off() else self.deadline_s - self.clock.now_s()

    def check(self) -> None:
        """Go on only while there is time.

        Raises:
            TimeIsUpError: there is none.
        """
        if self.left_s <= _ROUNDING_S:
            raise TimeIsUpError
