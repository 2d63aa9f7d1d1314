"""Who is launched afresh after the search, and in which order: the finalists and the baseline, interleaved.

In: the trials of a study. Out: the `Contest`, which knows the next launch. Pure. Invariants: every round
launches every contender once, and all of them on the same slot, so that a slow node slows everybody;
contenders are compared by launches of one time, so that a later call that finds another finalist confirms
all of them anew; who missed a ceiling on a fresh launch, or failed, is launched no more.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from autotune.record import Outcome, Role, TrialRecord
from autotune.slo import Decision, Objective, Slo, pool

Place: TypeAlias = tuple[str, ...]
"""The nodes of a slot; none where a study has but one."""
Ranking: TypeAlias = Callable[[Sequence["NumberedTrial"]], Sequence[float] | None]
"""What a fresh launch of each trial's candidate is worth, the more the better; None if nobody knows."""


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
    """A finished trial and its number in the storage; `again`: the trial whose candidate it runs again.

    `promised`: what its launch was expected to gain when it was asked for (`sampler.Proposal`), None if
    nobody knew.
    """

    number: int
    record: TrialRecord
    again: int | None = None
    promised: float | None = None


@dataclass(frozen=True)
class Contest:
    """What competes for production, and the fresh launches of it so far.

    `baseline`: None if it could not be measured. `finalists`: those that were refuted, too. `candidates`:
    everything that was measured before the confirmation, the baseline included. `fresh`: confirmations of the
    contenders since the newest of them was measured, whatever came of them, and earlier ones that speak
    against a finalist.
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
    def refuted(self) -> frozenset[int]:
        """The finalists that cannot win any more, whatever further launches would say."""
        return frozenset(each.number for each in self.finalists) & _refuted_by(self.fresh)

    @property
    def standing(self) -> tuple[NumberedTrial, ...]:
        """The contenders that are launched on: the baseline whatever it does, to compare with."""
        return tuple(each for each in self.contenders if each.number not in self.refuted)

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
            [each.number for each in self.standing],
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
        return min((counts[each.number] for each in self.standing), default=0)

    def _has_begun_on(self, place: Place) -> bool:
        """Whether a round is begun there and not complete."""
        counts = Counter(self._launched_on(place))
        return any(counts[each.number] > self._rounds_on(place) for each in self.standing)


def contest_of(
    trials: Sequence[NumberedTrial], slo: Slo, *, count: int, ranking: Ranking | None = None
) -> Contest:
    """Return the contest among settled trials, with at most `count` finalists.

    Who was launched afresh since the search's last launch stays; who was refuted before is not asked again.
    Once all are refuted the next best joins them, and so on, at most `count` more. `ranking`: by what an only
    objective's candidates are nominated, instead of by the values that they were seen to have.
    """
    baseline = next((trial for trial in _candidates(trials) if trial.record.role is Role.BASELINE), None)
    begun, refuted = _begun(trials), _refuted_by([trial.record for trial in trials])
    places = count - len(begun)
    if places <= 0:
        is_over = len(begun) >= 2 * count or not refuted.issuperset(each.number for each in begun)
        places = 0 if is_over else 1
    left = [trial for trial in trials if trial.number not in refuted and trial not in begun]
    best = (*begun, *(_nominated(left, begun, slo, places, ranking) if places else ()))
    return _contest(trials, baseline, best or finalists(trials, slo, count=count))


def _begun(trials: Sequence[NumberedTrial]) -> tuple[NumberedTrial, ...]:
    """Return the trials of the search that were launched afresh since its last, in order of that."""
    searched = {trial.number: trial for trial in trials if trial.record.role is Role.SEARCH}
    newest = max(searched, default=0)
    confirmed = [trial.record.confirms for trial in trials if trial.number > newest]
    return tuple(searched[number] for number in dict.fromkeys(confirmed) if number in searched)


def _nominated(
    trials: Sequence[NumberedTrial],
    begun: Sequence[NumberedTrial],
    slo: Slo,
    places: int,
    ranking: Ranking | None,
) -> tuple[NumberedTrial, ...]:
    """Return who takes the places that are left beside those that were begun."""
    if len(slo.goals) > 1:
        return finalists(trials, slo, count=places)
    able = _able(trials, slo)
    worth = ranking(able) if ranking and able else None
    if worth is not None:
        able = [able[index] for index in np.argsort(-np.asarray(worth), kind="stable")]
    return _with_surest(able, places, begun)


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
    able = _able(trials, slo)
    if len(slo.goals) == 1:
        return _with_surest(able, count)
    front = [trial for trial in able if not any(_dominates(other, trial, slo) for other in able)]
    picks = np.unique(np.linspace(0, len(front) - 1, min(count, len(front))).round().astype(int))
    return tuple(front[pick] for pick in picks)


def _able(trials: Sequence[NumberedTrial], slo: Slo) -> list[NumberedTrial]:
    """Return the trials of the search that may win, one a candidate, the best values first."""
    seen: dict[str, NumberedTrial] = {}
    for trial in trials:
        if trial.record.role is Role.SEARCH and _may_win(trial.record, slo) and trial.record.same_as is None:
            seen.setdefault(trial.record.to_candidate().fingerprint, trial)
    return sorted(seen.values(), key=lambda trial: _loss(trial.record, slo.goals[0]))


def _with_surest(
    ranked: Sequence[NumberedTrial], count: int, beside: Sequence[NumberedTrial] = ()
) -> tuple[NumberedTrial, ...]:
    """Return the first so many; if neither they nor those beside surely meet the SLO, the last gives way."""
    best = tuple(ranked[:count])
    surest = next((trial for trial in ranked if _meets(trial.record)), None)
    if surest is None or any(_meets(each.record) for each in (*best, *beside)):
        return best
    return (*best[:-1], surest)


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


def _refuted_by(records: Sequence[TrialRecord]) -> frozenset[int]:
    """Return the trials whose candidates fresh launches speak against."""
    return frozenset(
        record.confirms for record in records if record.confirms is not None and _is_refutation(record)
    )


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
