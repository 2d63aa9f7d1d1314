"""The report as one HTML file that needs nothing else: no network, no other file.

In: a `StudyHistory`. Out: the file. Talks to the disk only. Invariants: the same history gives the same
bytes; text from outside is escaped (jinja2 for HTML, `_script_data` inside scripts).
The plots' JavaScript is embedded once, compressed, and inflated by the browser.
"""

import base64
import gzip
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.graph_objects import Figure  # type: ignore[import-untyped]  # plotly has neither types nor stubs
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]  # as above

from autotune import __version__
from autotune.document import to_yaml
from autotune.record import TrialRecord
from autotune.report.answer import SIMULATED, explanation, headline, room_text
from autotune.report.atomic import replace_text
from autotune.report.commands import launch_commands
from autotune.report.figures import load_figure, objectives_figure, progress_figure
from autotune.report.finalists import finalist_rows
from autotune.report.findings import (
    failure_line,
    failures_by_kind,
    is_simulated,
    verdict_of,
    winner_of,
)
from autotune.report.table import columns
from autotune.report.units import ceiling_value, flag_value
from autotune.search.ledger import StudyHistory


@dataclass(frozen=True)
class Plot:
    """A figure with its place on the page."""

    key: str
    title: str
    data: Markup


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
    """Return the report as HTML."""
    environment = Environment(
        loader=PackageLoader("autotune.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    winner = winner_of(history)
    table = columns(history)
    return environment.get_template("report.html.jinja").render(
        study=history.study,
        simulated=SIMULATED if is_simulated(history) else None,
        headline=headline(history),
        explanation=list(explanation(history)),
        goals=[str(goal.quantity) for goal in history.study.slo.goals],
        finalists=finalist_rows(history),
        winner=winner,
        ceilings=_ceiling_rows(history),
        commands=() if winner is None else launch_commands(history.study, winner),
        plots=_plots(history),
        failures=_failures(history),
        heads=[column.name for column in table],
        rows=[[column.text(trial) for column in table] for trial in history.trials],
        facts=_facts(history),
        inputs={"search space": to_yaml(history.study.space), "SLO": to_yaml(history.study.slo)},
        effective=_effective_flags(winner.record if winner else None),
        plotly=_packed_plotly(),
    )


def _plots(history: StudyHistory) -> list[Plot]:
    figures = {
        "Objectives": objectives_figure(history),
        "Throughput against TTFT": load_figure(history),
        "Best so far": progress_figure(history),
    }
    return [
        Plot(f"figure-{index}", title, _script_data(figure))
        for index, (title, figure) in enumerate(figures.items())
        if figure is not None
    ]


def _script_data(figure: Figure) -> Markup:
    """Return a figure as JSON that cannot end the script element around it."""
    text = str(figure.to_json())
    for character in "<>&\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - every character that HTML knows is escaped above


def _ceiling_rows(history: StudyHistory) -> list[tuple[str, ...]]:
    """Return the winner's ceilings: text, value, room, verdict, samples."""
    winner = winner_of(history)
    verdict = None if winner is None else verdict_of(history, winner)
    return [
        (
            each.ceiling,
            ceiling_value(each.ceiling, each.value),
            room_text(each),
            each.decision,
            str(each.samples),
        )
        for each in (verdict.ceilings if verdict else ())
    ]


def _failures(history: StudyHistory) -> dict[str, list[FailedTrial]]:
    return {
        kind: [
            FailedTrial(
                number=trial.number,
                phase=trial.record.failure.phase if trial.record.failure else "",
                line=failure_line(trial.record),
                tail="\n".join(trial.record.failure.log_tail) if trial.record.failure else "",
            )
            for trial in trials
        ]
        for kind, trials in failures_by_kind(history).items()
    }


def _facts(history: StudyHistory) -> dict[str, str]:
    """Return the versions and seeds that a reproduction needs."""
    study = history.study
    seen = sorted(
        {
            trial.record.effective.version
            for trial in history.trials
            if trial.record.effective and trial.record.effective.version
        }
    )
    return {
        "study": f"{study.name} (identity {study.identity})",
        "autotune": __version__,
        "Python": platform.python_version(),
        study.space.engine: study.space.version,
        f"{study.space.engine}, as the engine said": ", ".join(seen) or "not seen",
        "image": study.space.image or "none",
        "model": study.space.model,
        "launcher": study.space.launcher,
        "seed of the search": str(study.seed),
        "seed of the workload": str(study.slo.workload.seed),
        "trials": f"{len(history.trials)} finished, {history.running} running or cut off",
    }


def _effective_flags(record: TrialRecord | None) -> dict[str, tuple[str, str]]:
    """Return every flag that the engine reported: what was asked, and what it runs with."""
    if record is None or record.effective is None:
        return {}
    return {
        name: (flag_value(record.candidate[name]) if name in record.candidate else "", flag_value(value))
        for name, value in sorted(record.effective.flags.items())
    }


@cache
def _packed_plotly() -> Markup:
    """Return plotly's JavaScript as base64 of gzip, at its fastest: 4.8 MB become 2.3 MB, at best 1.9 MB."""
    packed = gzip.compress(get_plotlyjs().encode(), compresslevel=1, mtime=0)
    return Markup(base64.b64encode(packed).decode())  # noqa: S704 - base64 has no character of HTML's
