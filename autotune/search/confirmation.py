"""Who is launched afresh after the search, and in which order: the finalists and the baseline, interleaved.

In: the trials of a study. Out: the `Contest`, which knows the next launch. Pure. Invariants: every round
launches every contender once, and all of them on the same slot, so that a slow node slows everybody;
contenders are compared by launches of one time, so that a later call that finds another finalist confirms
all of them anew.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from autotune.record import Outcome, Role, TrialRecord
from autotune.slo import Decision, Objective, Slo, pool

Place: TypeAlias = tuple[str, ...]
"""The nodes of a slot; none where a study has but one."""


@dataclass(frozen=True)
class Turn:
    """Which slot is free for a fresh launch.

    `here`: that slot; `usable`: all that work, in their order; `busy`: those at work right now.
    """

    here: Place = ()
    usable: tuple[Place, ...] = ((),)
    busy: frozenset[Place] = frozenset()


@dataclass(frozen=True)
class NumberedTrial:
    """A finished trial and its number in the storage; `again`: the trial whose candidate it runs again."""

    number: int
    record: TrialRecord
    again: int | None = None


@dataclass(frozen=True)
class Contest:
    """What competes for production, and the fresh launches of it so far.

    `baseline`: None if it could not be measured. `candidates`: everything that was measured before the
    confirmation, the baseline included. `fresh`: confirmations of the contenders since the newest of them
    was measured, whatever came of them, and earlier ones that speak against a finalist.
    """

    baseline: NumberedTrial | None
    finalists: tuple[NumberedTrial, ...]
    candidates: tuple[NumberedTrial, ...]
    fresh: tuple[TrialRecord, ...]

    @property
    def contenders(self) -> tuple[NumberedTrial, ...]:
        """The baseline, if there is one, and the finalists."""
        return (*([self.baseline] if self.baseline else []), *self.finalists)

    @property
    def compared(self) -> tuple[TrialRecord, ...]:
        """The fresh launches to compare: of several slots whole rounds only, and what speaks against one."""
        if len({record.nodes for record in self.fresh}) <= 1:
            return self.fresh
        seen: Counter[tuple[Place, int | None]] = Counter()
        kept = []
        for record in self.fresh:
            seen[record.nodes, record.confirms] += 1
            is_whole = seen[record.nodes, record.confirms] <= self._rounds_on(record.nodes)
            if is_whole or _is_refutation(record):
                kept.append(record)
        return tuple(kept)

    def next_launch(self, *, rounds: int, turn: Turn = Turn()) -> NumberedTrial | None:
        """Return whose candidate is launched next on the free slot, None if nothing is left to confirm.

        A baseline that nothing competes with was not selected by its value: one fresh launch beside its
        own trial suffices, and none if it missed the SLO already.
        """
        if not self.finalists:
            rounds = int(self.baseline is not None and not _misses(self.baseline.record))
        number = next_confirmation(
            [each.number for each in self.contenders],
            self._launched_on(turn.here),
            rounds=rounds - self._rounds_elsewhere(turn),
            begins_backwards=turn.usable.index(turn.here) % 2 == 1,
        )
        return next((each for each in self.contenders if each.number == number), None)

    def _rounds_elsewhere(self, turn: Turn) -> int:
        """Return how many rounds other slots have completed, or will: those begun on a slot that works."""
        others = {record.nodes for record in self.fresh} | {*turn.usable}
        return sum(
            self._rounds_on(place)
            + (place in turn.usable and (place in turn.busy or self._has_begun_on(place)))
            for place in others - {turn.here}
        )

    def _launched_on(self, place: Place) -> list[int]:
        return [each.confirms for each in self.fresh if each.nodes == place and each.confirms is not None]

    def _rounds_on(self, place: Place) -> int:
        counts = Counter(self._launched_on(place))
        return min((counts[each.number] for each in self.contenders), default=0)

    def _has_begun_on(self, place: Place) -> bool:
        """Whether a round is begun there and not complete."""
        counts = Counter(self._launched_on(place))
        return any(counts[each.number] > self._rounds_on(place) for each in self.contenders)


def contest_of(trials: Sequence[NumberedTrial], slo: Slo, *, count: int) -> Contest:
    """Return the contest among settled trials, with at most `count` finalists."""
    baseline = next((trial for trial in _candidates(trials) if trial.record.role is Role.BASELINE), None)
    return _contest(trials, baseline, finalists(trials, slo, count=count))


def contest_under(trials: Sequence[NumberedTrial], settled: Sequence[NumberedTrial], slo: Slo) -> Contest:
    """Return the contest under an SLO for which nobody chose whom to launch again.

    `trials`: all of the study; those that are not `settled` could not be judged themselves. Finalists are
    those that the fresh launches are of, whatever made them finalists then, unless they miss this SLO; what
    was launched again tells, where they themselves cannot be judged. And those that were never launched again
    but promise most, the best or the ends of the front, unless one that meets the SLO on its fresh launches
    was better in the search, too.
    """
    fresh = {trial.number: _fresh_decision(trial, settled, slo) for trial in trials}
    again = [trial for trial in trials if fresh[trial.number] is not None]
    standing = [trial for trial in again if not _misses(trial.record, fresh[trial.number])]
    proven = [trial for trial in standing if fresh[trial.number] is Decision.MET]
    promising = [
        trial
        for trial in finalists(settled, slo, count=len(slo.goals))
        if not any(_dominates(each, trial, slo) for each in proven)
    ]
    rivals = {trial.number: trial for trial in (*promising, *standing) if trial.record.role is Role.SEARCH}
    baselines = (trial for trial in (*_candidates(settled), *again) if trial.record.role is Role.BASELINE)
    return _contest(settled, next(baselines, None), tuple(rivals.values()))


def _fresh_decision(trial: NumberedTrial, settled: Sequence[NumberedTrial], slo: Slo) -> Decision | None:
    """Return what the fresh launches of a trial's candidate say of it, None without any."""
    fresh = [each.record for each in settled if each.record.confirms == trial.number]
    if any(record.outcome is Outcome.FAILED for record in fresh):
        return Decision.MISSED
    verdict = pool([each.verdict for each in fresh if each.verdict is not None], slo)
    return verdict.decision if fresh else None


