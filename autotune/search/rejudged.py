"""A study's launches judged again under another SLO, and the answer that they would have given.

In: a `StudyHistory` and an SLO with the same requests. Out: a `StudyHistory` of that SLO, which knows that it
is one. Reads raw files only. Invariants: nothing is stored; what cannot be judged is INVALID with its reason;
only fresh launches confirm, and the candidate that promises most takes part in the answer even if it was
never launched again, so that the answer is then that nothing is confirmed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from autotune.load.arrivals import LoadPoint
from autotune.metrics import Measurement
from autotune.record import Outcome, PointRecord, TrialRecord
from autotune.search.answer import Answer
from autotune.search.budget import Budget
from autotune.search.confirmation import NumberedTrial, contest_under
from autotune.search.remeasured import LostRecordsError, found_answers, remeasure
from autotune.search.repeats import settled
from autotune.search.rounds import final_answer
from autotune.search.study_history import JudgedAgain, StudyHistory
from autotune.slo import ERROR_RATE, LOOKS, Decision, Slo, Verdict, judge_stopped


def rejudge(history: StudyHistory, slo: Slo, file: Path) -> StudyHistory:
    """Return the history as another SLO, that of `file`, judges it; `read_other_slo` checks that it can.

    There is an answer if the study has one.

    Raises:
        StudyError: a raw file of answers is damaged.
    """
    trials = tuple(
        replace(trial, record=_judged(trial.record, slo, history.folder)) for trial in history.trials
    )
    return replace(
        history,
        study=history.study.model_copy(update={"slo": slo}),
        trials=trials,
        answer=None if history.answer is None else _answer(trials, slo, history.folder),
        search_end=None,
        expected_gain=None,
        judged_again=JudgedAgain(file, history.study, _not_judged(history.trials, trials)),
    )


def _answer(trials: tuple[NumberedTrial, ...], slo: Slo, folder: Path) -> Answer:
    return final_answer(contest_under(trials, settled(trials), slo), slo, Budget(), folder)


def _not_judged(
    before: tuple[NumberedTrial, ...], after: tuple[NumberedTrial, ...]
) -> Mapping[str, tuple[int, ...]]:
    """Return the launches that were measured and cannot be judged, by the reason."""
    found: dict[str, tuple[int, ...]] = {}
    for old, new in zip(before, after, strict=True):
        if old.record.outcome is Outcome.MEASURED and new.record.outcome is not Outcome.MEASURED:
            reason = new.record.reason or ""
            found[reason] = (*found.get(reason, ()), new.number)
    return found


def _judged(record: TrialRecord, slo: Slo, folder: Path) -> TrialRecord:
    if record.outcome is not Outcome.MEASURED:
        return record
    again = _Rejudged(slo)
    for point in slo.load:
        again.add(point, record, folder)
    record = record.model_copy(update={"answers": found_answers(record.answers, folder)})
    return again.to_record(record)


@dataclass
class _Rejudged:
    """One launch while it is judged again; `doubts`: why load points decide nothing, by their labels."""

    slo: Slo
    points: list[PointRecord] = field(default_factory=list)
    measurements: dict[str, Measurement] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)

    def add(self, point: LoadPoint, record: TrialRecord, folder: Path) -> None:
        """Take in what was measured at a load point."""
        kept = record.point(point.label)
        if kept is None:
            self.doubts[point.label] = f"{point.label} was not measured{_once_missed(record)}"
            return
        try:
            again = remeasure(self.slo, point, kept, folder)
        except LostRecordsError as error:
            self.doubts[point.label] = str(error)
            return
        self.points.append(again.record)
        self.measurements[point.label] = again.measurement
        if again.doubt is not None:
            self.doubts[point.label] = again.doubt

    def to_record(self, record: TrialRecord) -> TrialRecord:
        """Return the record with its new verdict and objectives, or INVALID with the reason."""
        verdict, objectives = self._verdict(), self._objectives()
        reason = self._reason(verdict, objectives)
        return record.model_copy(
            update={
                "points": tuple(self.points),
                "verdict": None if reason else verdict,
                "objectives": None if reason else tuple(each for each in objectives if each is not None),
                "outcome": Outcome.INVALID if reason else Outcome.MEASURED,
                "reason": reason,
            }
        )

    def _verdict(self) -> Verdict:
        decided = {label: each for label, each in self.measurements.items() if label not in self.doubts}
        stops = {each.load: each.stopped for each in self.points if each.stopped and each.load in decided}
        return judge_stopped(self.slo, decided, stops, error_rate=ERROR_RATE / LOOKS)

    def _objectives(self) -> list[float | None]:
        """Return the value of every objective, None where nothing is known of its load point."""
        found = (goal.quantity for goal in self.slo.goals)
        return [
            each.of(self.measurements[each.load], self.slo.request_limits_s(each.load))
            if each.load in self.measurements
            else None
            for each in found
        ]

    def _reason(self, verdict: Verdict, objectives: list[float | None]) -> str | None:
        """Return why the launch cannot be judged; one that surely misses needs no more than its values."""
        goals = [goal.quantity.load for goal in self.slo.goals]
        needed = [load for load, value in zip(goals, objectives, strict=True) if value is None]
        if verdict.decision is not Decision.MISSED:
            needed += [*goals, *(ceiling.quantity.load for ceiling in self.slo.ceilings)]
        doubts = (self.doubts[load] for load in needed if load in self.doubts)
        if None in objectives:
            goal = self.slo.goals[objectives.index(None)]
            return next(doubts, f"nothing was measured for {goal.text!r}")
        return next(doubts, None)


def _once_missed(record: TrialRecord) -> str:
    missed = record.verdict.missed if record.verdict else None
    return f": the launch missed {missed}" if missed else ""
