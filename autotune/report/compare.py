"""Two studies beside each other: before and after an upgrade of the engine, or two models. Pure.

In: two `StudyHistory`s, A before B. Out: `Comparison`, sections of short texts that the terminal, Markdown
and HTML show alike. Invariants: a difference between a simulated and a measured number is never given as a
gain; what makes two studies incomparable is said first; gains come from fresh launches alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from autotune.report.answer import headline, margin_text, trial_name
from autotune.report.findings import (
    baseline_of,
    confirmed_of,
    decision_of,
    failures_by_kind,
    is_simulated,
    leaders,
    verdict_of,
    winner_of,
)
from autotune.report.plots.flags import flag_of
from autotune.report.summary import cost_text
from autotune.report.units import ABSENT, flag_value, gain_text, metric_value, percent
from autotune.search.confirmation import NumberedTrial
from autotune.search.gains import Gain, fit
from autotune.search.study_history import StudyHistory
from autotune.slo import Objective
from autotune.space import FlagValue

ERROR_RATE = 0.05
_SIMULATED_AND_MEASURED = (
    "DO NOT COMPARE: {simulated} is SIMULATED, {measured} was MEASURED. A model of the engine stands beside "
    "an engine, so a difference between their numbers says nothing about either; no gain is given."
)
_INCIDENTAL = frozenset({"dist-init-addr", "host", "nccl-port", "node-rank", "port", "random-seed"})
"""Flags that differ from launch to launch and say nothing."""
_BOTH_SIMULATED = "SIMULATED: the numbers of both come from a model of the engine, not from a measurement."
_NOT_THE_SAME_MOMENT = (
    "The two studies ran at different times. The intervals hold the noise from launch to launch, not what "
    "the machines or the network did between the two."
)


@dataclass(frozen=True)
class Section:
    """A table with its title; the first column names what the others compare."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Comparison:
    """Everything that is said of two studies. `warnings` come first and are not to be overlooked."""

    title: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class _Pair:
    """The two studies with their names."""

    before: StudyHistory
    after: StudyHistory

    @property
    def both(self) -> tuple[StudyHistory, StudyHistory]:
        return self.before, self.after

    @property
    def names(self) -> tuple[str, str]:
        before, after = (history.study.name for history in self.both)
        return f"A: {before}", f"B: {after}"

    def each(self, text: Callable[[StudyHistory], str]) -> tuple[str, ...]:
        """Return a text on each of them."""
        return tuple(text(history) for history in self.both)

    @property
    def is_mixed(self) -> bool:
        """Whether one of them is simulated and the other is not."""
        return is_simulated(self.before) != is_simulated(self.after)

    @property
    def shared_goals(self) -> tuple[Objective, ...]:
        """The objectives that both have, of loads and workloads that are the same."""
        ours, theirs = self.before.study.slo, self.after.study.slo
        if ours.workload != theirs.workload:
            return ()
        loads = {point.label: point for point in theirs.load}
        same = {point.label for point in ours.load if loads.get(point.label) == point}
        texts = {goal.text for goal in theirs.goals}
        return tuple(goal for goal in ours.goals if goal.text in texts and goal.quantity.load in same)


def compare(before: StudyHistory, after: StudyHistory) -> Comparison:
    """Return what two studies say beside each other."""
    pair = _Pair(before, after)
    gains = () if pair.is_mixed else tuple(_gain_rows(pair))
    certainty = f"gain, with {percent(1 - ERROR_RATE, 2)} certainty"
    sections = (
        Section("Gain of B over A", ("", *pair.names, certainty), gains),
        Section("Answers", ("", *pair.names), tuple(_answer_rows(pair))),
        Section("What was asked", ("", *pair.names), tuple(_asked_rows(pair))),
        Section("Flags that differ", ("flag", *pair.names), tuple(_flag_rows(pair))),
        Section("What else the engine ran with", ("flag", *pair.names), tuple(_effective_rows(pair))),
        Section("Ceilings", ("", *pair.names), tuple(_ceiling_rows(pair))),
        Section("Not measured", ("kind", *pair.names), tuple(_failure_rows(pair))),
        Section("Cost", ("", *pair.names), (("all trials", *pair.each(cost_text)),)),
    )
    return Comparison(
        title=f"{before.study.name} and {after.study.name}",
        warnings=tuple(_warnings(pair)),
        notes=(_NOT_THE_SAME_MOMENT,) if gains else (),
        sections=tuple(section for section in sections if section.rows),
    )


