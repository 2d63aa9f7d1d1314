"""What a study concludes: fresh launches of the finalists and the baseline, compared objective by objective.

In: a `Contest`. Out: the `Answer`. Pure. Invariants: the values that made a candidate a finalist never count
in its confirmed gain, because the best of many noisy values is biased upwards; several objectives are never
traded against each other here, that is the user's to do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from types import MappingProxyType

import numpy as np

from autotune.document import Frozen
from autotune.record import Outcome, TrialRecord
from autotune.search.alike import Alikeness, AnswersVerdict
from autotune.search.confirmation import Contest, Place
from autotune.search.gains import Gain, LaunchModel, fit
from autotune.slo import ERROR_RATE, FRESH_LAUNCHES, CeilingVerdict, Decision, Slo, Verdict, pool

_LEAST_FRONT = 3
_ROUNDING = 1e-9
NO_ANSWERS: Mapping[int, Alikeness] = MappingProxyType({})


class Confirmed(Frozen):
    """One finalist (or the baseline) after its fresh launches.

    `values`: for every launch that was measured, one value per objective in the SLO's order. `verdict`: the
    worst verdict of each ceiling over its launches. `gains` over the baseline, one per objective; empty for
    the baseline itself, None where it cannot be told. `spans`: the intervals of the
    values themselves, of several objectives only. `alike`: a finalist's answers against the baseline's.
    """

    trial: int
    values: tuple[tuple[float, ...], ...]
    failed_launches: int
    verdict: Verdict
    gains: tuple[Gain | None, ...] = ()
    spans: tuple[tuple[float, float] | None, ...] = ()
    alike: Alikeness | None = None

    @property
    def answers_differ(self) -> bool:
        """Whether it answers differently than the baseline for certain."""
        return self.alike is not None and self.alike.verdict is AnswersVerdict.DIFFERENT

    @property
    def launches(self) -> int:
        """How many fresh launches came to an end."""
        return len(self.values) + self.failed_launches

    @property
    def gain(self) -> Gain | None:
        """The gain in the first objective."""
        return self.gains[0] if self.gains else None

    @property
    def decision(self) -> Decision:
        """Met only if every launch was measured and no launch contradicts it."""
        if self.failed_launches or not self.values:
            return Decision.MISSED
        return self.verdict.decision

    def objective(self, index: int) -> tuple[float, ...]:
        """Return one objective's values, one a launch."""
        return tuple(row[index] for row in self.values)

    def mean(self, index: int) -> float:
        """Return one objective's mean over the launches, NaN without any."""
        return sum(self.objective(index)) / len(self.values) if self.values else math.nan


class AnswerKind(StrEnum):
    """What the study says.

    UNCOMPARED: a candidate meets the SLO, but no baseline could be measured. FRONT: several objectives, and
    no candidate is better than the baseline without a price in another. UNDECIDED: too few
    samples to say whether anything meets the SLO.
    """

    IMPROVED = "improved"
    UNCOMPARED = "uncompared"
    FRONT = "front"
    KEEP_BASELINE = "keep_baseline"
    UNDECIDED = "undecided"
    NOTHING_MEETS = "nothing_meets"
    NOTHING_MEASURED = "nothing_measured"
    NOT_CONFIRMED = "not_confirmed"


class Answer(Frozen):
    """The result; `winner` is the trial whose candidate goes to production, None if none is named.

    `baseline`: None without a fresh launch of it. With several objectives, `front` holds the contenders that
    meet the SLO and that no other such contender dominates, `dominating` those that dominate the baseline.
    One dominates another if it is nowhere worse on average and somewhere better for certain. `knee`: the
    point of the front that gives up least in all objectives together, None unless it lies between others.
    """

    kind: AnswerKind
    winner: int | None
    baseline: Confirmed | None
    finalists: tuple[Confirmed, ...]
    error_rate: float
    is_simulated: bool
    front: tuple[int, ...] = ()
    dominating: tuple[int, ...] = ()
    knee: int | None = None

    @property
    def meets_slo(self) -> bool:
        """Whether there is something for production: a named winner, or a front to choose from."""
        return self.winner is not None or self.kind is AnswerKind.FRONT

    @property
    def confirmed_winner(self) -> Confirmed | None:
        """The winner's confirmation, the baseline's if it is kept."""
        everyone = [*self.finalists, *([self.baseline] if self.baseline else [])]
        return next((each for each in everyone if each.trial == self.winner), None)

    @property
    def binding(self) -> CeilingVerdict | None:
        """The ceiling with the least room in the winner's launches."""
        return self.confirmed_winner.verdict.binding if self.confirmed_winner else None


