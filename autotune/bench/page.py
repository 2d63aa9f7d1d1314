"""A bench report as one HTML file that needs nothing else.

In: a `BenchReport`. Out: the file. Talks to the disk. Invariant: text from outside is escaped by jinja2, or
packed where scripts read it.
"""

import json
from dataclasses import asdict
from pathlib import Path

from autotune.atomic import replace_text
from autotune.bench.curves import charts
from autotune.bench.rows import BenchReport
from autotune.bench.table import HEADS, about, cells, heading, highlights, outcome_of_search, remarks, title
from autotune.report.embedded import packed, packed_library, templates
from autotune.report.marks import simulated_text


def write_page(report: BenchReport, path: Path) -> None:
    """Write the report with its plots; the library that draws them is inside.

    Raises:
        InfrastructureError: the file cannot be written.
    """
    drawn = charts(report)
    page = templates().get_template("bench.html.jinja")
    text = page.render(
        simulated=simulated_text() if report.is_simulated else None,
        title=heading(report),
        about=about(report),
        highlights=highlights(report),
        heads=HEADS,
        rows=[cells(row) for row in report.rows],
        remarks={title(row): found for row in report.rows if (found := remarks(row))},
        notes=[*outcome_of_search(report), *report.notes],
        names=[chart.name for chart in drawn],
        data=packed(json.dumps([asdict(chart) for chart in drawn])),
        library=packed_library(),
    )
    replace_text(path, text)
