"""What a study's history says, before it is put into words: standings, the nearest candidate, failures. Pure.

In: a `StudyHistory`. Out: trials and verdicts. Invariant: a candidate that was launched again is judged by
those fresh launches, never by the search's own measurement alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from autotune.record import Outcome, Role, TrialRecord
from autotune.report.pareto import pareto_front
from autotune.search.answer import Confirmed
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from autotune.slo import Decision, Objective, Verdict
from autotune.space import Candidate, FlagValue


def is_simulated(history: StudyHistory) -> bool:
    """Whether any number of the study comes from a model of the engine."""
    answer = history.answer is not None and history.answer.is_simulated
    return answer or any(trial.record.is_simulated for trial in history.trials)


def trial_of(history: StudyHistory, number: int | None) -> NumberedTrial | None:
    """Return the finished trial of that number, None if there is none."""
    return next((trial for trial in history.trials if trial.number == number), None)


def baseline_of(history: StudyHistory) -> NumberedTrial | None:
    """Return the trial of the baseline, the last one if it had to be measured again."""
    trials = [trial for trial in history.trials if trial.record.role is Role.BASELINE]
    good = [trial for trial in trials if trial.record.outcome is Outcome.MEASURED]
    return next(reversed(good or trials), None)


def winner_of(history: StudyHistory) -> NumberedTrial | None:
    """Return the trial whose candidate goes to production, None if none may."""
    return None if history.answer is None else trial_of(history, history.answer.winner)


def is_only_live(history: StudyHistory, trial: NumberedTrial) -> bool:
    """Whether it was measured live on another trial's engine, and no fresh launch of it was measured."""
    return trial.record.measured_live_on is not None and not any(
        each.record.outcome is Outcome.MEASURED and each.record.confirms == trial.number
        for each in history.trials
    )


def confirmed_of(history: StudyHistory, trial: NumberedTrial) -> Confirmed | None:
    """Return the fresh launches of a trial's candidate, None if there were none."""
    if history.answer is None:
        return None
    number = trial.number if trial.record.confirms is None else trial.record.confirms
    everyone = [*history.answer.finalists, history.answer.baseline]
    return next((one for one in everyone if one and one.trial == number and one.launches), None)


def verdict_of(history: StudyHistory, trial: NumberedTrial) -> Verdict | None:
    """Return the verdict of the fresh launches if there were any, else that of the trial."""
    confirmed = confirmed_of(history, trial)
    return confirmed.verdict if confirmed and confirmed.values else trial.record.verdict


def decision_of(history: StudyHistory, trial: NumberedTrial) -> Decision | None:
    """Return whether the candidate meets the SLO, None if it was never measured."""
    confirmed = confirmed_of(history, trial)
    if confirmed is not None:
        return confirmed.decision
    if trial.record.outcome is not Outcome.MEASURED or trial.record.verdict is None:
        return None
    return trial.record.verdict.decision


def measured(history: StudyHistory) -> tuple[NumberedTrial, ...]:
    """Return the candidates that were measured, each by its first trial; confirmations are not among them."""
    return tuple(
        trial
        for trial in history.trials
        if trial.record.outcome is Outcome.MEASURED and trial.record.role is not Role.CONFIRMATION
    )


def meeting(history: StudyHistory) -> tuple[NumberedTrial, ...]:
    """Return the measured candidates that meet the SLO, the best first."""
    able = [
        trial
        for trial in measured(history)
        if decision_of(history, trial) is Decision.MET and trial.record.objectives is not None
    ]
    return tuple(sorted(able, key=lambda trial: losses(trial.record, history.study.slo.goals)))


def nearest(history: StudyHistory) -> NumberedTrial | None:
    """Return the measured candidate whose binding ceiling has the most room, or is missed by the least.

    Whole measurements come first; a margin of a load point that was stopped is none to compare.
    """
    return max(measured(history), key=partial(_nearness, history), default=None)