def candidate_of(history: StudyHistory) -> NumberedTrial | None:
    """Return what stands for a study: its winner, else the best that meets the SLO, else the nearest."""
    return winner_of(history) or next(iter(leaders(history, 1)), None)


def _warnings(pair: _Pair) -> Iterator[str]:
    if pair.is_mixed:
        simulated, measured = pair.names if is_simulated(pair.before) else reversed(pair.names)
        yield _SIMULATED_AND_MEASURED.format(simulated=simulated, measured=measured)
    elif is_simulated(pair.before):
        yield _BOTH_SIMULATED
    ours, theirs = pair.before.study.slo, pair.after.study.slo
    if ours.workload != theirs.workload:
        yield "The workloads differ, so that no number of A is one of B: no gain is given."
    elif not pair.shared_goals:
        yield "They share no objective at the same load: no gain is given."
    if {ceiling.text for ceiling in ours.ceilings} != {ceiling.text for ceiling in theirs.ceilings}:
        yield "The ceilings differ: a candidate that meets one SLO may miss the other."


def _gain_rows(pair: _Pair) -> Iterator[tuple[str, ...]]:
    """Yield the candidates and the baselines in every objective that both studies have."""
    kinds: tuple[tuple[str, Callable[[StudyHistory], NumberedTrial | None]], ...] = (
        ("the answers", candidate_of),
        ("the baselines", baseline_of),
    )
    goals = pair.shared_goals
    for name, choose in kinds:
        for goal in goals:
            values = [_values(history, choose(history), goal) for history in pair.both]
            gain = _gain(values, goal, comparisons=len(kinds) * len(goals))
            shown = (_mean_text(each, goal) for each in values)
            yield f"{name}: {goal.text}", *shown, gain_text(gain) if gain else "the launches do not tell"


def _gain(values: Sequence[Sequence[float]], goal: Objective, *, comparisons: int) -> Gain | None:
    model = fit(dict(enumerate(values)), goal, error_rate=ERROR_RATE, comparisons=comparisons)
    return model.gain(1, 0)


def _values(history: StudyHistory, trial: NumberedTrial | None, goal: Objective) -> tuple[float, ...]:
    """Return the values of its fresh launches, else the one of the search."""
    if trial is None:
        return ()
    index = [each.text for each in history.study.slo.goals].index(goal.text)
    confirmed = confirmed_of(history, trial)
    if confirmed is not None and confirmed.values:
        return confirmed.objective(index)
    return () if trial.record.objectives is None else (trial.record.objectives[index],)


def _mean_text(values: Sequence[float], goal: Objective) -> str:
    if not values:
        return ABSENT
    mean = metric_value(goal.quantity.metric, sum(values) / len(values))
    return f"{mean} ({len(values)} {'launch' if len(values) == 1 else 'launches'})"


def _answer_rows(pair: _Pair) -> Iterator[tuple[str, ...]]:
    yield "numbers", *pair.each(lambda history: "SIMULATED" if is_simulated(history) else "measured")
    yield "answer", *pair.each(headline)
    yield "candidate", *pair.each(_candidate_text)
    yield "gain over its own baseline", *pair.each(_own_gain_text)
    yield "what binds", *pair.each(_binding_text)


def _candidate_text(history: StudyHistory) -> str:
    trial = candidate_of(history)
    if trial is None:
        return ABSENT
    return f"{trial_name(history, trial)}: {decision_of(history, trial)}"


def _own_gain_text(history: StudyHistory) -> str:
    confirmed = None if history.answer is None else history.answer.confirmed_winner
    return "; ".join(gain_text(gain) for gain in (confirmed.gains if confirmed else ()) if gain) or ABSENT


def _binding_text(history: StudyHistory) -> str:
    trial = candidate_of(history)
    verdict = None if trial is None else verdict_of(history, trial)
    return ABSENT if verdict is None or verdict.binding is None else margin_text(verdict.binding)


