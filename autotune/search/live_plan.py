"""What is launched for a candidate that the search proposes, and what may be measured on its engine as well.

In: candidates, and what was told so far. Out: the candidate to launch, further ones, and who chooses among
them. Talks to the ledger, for what its sampler believes. Invariant: only the thread that asks and tells calls
this; what it returns holds all that a trial needs.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from autotune.live_values import NextLive
from autotune.order import TrialOrder
from autotune.record import Role, TrialRecord
from autotune.search.budget import Budget
from autotune.search.ledger import AskedTrial, Ledger
from autotune.search.live_candidates import candidates_beside, expected_flags, launches_for, live_value
from autotune.search.live_choice import ByPromise, FewNearby
from autotune.search.plan import Offer, Prices, plan
from autotune.search.sampler import Proposal
from autotune.search.told import Told
from autotune.space import Candidate
from autotune.study import Study

if TYPE_CHECKING:
    from autotune.search.gp.appraisal import Appraisal, Promises


@dataclass(frozen=True)
class LivePlanner:
    """The live values of one study; `told` is the tuner's own, and as of its last trial."""

    study: Study
    ledger: Ledger
    told: Told
    budget: Budget

    def ask(self, proposal: Proposal, running: Collection[Candidate]) -> AskedTrial:
        """Return a trial of the search that measures a proposal, on an engine of its own or live."""
        proposed = launched = proposal.candidate
        if self.budget.measures_live:
            launched = self._launch_for(proposed, running)
        asked = self.ledger.ask(replace(proposal, candidate=launched))
        return replace(asked, live=(proposed,) if launched != proposed else ())

    def orders(
        self, host: TrialOrder, running: Collection[Candidate], *, first: Sequence[Candidate]
    ) -> list[TrialOrder]:
        """Return what may be measured on a launch's engine as well, behind what it is launched for."""
        if host.role is Role.CONFIRMATION or not self.budget.measures_live:
            return []
        order = replace(host, role=Role.SEARCH, measure_all=False, stops_early=self.budget.stops_early)
        return [
            replace(order, candidate=each, live=live_value(each, host.candidate))
            for each in self._beside(host.candidate, running, first=first)
        ]

    def choice(self, number: int, host: Candidate, live: Sequence[Candidate]) -> NextLive:
        """Return who chooses among these while the trial of that number runs on the engine of the host."""
        rows = _rows((host, *live))
        appraisal = self._appraise(rows, host=number) if live else None
        if appraisal is None:
            return FewNearby(self.study, self.told.settled, number)
        return ByPromise(self.study, appraisal, rows, self._records)

    def _launch_for(self, proposal: Candidate, running: Collection[Candidate]) -> Candidate:
        """Return what to launch to measure a proposal: it, or one on whose engine more is told for the time.

        It itself where the sampler cannot tell, or nothing was measured yet.
        """
        prices = Prices.of(self._records)
        hosts = launches_for(
            self.study.space,
            self.study.slo,
            proposal,
            is_worth=lambda each: self.told.is_worth_a_trial(each, running),
        )
        if prices is None or not hosts:
            return proposal
        families = {proposal: self._beside(proposal, running)}
        families |= {host: self._beside(host, running, first=(proposal,)) for host in hosts}
        rows = _rows(each for host, family in families.items() for each in (host, *family))
        appraisal = self._appraise(rows)
        if appraisal is None:
            return proposal
        return plan(_launches(families, rows, appraisal.promises(), prices)).launch.candidate

    def _beside(
        self, host: Candidate, running: Collection[Candidate], *, first: Sequence[Candidate] = ()
    ) -> tuple[Candidate, ...]:
        """Return what may be measured on a candidate's engine as well, behind what it is launched for."""
        taken = {*running, host}
        found = candidates_beside(
            self.study.space,
            self.study.slo,
            host,
            trials=self.told.settled,
            is_worth=lambda each: self.told.is_worth_a_trial(each, taken),
        )
        return tuple(dict.fromkeys((*first, *found)))

    @property
    def _records(self) -> tuple[TrialRecord, ...]:
        return tuple(each.record for each in self.told.settled)

    def _appraise(self, rows: Mapping[Candidate, int], *, host: int | None = None) -> "Appraisal | None":
        return self.ledger.appraise([expected_flags(self.study.space, each) for each in rows], host=host)


def _rows(candidates: Iterable[Candidate]) -> dict[Candidate, int]:
    """Return the places of candidates among each other, equal ones once."""
    return {each: row for row, each in enumerate(dict.fromkeys(candidates))}


def _launches(
    families: Mapping[Candidate, Sequence[Candidate]],
    rows: Mapping[Candidate, int],
    promises: "Promises",
    prices: Prices,
) -> list[tuple[Offer, list[Offer]]]:
    """Return each launch with its live values, which promise what they do if its engine starts."""
    most = float(promises.rows.max())

    def offer(candidate: Candidate, host: Candidate, cost_s: float) -> Offer:
        row, at = rows[candidate], rows[host]
        promise = promises.rows[row] - promises.survival[row] + promises.survival[at]
        return Offer(candidate, math.exp(promise - most), cost_s)

    return [
        (offer(host, host, prices.launch_s), [offer(each, host, prices.live_s) for each in family])
        for host, family in families.items()
    ]
