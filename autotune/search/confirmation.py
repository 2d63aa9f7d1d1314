"""Whether the winner wins again: fresh launches of the finalists and the baseline, in interleaved rounds.

In: the trials of a study. Out: which trials are finalists, the order of the launches, and the `Answer`.
Pure. Invariant: the values that made a candidate a finalist never count in its confirmed gain, because the
best of many noisy values is biased upwards.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from autotune.document import Frozen
from autotune.interval import student_quantile
from autotune.record import Outcome, Role, TrialRecord
from autotune.slo import CeilingVerdict, Decision, Objective, Slo, Verdict, pool

MINIMUM_ROUNDS = 2


@dataclass(frozen=True)
class NumberedTrial:
    """A finished trial and its number in the storage."""

    number: int
    record: TrialRecord


class Gain(Frozen):
    """The objective relative to the baseline: 0.1 is 10 % better.

    The interval holds for all finalists at once.
    """

    estimate: float
    low: float
    high: float


class Confirmed(Frozen):
    """One finalist (or the baseline) after its fresh launches.

    `values`: the first objective, one per round that was measured. `ceilings`: the worst verdict of each
    ceiling over its launches. `gain` is None for the baseline and without a measured baseline.
    """

    trial: int
    values: tuple[float, ...]
    failed_launches: int
    verdict: Verdict
    gain: Gain | None = None

    @property
    def decision(self) -> Decision:
        """Met only if every launch was measured and no launch contradicts it."""
        if self.failed_launches or not self.values:
            return Decision.MISSED
        return self.verdict.decision


class AnswerKind(StrEnum):
    """What the study says."""

    IMPROVED = "improved"
    KEEP_BASELINE = "keep_baseline"
    NOTHING_MEETS = "nothing_meets"
    NOT_CONFIRMED = "not_confirmed"


class Answer(Frozen):
    """The result; `winner` is the trial whose candidate goes to production, None if none may."""

    kind: AnswerKind
    winner: int | None
    baseline: Confirmed | None
    finalists: tuple[Confirmed, ...]
    error_rate: float
    is_simulated: bool

    @property
    def confirmed_winner(self) -> Confirmed | None:
        """The winner's confirmation, the baseline's if it is kept."""
        everyone = [*self.finalists, *([self.baseline] if self.baseline else [])]
        return next((each for each in everyone if each.trial == self.winner), None)

    @property
    def binding(self) -> CeilingVerdict | None:
        """The ceiling with the least room in the winner's launches."""
        return self.confirmed_winner.verdict.binding if self.confirmed_winner else None


def finalists(trials: Sequence[NumberedTrial], slo: Slo, *, count: int) -> tuple[NumberedTrial, ...]:
    """Return at most `count` candidates worth a confirmation, best first.

    With one objective: the best values among those that do not miss a ceiling. With several: the ends of the
    Pareto front first, then what lies between them.
    """
    seen: dict[str, NumberedTrial] = {}
    for trial in trials:
        if trial.record.role is Role.SEARCH and _may_win(trial.record) and trial.record.same_as is None:
            seen.setdefault(trial.record.to_candidate().fingerprint, trial)
    ranked = sorted(seen.values(), key=lambda trial: _loss(trial.record, slo.goals[0]))
    if len(slo.goals) == 1:
        return tuple(ranked[:count])
    front = [trial for trial in ranked if not any(_dominates(other, trial, slo) for other in ranked)]
    picks = np.unique(np.linspace(0, len(front) - 1, min(count, len(front))).round().astype(int))
    return tuple(front[pick] for pick in picks)


def next_confirmation(contenders: Sequence[int], launched: Sequence[int], *, rounds: int) -> int | None:
    """Return the trial to launch again, None when every round is complete.

    `contenders`: the baseline and the finalists; `launched`: the trials confirmed so far, which an earlier
    call may have begun with other finalists. Every second round runs backwards, so that a drift of the
    machine hits nobody twice from the same side.
    """
    counts = Counter(launched)
    for index in range(rounds):
        for number in contenders if index % 2 == 0 else reversed(contenders):
            if counts[number] <= index:
                return number
    return None


def conclude(
    baseline: NumberedTrial | None,
    contenders: Sequence[NumberedTrial],
    confirmations: Sequence[TrialRecord],
    slo: Slo,
    *,
    error_rate: float = 0.05,
) -> Answer:
    """Return the answer from the fresh launches alone.

    The winner is the finalist with the best lower bound of its gain, if that bound is above zero or if the
    baseline does not meet the SLO; otherwise the baseline stays.
    """
    if not contenders:
        return _conclude_alone(baseline, error_rate)
    confirmed = {
        trial.number: _confirm(trial.number, confirmations, slo)
        for trial in (*contenders, *([baseline] if baseline else []))
    }
    reference = confirmed.get(baseline.number) if baseline else None
    gains = _gains(confirmed, reference, slo.goals[0], error_rate, len(contenders))
    rivals = tuple(
        confirmed[trial.number].model_copy(update={"gain": gains.get(trial.number)}) for trial in contenders
    )
    kind, winner = _decide(reference, rivals, slo.goals[0])
    if not all(len(each.values) + each.failed_launches >= MINIMUM_ROUNDS for each in confirmed.values()):
        kind, winner = AnswerKind.NOT_CONFIRMED, None
    return Answer(
        kind=kind,
        winner=winner,
        baseline=reference,
        finalists=rivals,
        error_rate=error_rate,
        is_simulated=any(record.is_simulated for record in confirmations),
    )