def conclude(
    contest: Contest,
    slo: Slo,
    *,
    alike: Mapping[int, Alikeness] = NO_ANSWERS,
    error_rate: float = ERROR_RATE,
    gain_error_rate: float | None = None,
) -> Answer:
    """Return the answer from the fresh launches alone; `alike`: of the finalists, by number.

    `gain_error_rate`: what the gains' intervals may spend of `error_rate`, all of it by default.

    With one objective the winner is the finalist with the best lower bound of its gain, if that bound is
    above zero or if the baseline does not meet the SLO; otherwise the baseline stays. With several, a winner
    is named if it dominates the baseline, or is better in the first objective for certain and worse in none
    for certain, or is the whole front; otherwise the front is the answer. Of several that could be named, one
    whose answers differ from the baseline's is named last.
    """
    if not contest.finalists:
        return _conclude_alone(contest, slo, error_rate)
    standings = _standings(contest, slo, gain_error_rate or error_rate, alike)
    answer = Answer(
        kind=AnswerKind.NOT_CONFIRMED,
        winner=None,
        baseline=standings.baseline,
        finalists=standings.rivals,
        error_rate=error_rate,
        is_simulated=any(record.is_simulated for record in contest.fresh),
    )
    standing = {each.number for each in contest.standing}
    if not all(each.launches >= FRESH_LAUNCHES for each in standings.everyone if each.trial in standing):
        return answer
    decide = _decide_one if len(slo.goals) == 1 else _decide_several
    return answer.model_copy(update=decide(standings))


@dataclass(frozen=True)
class _Standings:
    """The contenders after their fresh launches, and one model per objective to compare them by."""

    baseline: Confirmed | None
    rivals: tuple[Confirmed, ...]
    models: tuple[LaunchModel, ...]

    @property
    def everyone(self) -> tuple[Confirmed, ...]:
        return (*([self.baseline] if self.baseline else []), *self.rivals)

    @property
    def able(self) -> tuple[Confirmed, ...]:
        """The rivals that meet the SLO."""
        return tuple(rival for rival in self.rivals if rival.decision is Decision.MET)

    @property
    def kept(self) -> Confirmed | None:
        """The baseline if it meets the SLO."""
        meets = self.baseline is not None and self.baseline.decision is Decision.MET
        return self.baseline if meets else None

    def gains(self, one: Confirmed, over: Confirmed) -> tuple[Gain | None, ...]:
        return tuple(model.gain(one.trial, over.trial) for model in self.models)

    def dominates(self, one: Confirmed, other: Confirmed) -> bool:
        gains = [gain for gain in self.gains(one, other) if gain is not None]
        nowhere_worse = len(gains) == len(self.models) and all(gain.estimate >= 0 for gain in gains)
        return nowhere_worse and any(gain.low > 0 for gain in gains)

    def front(self) -> tuple[Confirmed, ...]:
        """Return the contenders that meet the SLO and that no other such contender dominates."""
        pool_ = (*([self.kept] if self.kept else []), *self.able)
        return tuple(one for one in pool_ if not any(self.dominates(other, one) for other in pool_))

    def best(self, rivals: Sequence[Confirmed]) -> Confirmed:
        """Return the rival with the best lower bound in the first objective, else with the best mean.

        One whose answers differ from the baseline's comes after all others.
        """
        sign = self.models[0].sign

        def rank(each: Confirmed) -> tuple[bool, float, float]:
            low = each.gain.low if each.gain else -math.inf
            return (not each.answers_differ, low, sign * each.mean(0))

        return max(rivals, key=rank)


def _standings(contest: Contest, slo: Slo, error_rate: float, alike: Mapping[int, Alikeness]) -> _Standings:
    """Compare the finalists with the baseline; with several objectives every contender with every other."""
    fresh = contest.compared
    confirmed = [
        _confirm(each.number, fresh, slo).model_copy(update={"alike": alike.get(each.number)})
        for each in contest.contenders
    ]
    goals, pairs = slo.goals, len(list(combinations(confirmed, 2)))
    comparisons = len(contest.finalists) if len(goals) == 1 else len(goals) * pairs
    models = tuple(
        fit(
            {each.trial: each.objective(index) for each in confirmed},
            goal,
            error_rate=error_rate,
            comparisons=comparisons,
            places={each.trial: _places(each.trial, fresh) for each in confirmed},
        )
        for index, goal in enumerate(goals)
    )
    if len(goals) > 1:
        confirmed = [
            each.model_copy(update={"spans": tuple(model.span(each.trial) for model in models)})
            for each in confirmed
        ]
    if contest.baseline is None:
        return _Standings(None, tuple(confirmed), models)
    baseline, *rivals = confirmed
    plain = _Standings(baseline, tuple(rivals), models)
    compared = (each.model_copy(update={"gains": plain.gains(each, baseline)}) for each in rivals)
    return _Standings(baseline, tuple(compared), models)


def _confirm(number: int, fresh: Sequence[TrialRecord], slo: Slo) -> Confirmed:
    own = [record for record in fresh if record.confirms == number]
    measured = [record for record in own if record.outcome is Outcome.MEASURED]
    return Confirmed(
        trial=number,
        values=tuple(record.objectives for record in measured if record.objectives),
        failed_launches=sum(record.outcome is Outcome.FAILED for record in own),
        verdict=pool([record.verdict for record in measured if record.verdict is not None], slo),
    )