def _asked_rows(pair: _Pair) -> Iterator[tuple[str, ...]]:
    """Yield what of the question differs."""
    asked: tuple[tuple[str, Callable[[StudyHistory], str]], ...] = (
        ("engine", lambda history: f"{history.study.space.engine} {history.study.space.version}"),
        ("engine, as it said", _seen_versions),
        ("model", lambda history: history.study.space.model),
        ("image", lambda history: history.study.space.image or ABSENT),
        ("launcher", lambda history: history.study.space.launcher),
        (
            "nodes",
            lambda history: ", ".join(f"{each.name} ({each.gpus})" for each in history.study.space.nodes),
        ),
        ("fixed flags", _fixed_flags),
        ("tuned flags", lambda history: ", ".join(history.study.space.tune)),
        ("load", lambda history: ", ".join(_load_text(history))),
        ("objectives", lambda history: "; ".join(goal.text for goal in history.study.slo.goals)),
        ("seed", lambda history: str(history.study.seed)),
    )
    for name, text in asked:
        ours, theirs = pair.each(text)
        if ours != theirs:
            yield name, ours, theirs


def _seen_versions(history: StudyHistory) -> str:
    effective = (trial.record.effective for trial in history.trials)
    return ", ".join(sorted({each.version for each in effective if each and each.version})) or "not seen"


def _nodes(history: StudyHistory) -> str:
    nodes = history.study.space.nodes
    return ", ".join(f"{node.name} ({node.gpus} GPU{'' if node.gpus == 1 else 's'})" for node in nodes)


def _fixed_flags(history: StudyHistory) -> str:
    return ", ".join(f"{name} {flag_value(value)}" for name, value in history.study.space.flags.items())


def _load_text(history: StudyHistory) -> Iterator[str]:
    for point in history.study.slo.load:
        amount = f" for {point.requests} requests" if point.requests else ""
        yield f"{point.label}{amount}"


def _flag_rows(pair: _Pair) -> Iterator[tuple[str, ...]]:
    """Yield the tuned flags in which the two candidates differ, the engine's own choices included."""
    for name in _tuned(pair):
        ours, theirs = pair.each(partial(_flag_text, name=name))
        if ours != theirs:
            yield name, ours, theirs


def _effective_rows(pair: _Pair) -> Iterator[tuple[str, ...]]:
    """Yield the flags that nobody tuned and that both engines told differently, as after an upgrade."""
    told = [_effective(history) for history in pair.both]
    for name in sorted(told[0].keys() & told[1].keys() - _tuned(pair).keys() - _INCIDENTAL):
        ours, theirs = (flag_value(each[name]) for each in told)
        if ours != theirs:
            yield name, ours, theirs


def _tuned(pair: _Pair) -> dict[str, None]:
    return dict.fromkeys(name for history in pair.both for name in history.study.space.tune)


def _flag_text(history: StudyHistory, name: str) -> str:
    trial = candidate_of(history)
    return ABSENT if trial is None else flag_value(flag_of(trial, name))


def _effective(history: StudyHistory) -> Mapping[str, FlagValue | None]:
    trial = candidate_of(history)
    effective = None if trial is None else trial.record.effective
    return {} if effective is None else dict(effective.flags)


def _ceiling_rows(pair: _Pair) -> Iterator[tuple[str, ...]]:
    texts = dict.fromkeys(ceiling.text for history in pair.both for ceiling in history.study.slo.ceilings)
    for text in texts:
        yield text, *pair.each(partial(_ceiling_text, text=text))


def _ceiling_text(history: StudyHistory, text: str) -> str:
    """Return what a study's candidate measured against a ceiling."""
    if text not in {ceiling.text for ceiling in history.study.slo.ceilings}:
        return "not asked"
    trial = candidate_of(history)
    verdict = None if trial is None else verdict_of(history, trial)
    judged = next((each for each in (verdict.ceilings if verdict else ()) if each.ceiling == text), None)
    if judged is None:
        return "not measured"
    return f"{margin_text(judged).removeprefix(f'{text}: ')} ({judged.decision})"


def _failure_rows(pair: _Pair) -> Iterator[tuple[str, ...]]:
    counts = [
        {kind: len(trials) for kind, trials in failures_by_kind(history).items()} for history in pair.both
    ]
    for kind in dict.fromkeys([*counts[0], *counts[1]]):
        yield kind, *(str(each.get(kind, 0)) for each in counts)
