"""The candidates worth looking at, one row each, in words: the finalists, or the best so far. Pure.

In: a `StudyHistory`. Out: rows of short texts that the terminal and the HTML report show alike.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autotune.record import TrialRecord
from autotune.report.answer import room_text
from autotune.report.findings import (
    baseline_of,
    confirmed_of,
    decision_of,
    differences,
    leaders,
    objective_of,
    trial_of,
    verdict_of,
)
from autotune.report.language import mark, say, word
from autotune.report.units import ABSENT, flag_list, flag_value, gain_text, metric_value
from autotune.search.answer import Confirmed
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from autotune.slo import parse_ceiling


@dataclass(frozen=True)
class FinalistRow:
    """One candidate; `flags` are those of the space, `changes` what differs from the baseline.

    `room` is `binding` in short. `objectives` in the SLO's order: the means of the fresh launches if any.
    """

    trial: int
    part: str
    flags: Mapping[str, str]
    changes: str
    objectives: tuple[str, ...]
    launches: str
    gain: str
    verdict: str
    binding: str
    room: str


def finalist_rows(history: StudyHistory, *, count: int = 5) -> tuple[FinalistRow, ...]:
    """Return the finalists and the baseline; without an answer the baseline and the `count` leaders."""
    found = [baseline_of(history), *_contenders(history, count)]
    trials = {trial.number: trial for trial in found if trial is not None}
    return tuple(_row(history, trial) for trial in trials.values())


def _contenders(history: StudyHistory, count: int) -> Iterator[NumberedTrial | None]:
    finalists = history.answer.finalists if history.answer else ()
    if finalists:
        yield from (trial_of(history, confirmed.trial) for confirmed in finalists)
    else:
        yield from leaders(history, count)


def _row(history: StudyHistory, trial: NumberedTrial) -> FinalistRow:
    confirmed = confirmed_of(history, trial)
    verdict = verdict_of(history, trial)
    binding = verdict.binding if verdict else None
    changed = differences(history, trial.record.to_candidate())
    return FinalistRow(
        trial=trial.number,
        part=_part(history, trial),
        flags={name: _flag(trial.record, name) for name in history.study.space.tune},
        changes=flag_list(changed) or say("(as the baseline)"),
        objectives=_objectives(history, trial),
        launches=_launches(confirmed),
        gain=_gains(confirmed),
        verdict=word(decision_of(history, trial) or "not measured"),
        binding=f"{binding.ceiling}: {room_text(binding)}" if binding else ABSENT,
        room=f"{_short(binding.ceiling)}: {room_text(binding)}" if binding else ABSENT,
    )


def _launches(confirmed: Confirmed | None) -> str:
    if confirmed is None:
        return say("not confirmed")
    return say("{good} of {all}", good=len(confirmed.values), all=confirmed.launches)


def _gains(confirmed: Confirmed | None) -> str:
    """Return the gain in each objective."""
    gains = confirmed.gains if confirmed else ()
    return "; ".join(gain_text(gain) if gain else ABSENT for gain in gains) or ABSENT


def _short(ceiling: str) -> str:
    """Return `ttft p95` of a ceiling's line."""
    quantity = parse_ceiling(ceiling)["quantity"]
    return f"{quantity.metric} {quantity.statistic or ''}".strip()


def _flag(record: TrialRecord, name: str) -> str:
    """Return a flag's value, or what the engine made of it by itself."""
    if name in record.candidate:
        return flag_value(record.candidate[name])
    effective = record.effective.flags.get(name) if record.effective else None
    return flag_value(None) if effective is None else say("{value} (default)", value=flag_value(effective))


def _part(history: StudyHistory, trial: NumberedTrial) -> str:
    """Return what the candidate is to the study."""
    baseline = baseline_of(history)
    names = {
        mark("winner"): history.answer is not None and history.answer.winner == trial.number,
        mark("baseline"): baseline is not None and baseline.number == trial.number,
        mark("on the front"): history.answer is not None and trial.number in history.answer.front,
    }
    return ", ".join(say(name) for name, applies in names.items() if applies) or say("candidate")


def _objectives(history: StudyHistory, trial: NumberedTrial) -> tuple[str, ...]:
    goals = history.study.slo.goals
    confirmed = confirmed_of(history, trial)
    values = [objective_of(trial.record, goals, index) for index in range(len(goals))]
    if confirmed and confirmed.values:
        values = [confirmed.mean(index) for index in range(len(goals))]
    return tuple(metric_value(goal.quantity.metric, value) for goal, value in zip(goals, values, strict=True))
