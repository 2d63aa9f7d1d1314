"""Which candidate is measured next on an engine that serves already, and when it has told enough.

In: what was measured on it so far, and what may be measured next. Out: one of these, or None. Pure: a trial
asks on its own thread, so that all that counts was taken along at its begin. Invariant: nothing is measured
live that a launch elsewhere is known to tell more cheaply.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotune.order import TrialOrder
from autotune.record import Role, TrialRecord
from autotune.search.confirmation import NumberedTrial, finalists
from autotune.search.ledger import finished_at
from autotune.search.plan import Prices
from autotune.slo import Decision
from autotune.space import Candidate
from autotune.study import Study

if TYPE_CHECKING:
    from autotune.search.gp.appraisal import Appraisal

MOST = 2
"""How many further values are measured on an engine if nobody knows what they promise."""
_LIKELY_WINNERS = 2
"""How many of the best may turn out to be the best: the second, and one that surely meets the SLO."""


@dataclass(frozen=True)
class ByPromise:
    """The one that promises most, as long as that is no less for its time than the best launch elsewhere.

    All that this engine has shown counts: the candidate that it was launched for, and each live value.
    `rows`: where candidates lie among those of the appraisal. `earlier`: what was told at the trial's begin.
    """

    study: Study
    appraisal: "Appraisal"
    rows: Mapping[Candidate, int]
    earlier: tuple[TrialRecord, ...]

    def __call__(self, records: Sequence[TrialRecord], orders: Sequence[TrialOrder]) -> TrialOrder | None:
        """Return what is measured next, after these records of the engine's own candidate and others."""
        prices = Prices.of((*self.earlier, *records))
        if not orders or prices is None:
            return None
        promises = self.appraisal.promises([finished_at(self.study, each) for each in records])
        best = max(orders, key=lambda order: float(promises.rows[self.rows[order.candidate]]))
        here = promises.rows[self.rows[best.candidate]] - math.log(prices.live_s)
        return best if here >= promises.other - math.log(prices.launch_s) else None


@dataclass(frozen=True)
class FewNearby:
    """The first ones offered, `MOST` of them, beside what deserves it, if a load takes less than the launch.

    For a sampler without a model. `trials`: what was told at the trial's begin; `number`: its own.
    """

    study: Study
    trials: tuple[NumberedTrial, ...]
    number: int

    def __call__(self, records: Sequence[TrialRecord], orders: Sequence[TrialOrder]) -> TrialOrder | None:
        """Return what is measured next, after these records of the engine's own candidate and others."""
        host, *lives = records
        is_dear = host.durations_s["load"] > host.durations_s["launch"]
        if is_dear or len(lives) >= MOST or not self._deserves_more(host):
            return None
        return next((each for each in orders if all(_may_follow(each, live, host) for live in lives)), None)

    def _deserves_more(self, host: TrialRecord) -> bool:
        """Whether a candidate just measured is worth more of its engine's time.

        The baseline is, so that what a flag does is known early. Later the likely winners are, and who misses
        a ceiling, which another value may mend.
        """
        misses = host.verdict is not None and host.verdict.decision is Decision.MISSED
        measured = NumberedTrial(self.number, host)
        among = (*self.trials, measured)
        return (
            host.role is Role.BASELINE
            or misses
            or measured in finalists(among, self.study.slo, count=_LIKELY_WINNERS)
        )


def _may_follow(order: TrialOrder, live: TrialRecord, host: TrialRecord) -> bool:
    """Whether a value lies where another one points: nearer to the launched one if that sufficed.

    It did unless the ceiling that the launched one misses is still missed.
    """
    assert order.live is not None  # noqa: S101 - it is one of those to be measured live
    missed = None if host.verdict is None else host.verdict.missed
    suffices = missed is None or live.verdict is None or live.verdict.missed != missed
    value = live.candidate[order.live.flag]
    return isinstance(value, int) and (order.live.value > value) is suffices