def _places(number: int, fresh: Sequence[TrialRecord]) -> list[Place]:
    """Return where each value of `Confirmed.values` was measured."""
    own = [each for each in fresh if each.confirms == number and each.outcome is Outcome.MEASURED]
    return [each.nodes for each in own if each.objectives]


def _decide_one(standings: _Standings) -> dict[str, object]:
    able = standings.able
    if standings.kept is not None:
        able = tuple(rival for rival in able if rival.gain is not None and rival.gain.low > 0)
    if able:
        return _win(standings, standings.best(able))
    return _nobody(standings)


def _decide_several(standings: _Standings) -> dict[str, object]:
    front, reference = standings.front(), standings.baseline
    rivals = [each for each in front if each is not standings.kept]
    dominating = tuple(
        each.trial for each in standings.able if reference and standings.dominates(each, reference)
    )
    found = {
        "front": tuple(each.trial for each in front),
        "dominating": dominating,
        "knee": _knee(front, [model.sign for model in standings.models]),
    }
    if standings.kept is None:
        winners = rivals if len(rivals) == 1 else []
    else:
        winners = [each for each in rivals if each.trial in dominating or _is_free_gain(each)]
        rivals = [each for each in rivals if any(gain and gain.low > 0 for gain in each.gains)]
    if winners:
        return found | _win(standings, standings.best(winners))
    if rivals:
        return found | {"kind": AnswerKind.FRONT}
    return found | _nobody(standings)


def _knee(front: Sequence[Confirmed], signs: Sequence[float]) -> int | None:
    """Return the point farthest inside the plane through the best points of each objective, None if none is.

    Objectives are scaled to the range that the front has in them; the distance from that plane is then one
    less the sum of the shares that a point gives up.
    """
    if len(front) < _LEAST_FRONT:
        return None
    values = np.array([[each.mean(index) * sign for index, sign in enumerate(signs)] for each in front])
    ranges = values.max(0) - values.min(0)
    given_up = ((values.max(0) - values) / np.where(ranges > 0, ranges, 1)).sum(1)
    best = int(given_up.argmin())
    return front[best].trial if given_up[best] < 1 - _ROUNDING else None


def _is_free_gain(rival: Confirmed) -> bool:
    """Whether the first objective is better than the baseline's for certain, and none worse for certain."""
    first, *others = rival.gains
    return first is not None and first.low > 0 and not any(gain and gain.high < 0 for gain in others)


def _win(standings: _Standings, best: Confirmed) -> dict[str, object]:
    kind = AnswerKind.UNCOMPARED if standings.baseline is None else AnswerKind.IMPROVED
    return {"kind": kind, "winner": best.trial}


def _nobody(standings: _Standings) -> dict[str, object]:
    """Return what is said when no rival wins."""
    if standings.kept is not None:
        return {"kind": AnswerKind.KEEP_BASELINE, "winner": standings.kept.trial}
    is_open = any(each.decision is Decision.UNDECIDED for each in standings.everyone)
    return {"kind": AnswerKind.UNDECIDED if is_open else AnswerKind.NOTHING_MEETS}


def _conclude_alone(contest: Contest, slo: Slo, error_rate: float) -> Answer:
    """Return the answer when nothing competes with the baseline.

    Its own trial counts beside its fresh launch, because it was not selected by its value.
    """
    baseline, confirmed, verdicts = contest.baseline, None, []
    if baseline is not None and baseline.record.verdict is not None:
        verdicts.append(baseline.record.verdict)
    if baseline is not None and contest.fresh:
        confirmed = _confirm(baseline.number, contest.fresh, slo)
        verdicts += [each.verdict for each in contest.fresh if each.verdict is not None]
        confirmed = confirmed.model_copy(update={"verdict": pool(verdicts, slo)})
    kind = _kind_alone(contest, confirmed, pool(verdicts, slo).decision if verdicts else None)
    records = (*(trial.record for trial in contest.candidates), *contest.fresh)
    return Answer(
        kind=kind,
        winner=baseline.number if baseline and kind is AnswerKind.KEEP_BASELINE else None,
        baseline=confirmed,
        finalists=(),
        error_rate=error_rate,
        is_simulated=any(record.is_simulated for record in records),
    )


def _kind_alone(contest: Contest, confirmed: Confirmed | None, decision: Decision | None) -> AnswerKind:
    """Return what is said, given the decision on the baseline over all its launches, None without any."""
    if not contest.candidates:
        return AnswerKind.NOTHING_MEASURED
    if decision is Decision.MET:
        is_refuted = confirmed is not None and confirmed.failed_launches > 0
        return AnswerKind.NOT_CONFIRMED if is_refuted else AnswerKind.KEEP_BASELINE
    others = [trial.record.verdict for trial in contest.candidates if trial is not contest.baseline]
    decisions = {decision, *(verdict.decision for verdict in others if verdict is not None)}
    return AnswerKind.UNDECIDED if Decision.UNDECIDED in decisions else AnswerKind.NOTHING_MEETS