def most_promising(history: StudyHistory) -> NumberedTrial | None:
    """Return the undecided candidate with the most room, None if every candidate was decided or given up."""
    able = [
        trial
        for trial in measured(history)
        if decision_of(history, trial) is Decision.UNDECIDED and not trial.record.stops
    ]
    return max(able, key=lambda trial: _room(history, trial), default=None)


def leaders(history: StudyHistory, count: int) -> tuple[NumberedTrial, ...]:
    """Return the best candidates so far: those that meet the SLO, then the nearest to it."""
    able = {trial.number: trial for trial in meeting(history)}
    rest = [trial for trial in measured(history) if trial.number not in able]
    return (*able.values(), *sorted(rest, key=partial(_nearness, history), reverse=True))[:count]


def front(history: StudyHistory) -> frozenset[int]:
    """Return the numbers of the candidates that meet the SLO and that no other such candidate dominates."""
    able = meeting(history)
    points = [losses(trial.record, history.study.slo.goals) for trial in able]
    return frozenset(able[index].number for index in pareto_front(points))


def losses(record: TrialRecord, goals: Iterable[Objective]) -> tuple[float, ...]:
    """Return the objectives turned so that less is better; empty unless measured."""
    return tuple(
        -value if goal.direction == "maximise" else value
        for goal, value in zip(goals, record.objectives or (), strict=False)
    )


def objective_of(record: TrialRecord, goals: Sequence[Objective], index: int) -> float | None:
    """Return what an objective was measured to be, None if it was not, or only until its load was stopped."""
    is_partial = any(point.load == goals[index].quantity.load for point in record.stops)
    return record.objectives[index] if record.objectives and not is_partial else None


def differences(history: StudyHistory, candidate: Candidate) -> dict[str, FlagValue | None]:
    """Return the flags that differ from the baseline's; None where the candidate leaves them unset."""
    baseline = baseline_of(history)
    ours = candidate.to_dict()
    theirs = history.study.space.baseline if baseline is None else baseline.record.candidate
    names = [*history.study.space.tune, *sorted(ours.keys() | theirs.keys())]
    return {name: ours.get(name) for name in dict.fromkeys(names) if ours.get(name) != theirs.get(name)}


def stop_lines(record: TrialRecord) -> tuple[str, ...]:
    """Return why each load point that was stopped was; what was measured there is partial."""
    return tuple(f"{point.load} {point.stopped}" for point in record.stops)


def failure_kind(record: TrialRecord) -> str | None:
    """Return what kept a trial from being measured, None if nothing did."""
    if record.outcome is Outcome.MEASURED:
        return None
    return str(record.failure.kind if record.failure else record.outcome)


def failure_line(record: TrialRecord) -> str:
    """Return the decisive line of the log, or the reason that autotune gave."""
    return record.failure.line if record.failure else record.reason or ""


def failures_by_kind(history: StudyHistory) -> Mapping[str, tuple[NumberedTrial, ...]]:
    """Return the trials that were not measured, the most frequent kind first."""
    kinds: dict[str, list[NumberedTrial]] = {}
    for trial in history.trials:
        kind = failure_kind(trial.record)
        if kind is not None:
            kinds.setdefault(kind, []).append(trial)
    return {kind: tuple(kinds[kind]) for kind in sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))}


def _nearness(history: StudyHistory, trial: NumberedTrial) -> tuple[bool, float]:
    return not trial.record.stops, _room(history, trial)


def _room(history: StudyHistory, trial: NumberedTrial) -> float:
    """Return the margin of the binding ceiling; a candidate whose fresh launches failed comes last."""
    confirmed = confirmed_of(history, trial)
    if confirmed is not None and not confirmed.values:
        return -math.inf
    verdict = verdict_of(history, trial)
    binding = verdict.binding if verdict else None
    return 0.0 if binding is None else binding.margin_ratio