def _conclude_alone(baseline: NumberedTrial | None, error_rate: float) -> Answer:
    """Return the answer when nothing competes with the baseline.

    Its own trial suffices as evidence, because it was not selected by its value.
    """
    kept = None
    if baseline is not None and baseline.record.verdict is not None:
        kept = Confirmed(
            trial=baseline.number,
            values=(baseline.record.objectives or ())[:1],
            failed_launches=0,
            verdict=baseline.record.verdict,
        )
    meets = kept is not None and kept.decision is Decision.MET
    return Answer(
        kind=AnswerKind.KEEP_BASELINE if meets else AnswerKind.NOTHING_MEETS,
        winner=kept.trial if meets and kept else None,
        baseline=kept,
        finalists=(),
        error_rate=error_rate,
        is_simulated=baseline is not None and baseline.record.is_simulated,
    )


def _decide(
    baseline: Confirmed | None, rivals: Sequence[Confirmed], objective: Objective
) -> tuple[AnswerKind, int | None]:
    able = [rival for rival in rivals if rival.decision is Decision.MET]
    keeps_promise = baseline is not None and baseline.decision is Decision.MET
    if keeps_promise:
        able = [rival for rival in able if rival.gain is not None and rival.gain.low > 0]
    if able:
        best = max(able, key=lambda rival: (_lower_bound(rival), -_mean_loss(rival, objective)))
        return AnswerKind.IMPROVED, best.trial
    if keeps_promise and baseline is not None:
        return AnswerKind.KEEP_BASELINE, baseline.trial
    return AnswerKind.NOTHING_MEETS, None


def _confirm(number: int, confirmations: Sequence[TrialRecord], slo: Slo) -> Confirmed:
    own = [record for record in confirmations if record.confirms == number]
    measured = [record for record in own if record.outcome is Outcome.MEASURED]
    verdicts = [record.verdict for record in measured if record.verdict is not None]
    return Confirmed(
        trial=number,
        values=tuple(record.objectives[0] for record in measured if record.objectives),
        failed_launches=sum(record.outcome is Outcome.FAILED for record in own),
        verdict=pool(verdicts, slo),
    )


def _gains(
    confirmed: Mapping[int, Confirmed],
    baseline: Confirmed | None,
    objective: Objective,
    error_rate: float,
    comparisons: int,
) -> dict[int, Gain]:
    """Return the gains over the baseline, from a one-way model of the logarithms.

    Launch-to-launch variance is pooled over all contenders; Student's t with Bonferroni's correction for the
    number of finalists. One value per contender leaves no degree of freedom, hence no gain.
    """
    logs = {
        number: np.log([value for value in each.values if value > 0]) for number, each in confirmed.items()
    }
    freedom = sum(max(len(log) - 1, 0) for log in logs.values())
    if baseline is None or freedom < 1 or not len(logs[baseline.trial]):
        return {}
    variance = sum(float(((log - log.mean()) ** 2).sum()) for log in logs.values() if len(log)) / freedom
    quantile = student_quantile(1 - error_rate / 2 / max(comparisons, 1), freedom)
    sign = 1.0 if objective.direction == "maximise" else -1.0
    reference = logs.pop(baseline.trial)
    gains = {}
    for number, log in logs.items():
        if len(log):
            middle = sign * float(log.mean() - reference.mean())
            reach = quantile * math.sqrt(variance * (1 / len(log) + 1 / len(reference)))
            low, estimate, high = (math.expm1(middle + side * reach) for side in (-1, 0, 1))
            gains[number] = Gain(estimate=estimate, low=low, high=high)
    return gains


def _may_win(record: TrialRecord) -> bool:
    if record.outcome is not Outcome.MEASURED or record.verdict is None:
        return False
    return all(judged.margin_ratio >= 0 for judged in record.verdict.ceilings) and (
        record.verdict.decision is not Decision.MISSED
    )


def _loss(record: TrialRecord, objective: Objective, index: int = 0) -> float:
    if record.objectives is None:
        return math.inf
    value = record.objectives[index]
    return -value if objective.direction == "maximise" else value


def _mean_loss(confirmed: Confirmed, objective: Objective) -> float:
    mean = float(np.mean(confirmed.values))
    return -mean if objective.direction == "maximise" else mean


def _lower_bound(confirmed: Confirmed) -> float:
    return confirmed.gain.low if confirmed.gain else -math.inf


def _dominates(one: NumberedTrial, other: NumberedTrial, slo: Slo) -> bool:
    pairs = [
        (_loss(one.record, goal, index), _loss(other.record, goal, index))
        for index, goal in enumerate(slo.goals)
    ]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
