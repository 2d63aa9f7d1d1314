"""A comparison of two studies as a terminal shows it, as Markdown and as one HTML file.

In: a `Comparison`. Out: a rich renderable, text, files. Talks to the disk in `write_comparison` only.
Invariant: text from outside is escaped for where it goes.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from autotune.atomic import replace_text
from autotune.errors import ConfigError
from autotune.report.compare import Comparison, Section
from autotune.report.units import printable

_MARKDOWN = str.maketrans({"|": "\\|", "<": "&lt;", "*": "\\*", "_": "\\_", "`": "\\`", "\n": " "})


def terminal_comparison(comparison: Comparison) -> Group:
    """Return the warnings, then a table for each section."""
    return Group(*_terminal_parts(comparison))


def markdown_comparison(comparison: Comparison) -> str:
    """Return the comparison as Markdown with tables."""
    return "\n\n".join(_markdown_parts(comparison)) + "\n"


def html_comparison(comparison: Comparison) -> str:
    """Return the comparison as an HTML page that needs nothing else."""
    environment = Environment(
        loader=PackageLoader("autotune.report", "compare_page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("compare.html.jinja").render(comparison=comparison)


_FORMATS: Mapping[str, Callable[[Comparison], str]] = {".html": html_comparison, ".md": markdown_comparison}


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write the comparison as what the file's name ends in.

    Raises:
        ConfigError: it ends in neither .html nor .md.
        InfrastructureError: the file cannot be written.
    """
    if path.suffix not in _FORMATS:
        raise ConfigError(f"--out {path}: the name must end in {' or '.join(_FORMATS)}")
    replace_text(path, _FORMATS[path.suffix](comparison))


def _terminal_parts(comparison: Comparison) -> Iterator[RenderableType]:
    for warning in comparison.warnings:
        yield Panel(Text(printable(warning), style="bold magenta"), border_style="magenta")
    for section in comparison.sections:
        yield _table(section)
    for note in comparison.notes:
        yield Text(note, style="dim")


def _table(section: Section) -> Table:
    table = Table(title=section.title, title_justify="left")
    for head in section.heads:
        table.add_column(printable(head), overflow="fold")
    for row in section.rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _markdown_parts(comparison: Comparison) -> Iterator[str]:
    yield f"# {_cell(comparison.title)}"
    for warning in comparison.warnings:
        yield f"> **{_cell(warning)}**"
    for section in comparison.sections:
        yield f"## {section.title}"
        lines = [section.heads, ("---",) * len(section.heads), *section.rows]
        yield "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
    yield from comparison.notes


def _cell(text: str) -> str:
    return printable(text).translate(_MARKDOWN)
