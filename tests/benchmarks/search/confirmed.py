"""What a study would export after its launches: the product's own confirmation and answer, on the problem.

In: a problem and the launches of a search, of which the first is the baseline's. Out: the launch of the
answer's winner, and how many fresh launches that took. Pure. A launch is judged as the product judges it: a
percentile by the share of its requests over the limit, all times being longer by the launch's noise, and
measured again on the same engine while that does not decide it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune.interval import SeenShare
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.answer import conclude
from autotune.search.budget import Budget
from autotune.search.confirmation import NumberedTrial, contest_of
from autotune.search.rounds import gain_error_rate, rounds_due
from autotune.slo import ERROR_RATE, LOOKS, CeilingVerdict, Decision, Verdict
from autotune.slo.ceiling import Ceiling
from autotune.slo.verdict import decide_share
from tests.benchmarks.search.methods import Belief
from tests.benchmarks.search.problem import Launch, Problem, launch

BUDGET = Budget()
"""The defaults: three finalists, two rounds."""


@dataclass(frozen=True)
class Export:
    """The launch that goes to production, None if nothing does; and how many fresh launches it took."""

    launch: Launch | None
    fresh: int

    @property
    def worth(self) -> float:
        """What it is truly worth, 0 if nothing is exported."""
        return 0.0 if self.launch is None else self.launch.truth.worth


def export(
    problem: Problem, launches: Sequence[Launch], seed: int, belief: Belief | None = None, *, unspent: int = 0
) -> Export:
    """Return what is exported after these launches; `belief`: by which finalists are nominated, if any.

    `unspent`: how many launches more the search could have made.
    """
    generator = np.random.default_rng((seed, len(launches), 5))
    trials = [
        NumberedTrial(number, record_of(problem, made, Role.SEARCH if number else Role.BASELINE))
        for number, made in enumerate(launches)
    ]
    made_so_far = [*launches]

    def ranking(able: Sequence[NumberedTrial]) -> Sequence[float] | None:
        return belief(problem, made_so_far, [each.record.to_candidate() for each in able]) if belief else None

    contest = contest_of(trials, problem.slo, count=BUDGET.finalists, ranking=ranking)
    while chosen := contest.next_launch(rounds=rounds_due(contest, problem.slo, BUDGET, unspent=unspent)):
        made = launch(problem, chosen.record.to_candidate(), generator)
        record = record_of(problem, made, Role.CONFIRMATION).model_copy(update={"confirms": chosen.number})
        trials.append(NumberedTrial(len(trials), record))
        made_so_far.append(made)
        contest = contest_of(trials, problem.slo, count=BUDGET.finalists, ranking=ranking)
    rate = gain_error_rate(contest, BUDGET, unspent=unspent)
    answer = conclude(contest, problem.slo, gain_error_rate=rate)
    winner = None if answer.winner is None else launches[answer.winner]
    return Export(winner, len(trials) - len(launches))


def record_of(problem: Problem, made: Launch, role: Role) -> TrialRecord:
    """Return what the storage would hold of a launch."""
    record = TrialRecord(
        outcome=Outcome.FAILED,
        role=role,
        candidate=made.candidate.to_dict(),
        is_simulated=True,
        began_s=0.0,
        durations_s={"launch": made.truth.launch_s},
    )
    if made.value is None:
        return record
    verdict = Verdict(ceilings=tuple(_judged(made, each) for each in problem.slo.ceilings))
    return record.model_copy(
        update={"outcome": Outcome.MEASURED, "verdict": verdict, "objectives": (made.value,)}
    )


def _judged(made: Launch, ceiling: Ceiling) -> CeilingVerdict:
    """Return the verdict on a ceiling of a launch."""
    ratio = float(np.exp(made.excess[ceiling.text]))
    judged = CeilingVerdict(
        ceiling=ceiling.text,
        decision=Decision.MET if ratio <= 1 else Decision.MISSED,
        value=ceiling.limit * ratio,
        limit=ceiling.limit,
        margin_ratio=1 - ratio,
        samples=1,
    )
    if ceiling.quantity.percent is None:
        return judged
    noise = np.exp(made.excess[ceiling.text] - made.truth.excess[ceiling.text])
    once = made.truth.samples[ceiling.text].share_over(ceiling.limit / noise, ceiling.quantity.percent)
    looks = [SeenShare(once.share, once.independent * n, once.clusters * n) for n in range(1, LOOKS + 1)]
    decisions = [decide_share(ceiling, each, ERROR_RATE / LOOKS) for each in looks]
    last = next((n for n, each in enumerate(decisions) if each is not Decision.UNDECIDED), LOOKS - 1)
    seen = looks[last]
    return judged.model_copy(
        update={
            "decision": decisions[last],
            "share_over": seen.share,
            "independent_samples": seen.independent,
            "requests": seen.clusters,
        }
    )
