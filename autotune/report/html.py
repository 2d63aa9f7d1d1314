"""The report as one HTML file that needs nothing else: no network, no other file.

In: a `StudyHistory`. Out: the file. Talks to the disk only. Invariants: the same history gives the same
bytes; text from outside is escaped by jinja2, or packed (gzip, base64) where scripts read it.
"""

import json
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from autotune.atomic import replace_text
from autotune.report.answer import explanation, headline, room_text
from autotune.report.chart import DARK, LIGHT, Plot
from autotune.report.commands import launch_commands
from autotune.report.embedded import packed, packed_library, templates
from autotune.report.finalists import finalist_rows
from autotune.report.findings import failure_line, failures_by_kind, verdict_of, winner_of
from autotune.report.language import phrases, say, spoken, word
from autotune.report.marks import marked_name, marks
from autotune.report.plots.every import every_plot
from autotune.report.reproduce import effective_flags, facts, inputs
from autotune.report.seen import Measurements
from autotune.report.spent import Share, by_outcome, by_phase, gpu_hours, spent_s
from autotune.report.summary import changes, summary_points
from autotune.report.trial_data import rounded, trial_data
from autotune.report.units import ceiling_value, duration, percent, printable, significant
from autotune.search.study_history import StudyHistory

SHOWN_FAILURES = 20
"""Failures of one kind that are shown with their evidence, the last ones; the table has all of them."""


@dataclass(frozen=True)
class FailedTrial:
    """A trial that was not measured, with its evidence."""

    number: int
    phase: str
    line: str
    tail: str


def write_report(history: StudyHistory, path: Path) -> None:
    """Write the report of a study, finished or not.

    Raises:
        InfrastructureError: the file cannot be written.
    """
    replace_text(path, render_report(history))


def render_report(history: StudyHistory) -> str:
    """Return the report as HTML, in the language of the moment."""
    environment = templates()
    environment.globals.update(say=say)
    environment.filters["list_of"] = astuple
    measurements = Measurements(history)
    plots = every_plot(measurements)
    winner = winner_of(history)
    return environment.get_template("report.html.jinja").render(
        language=spoken(),
        study=history.study,
        title=marked_name(history),
        marks=marks(history),
        headline=headline(history),
        points=summary_points(history),
        changes=changes(history),
        explanation=list(explanation(history)),
        winner=winner,
        ceilings=ceiling_rows(history),
        commands=() if winner is None else launch_commands(history.study, winner),
        goals=[goal.text for goal in history.study.slo.goals],
        finalists=finalist_rows(history),
        plots={plot.key: plot for plot in plots},
        spent={
            say("phase"): spent_rows(history, by_phase(history)),
            say("role or failure"): spent_rows(history, by_outcome(history)),
        },
        failures=_failures(history),
        shown_failures=SHOWN_FAILURES,
        trial_count=len(history.trials),
        facts=facts(history),
        inputs=inputs(history),
        effective=effective_flags(history),
        data=packed(json.dumps(_data(measurements, plots), ensure_ascii=False, separators=(",", ":"))),
        library=packed_library(),
    )


def ceiling_rows(history: StudyHistory) -> list[tuple[str, ...]]:
    """Return the winner's ceilings: text, value, room, verdict, samples."""
    winner = winner_of(history)
    verdict = None if winner is None else verdict_of(history, winner)
    return [
        (
            each.ceiling,
            ceiling_value(each.ceiling, each.value),
            room_text(each),
            word(each.decision),
            str(each.samples),
        )
        for each in (verdict.ceilings if verdict else ())
    ]


def spent_rows(history: StudyHistory, shares: tuple[Share, ...]) -> list[tuple[str, ...]]:
    """Return where the time went: name, trials, time, share, GPU-hours."""
    whole_s = spent_s(history)
    return [
        (
            word(share.name),
            str(share.trials),
            duration(share.spent_s),
            percent(share.spent_s / whole_s if whole_s else None, 2),
            significant(gpu_hours(history, share.spent_s)),
        )
        for share in shares
    ]


def _data(measurements: Measurements, plots: tuple[Plot, ...]) -> dict[str, Any]:
    """Return what the scripts read."""
    return {
        "palettes": {"light": LIGHT, "dark": DARK},
        "phrases": dict(phrases(spoken())),
        "plots": {plot.key: [_chart(asdict(chart)) for chart in plot.charts] for plot in plots},
        "trials": trial_data(measurements),
    }


def _chart(chart: dict[str, Any]) -> dict[str, Any]:
    for series in chart["series"]:
        for name, values in series.items():
            if isinstance(values, list):
                series[name] = [rounded(value) if isinstance(value, float) else value for value in values]
    return chart


def _failures(history: StudyHistory) -> dict[str, tuple[int, list[FailedTrial]]]:
    return {
        word(kind): (len(trials), [_failed(trial.number, trial.record) for trial in trials[-SHOWN_FAILURES:]])
        for kind, trials in failures_by_kind(history).items()
    }


def _failed(number: int, record: Any) -> FailedTrial:
    failure = record.failure
    return FailedTrial(
        number=number,
        phase=word(failure.phase) if failure else "",
        line=printable(failure_line(record)),
        tail="\n".join(failure.log_tail) if failure else "",
    )
