"""The report for a terminal: rich renderables, which the command line prints.

In: a `StudyHistory`. Out: `Text`s and `Table`s. Invariant: text from outside is never read as rich's markup
and carries no control characters.
"""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from autotune.report.answer import explanation, headline
from autotune.report.commands import launch_commands
from autotune.report.finalists import FinalistRow, finalist_rows
from autotune.report.findings import (
    failure_line,
    failures_by_kind,
    winner_of,
)
from autotune.report.language import say, word
from autotune.report.marks import marked_name, marks
from autotune.report.units import printable
from autotune.search.answer import AnswerKind
from autotune.search.study_history import StudyHistory

_SHOWN_TRIALS = 8
_STYLES = {
    AnswerKind.IMPROVED: "green",
    AnswerKind.UNCOMPARED: "green",
    AnswerKind.FRONT: "green",
    AnswerKind.KEEP_BASELINE: "cyan",
    AnswerKind.UNDECIDED: "yellow",
    AnswerKind.NOTHING_MEETS: "red",
    AnswerKind.NOTHING_MEASURED: "red",
    AnswerKind.NOT_CONFIRMED: "yellow",
}


def terminal_report(history: StudyHistory) -> Group:
    """Return the answer, the finalists and the failures; tables without rows are left out."""
    return Group(*_parts(history))


def answer_panel(history: StudyHistory) -> Panel:
    """Return the answer in words, marked if the numbers are simulated or judged again."""
    style = _STYLES[history.answer.kind] if history.answer else "white"
    lines = [Text(headline(history), style="bold"), *(Text(line) for line in explanation(history))]
    marked = [Text(each, style="bold magenta") for each in marks(history)]
    return Panel(Group(*marked, *lines), title=_title(history, say("answer")), border_style=style)


def candidates_table(history: StudyHistory) -> Table:
    """Return the baseline and the finalists, a column each, so that their flags stand side by side."""
    rows = finalist_rows(history)
    table = Table(title=_title(history, say("candidates")), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    for _ in rows:
        table.add_column(overflow="fold")
    for name, cells in _lines(history, rows):
        table.add_row(Text(name), *(Text(cell) for cell in cells))
    return table


def failures_table(history: StudyHistory) -> Table:
    """Return the trials that were not measured, by kind, with the decisive line of the last one."""
    table = Table(title=_title(history, say("not measured")), title_justify="left")
    for head in (say("kind"), say("how many"), say("trials"), say("decisive line of the last one")):
        table.add_column(head, overflow="fold")
    for kind, trials in failures_by_kind(history).items():
        numbers = " ".join(str(trial.number) for trial in trials[-_SHOWN_TRIALS:])
        line = printable(failure_line(trials[-1].record))
        table.add_row(*(Text(cell) for cell in (word(kind), str(len(trials)), numbers, line)))
    return table


def commands_text(history: StudyHistory) -> Text:
    """Return the launch commands of the winner, one line a node; empty if nobody won.

    To be printed with `soft_wrap=True`, so that a long command can be copied as one line.
    """
    winner = winner_of(history)
    if winner is None:
        return Text()
    lines = [say("Launch commands of trial {number}:", number=winner.number)]
    for command in launch_commands(history.study, winner):
        lines.extend([f"# {command.node}", command.text])
    return Text("\n".join(lines))


def _parts(history: StudyHistory) -> Iterator[RenderableType]:
    yield answer_panel(history)
    if finalist_rows(history):
        yield candidates_table(history)
    if failures_by_kind(history):
        yield failures_table(history)


def _lines(history: StudyHistory, rows: Sequence[FinalistRow]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each line of the table and its cell for every candidate."""
    yield "", [say("trial {number} {part}", number=row.trial, part=row.part) for row in rows]
    for index, goal in enumerate(history.study.slo.goals):
        yield str(goal.quantity).replace(" at ", "\nat "), [row.objectives[index] for row in rows]
    yield say("gain"), [row.gain for row in rows]
    yield say("fresh launches"), [row.launches for row in rows]
    yield say("verdict"), [row.verdict for row in rows]
    yield say("binding ceiling"), [row.room for row in rows]
    for name in history.study.space.tune:
        yield name, [row.flags[name] for row in rows]


def _title(history: StudyHistory, what: str) -> str:
    return f"{marked_name(history)}: {what}"
