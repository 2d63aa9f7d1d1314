"""The report as Markdown, for a merge request or a chat: the answer, the candidates, the cost, the inputs.

In: a `StudyHistory`. Out: the text, or the file. Talks to the disk only. Invariants: text from outside
neither ends a table's cell nor a block of code, and stays on its line.
"""

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from autotune.atomic import replace_text
from autotune.report.answer import explanation, headline
from autotune.report.commands import launch_commands
from autotune.report.finalists import FinalistRow, finalist_rows
from autotune.report.findings import failure_line, failures_by_kind, winner_of
from autotune.report.html import ceiling_rows, spent_rows
from autotune.report.language import say, word
from autotune.report.marks import marks
from autotune.report.reproduce import facts, inputs
from autotune.report.spent import by_outcome, by_phase
from autotune.report.summary import changes, summary_points
from autotune.report.units import printable
from autotune.search.study_history import StudyHistory


def write_markdown(history: StudyHistory, path: Path) -> None:
    """Write the report as Markdown.

    Raises:
        InfrastructureError: the file cannot be written.
    """
    replace_text(path, render_markdown(history))


def render_markdown(history: StudyHistory) -> str:
    """Return the report as Markdown, in the language of the moment."""
    environment = Environment(  # noqa: S701 - Markdown is escaped by the filters below
        loader=PackageLoader("autotune.report", "page"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(say=say, table=_table)
    environment.filters.update(line=_line, code=_code)
    winner = winner_of(history)
    text = environment.get_template("report.md.jinja").render(
        study=history.study,
        marks=marks(history),
        headline=headline(history),
        changes=[(each.flag, each.before, each.after) for each in changes(history)],
        points=summary_points(history),
        explanation=list(explanation(history)),
        winner=winner,
        ceilings=ceiling_rows(history),
        commands=() if winner is None else launch_commands(history.study, winner),
        goals=[goal.text for goal in history.study.slo.goals],
        finalists=[_cells(row) for row in finalist_rows(history)],
        spent={
            say("phase"): spent_rows(history, by_phase(history)),
            say("role or failure"): spent_rows(history, by_outcome(history)),
        },
        failures=_failures(history),
        facts=facts(history),
        inputs=inputs(history),
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _failures(history: StudyHistory) -> list[tuple[str, str, str]]:
    return [
        (word(kind), str(len(trials)), failure_line(trials[-1].record))
        for kind, trials in failures_by_kind(history).items()
    ]


def _cells(row: FinalistRow) -> tuple[str, ...]:
    number, rest = str(row.trial), (row.launches, row.gain, row.verdict, row.binding)
    return (number, row.part, row.changes, *row.objectives, *rest)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    """Return a text on one line, without HTML and without Markdown's own characters."""
    return re.sub(r"([\\`*\[\]])", r"\\\1", html.escape(printable(text), quote=False))


def _code(text: str) -> str:
    """Return a text as a block of code, within a fence longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
