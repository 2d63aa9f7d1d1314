"""What one launch measures: what is launched, and what its engine is set to while it runs.

In: what each candidate promises and costs. Out: the `Plan` that promises most for its time. Pure. The promise
per unit of cost is that of Snoek et al. (NeurIPS 2012, expected improvement per second), over all that one
start pays for. Invariant: a plan never promises less for its time than launching the proposal alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from autotune.record import Outcome, TrialRecord
from autotune.space import Candidate


@dataclass(frozen=True)
class Prices:
    """What a launch takes, start to teardown, and what another value on a running engine does; seconds."""

    launch_s: float
    live_s: float

    @classmethod
    def of(cls, records: Sequence[TrialRecord]) -> "Prices | None":
        """Return the medians of what was measured, None if nothing was."""
        measured = [each for each in records if each.outcome is Outcome.MEASURED and each.same_as is None]
        launches = [
            each.duration_s - each.durations_s.get("live", 0.0) for each in measured if each.is_launch
        ]
        loads = [each.durations_s["load"] for each in measured if "load" in each.durations_s]
        return cls(median(launches), median(loads)) if launches and loads else None


@dataclass(frozen=True)
class Offer:
    """A candidate that may be measured; `promise`: its acquisition, in any unit; `cost_s`: its time."""

    candidate: Candidate
    promise: float
    cost_s: float


@dataclass(frozen=True)
class Plan:
    """One launch: the first is launched, the others are measured live."""

    launch: Offer
    live: tuple[Offer, ...] = ()

    @property
    def rate(self) -> float:
        """What it promises a second."""
        parts = (self.launch, *self.live)
        return sum(each.promise for each in parts) / sum(each.cost_s for each in parts)


def plan(launches: Iterable[tuple[Offer, Sequence[Offer]]]) -> Plan:
    """Return the launch that promises most for its time, with those of its live values that pay.

    `launches`: what may be launched, each with what may be measured on its engine. Of equals the first.
    """
    return max((_with_what_pays(launch, live) for launch, live in launches), key=lambda each: each.rate)


def _with_what_pays(launch: Offer, live: Sequence[Offer]) -> Plan:
    """Return the best plan of one launch: each value that promises more for its time than all before it."""
    best = Plan(launch)
    for each in sorted(live, key=lambda offer: offer.promise / offer.cost_s, reverse=True):
        if each.promise / each.cost_s <= best.rate:
            break
        best = Plan(launch, (*best.live, each))
    return best
