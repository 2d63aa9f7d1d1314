"""What a study tells while it runs: phases, ended trials, what was settled, and slots that are left.

In: trials. Out: events for whoever shows them. Pure. Invariant: observers are told of one event at a time.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from autotune.record import TrialRecord
from autotune.search.ledger import AskedTrial
from autotune.search.repeats import SearchEnd


@dataclass(frozen=True)
class PhaseBegan:
    """A trial goes on to its next phase."""

    trial: AskedTrial
    phase: str


@dataclass(frozen=True)
class TrialEnded:
    """A trial was told to the storage."""

    trial: AskedTrial
    record: TrialRecord
    left_s: float | None


@dataclass(frozen=True)
class SearchEnded:
    """The search is over, and the confirmation follows. `expected_gain`: as in `StudyHistory`."""

    end: SearchEnd
    expected_gain: float | None


@dataclass(frozen=True)
class Recovered:
    """What an earlier controller left behind was settled."""

    run_again: tuple[int, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True)
class Quarantined:
    """A slot did not come clean or does not serve, and the study goes on without it."""

    nodes: tuple[str, ...]
    reason: str


Event: TypeAlias = PhaseBegan | TrialEnded | SearchEnded | Recovered | Quarantined
Observe: TypeAlias = Callable[[Event], None]


def one_at_a_time(observe: Observe) -> Observe:
    """Return an observer that may be told from several threads."""
    lock = threading.Lock()

    def tell(event: Event) -> None:
        with lock:
            observe(event)

    return tell