def _candidates(trials: Sequence[NumberedTrial]) -> tuple[NumberedTrial, ...]:
    return tuple(
        trial
        for trial in trials
        if trial.record.outcome is Outcome.MEASURED and trial.record.role is not Role.CONFIRMATION
    )


def _contest(
    trials: Sequence[NumberedTrial], baseline: NumberedTrial | None, best: tuple[NumberedTrial, ...]
) -> Contest:
    newest = max((trial.number for trial in (*best, *([baseline] if baseline else []))), default=0)
    rivals = {trial.number for trial in best}
    numbers = rivals | ({baseline.number} if baseline else set())
    fresh = tuple(
        trial.record
        for trial in trials
        if trial.record.confirms in (numbers if trial.number > newest else rivals)
        and (trial.number > newest or _is_refutation(trial.record))
    )
    return Contest(baseline, best, _candidates(trials), fresh)


def finalists(trials: Sequence[NumberedTrial], slo: Slo, *, count: int) -> tuple[NumberedTrial, ...]:
    """Return at most `count` candidates worth a confirmation, best first.

    With one objective: the best values among those that do not miss a ceiling, one of which surely meets them
    all if any does: a doubtful one may miss on its fresh launches. With several: the ends of the Pareto front
    first, then what lies between them.
    """
    seen: dict[str, NumberedTrial] = {}
    for trial in trials:
        if trial.record.role is Role.SEARCH and _may_win(trial.record, slo) and trial.record.same_as is None:
            seen.setdefault(trial.record.to_candidate().fingerprint, trial)
    ranked = sorted(seen.values(), key=lambda trial: _loss(trial.record, slo.goals[0]))
    if len(slo.goals) == 1:
        surest = next((trial for trial in ranked if _meets(trial.record)), None)
        best = ranked[:count]
        return tuple(best if surest is None or surest in best else [*best[:-1], surest])
    front = [trial for trial in ranked if not any(_dominates(other, trial, slo) for other in ranked)]
    picks = np.unique(np.linspace(0, len(front) - 1, min(count, len(front))).round().astype(int))
    return tuple(front[pick] for pick in picks)


def best_of(trials: Sequence[NumberedTrial], slo: Slo) -> NumberedTrial | None:
    """Return the best in the first objective of those that do not miss a ceiling, None if all do."""
    able = [trial for trial in trials if _may_win(trial.record, slo)]
    return min(able, key=lambda trial: _loss(trial.record, slo.goals[0]), default=None)


def best_so_far(trials: Sequence[NumberedTrial], slo: Slo) -> float | None:
    """Return the best value of the first objective among candidates that meet the SLO, None without any."""
    able = [
        trial.record for trial in _candidates(trials) if _meets(trial.record) and _is_whole(trial.record, slo)
    ]
    best = min(able, key=lambda record: _loss(record, slo.goals[0]), default=None)
    return None if best is None or best.objectives is None else best.objectives[0]


def next_confirmation(
    contenders: Sequence[int], launched: Sequence[int], *, rounds: int, begins_backwards: bool = False
) -> int | None:
    """Return the trial to launch again on a slot, None when every round is complete.

    `contenders`: the baseline and the finalists; `launched`: the trials confirmed there so far. Every second
    round runs backwards, so that a drift of the machine hits nobody twice from the same side.
    """
    counts = Counter(launched)
    for index in range(rounds):
        for number in contenders if index % 2 == begins_backwards else reversed(contenders):
            if counts[number] <= index:
                return number
    return None


def _may_win(record: TrialRecord, slo: Slo) -> bool:
    if record.outcome is not Outcome.MEASURED or record.verdict is None or not _is_whole(record, slo):
        return False
    return not _misses(record) and all(judged.margin_ratio >= 0 for judged in record.verdict.ceilings)


def _is_whole(record: TrialRecord, slo: Slo) -> bool:
    """Whether its values are those of loads that were not stopped."""
    return not {point.load for point in record.stops} & {goal.quantity.load for goal in slo.goals}


def _is_refutation(record: TrialRecord) -> bool:
    return record.outcome is Outcome.FAILED or _misses(record)


def _misses(record: TrialRecord, otherwise: Decision | None = None) -> bool:
    """Whether a launch missed a ceiling; `otherwise`: what is known of it if it was not judged itself."""
    return (record.verdict.decision if record.verdict else otherwise) is Decision.MISSED


def _meets(record: TrialRecord) -> bool:
    return record.verdict is not None and record.verdict.decision is Decision.MET


def _loss(record: TrialRecord, objective: Objective, index: int = 0) -> float:
    if record.objectives is None:
        return math.inf
    value = record.objectives[index]
    return -value if objective.direction == "maximise" else value


def _dominates(one: NumberedTrial, other: NumberedTrial, slo: Slo) -> bool:
    pairs = [
        (_loss(one.record, goal, index), _loss(other.record, goal, index))
        for index, goal in enumerate(slo.goals)
    ]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
