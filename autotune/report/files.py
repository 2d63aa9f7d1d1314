"""A report's files: the page, Markdown and CSV always, Parquet and pictures if asked for.

In: a `StudyHistory` and paths. Out: files, in the language of the moment. Talks to the disk. Invariant: a
study that is judged again under another SLO leaves nothing in its folder, only what was asked for elsewhere.
"""

from pathlib import Path

from autotune.report.html import write_report
from autotune.report.markdown import write_markdown
from autotune.report.pictures import write_pictures
from autotune.report.table import write_csv, write_parquet
from autotune.search.study_history import StudyHistory


def write_files(
    history: StudyHistory,
    *,
    html: Path | None = None,
    csv: Path | None = None,
    markdown: Path | None = None,
    parquet: Path | None = None,
    images: Path | None = None,
) -> Path | None:
    """Write the files; return the page's path, None if there is none.

    Raises:
        ConfigError: Parquet or pictures were asked for, and their library is not installed.
        InfrastructureError: a file cannot be written.
    """
    if history.judged_again is None:
        html, csv = html or history.folder / "report.html", csv or history.folder / "trials.csv"
        markdown = markdown or history.folder / "report.md"
    if html is not None:
        write_report(history, html)
    if csv is not None:
        write_csv(history, csv)
    if markdown is not None:
        write_markdown(history, markdown)
    if parquet is not None:
        write_parquet(history, parquet)
    if images is not None:
        write_pictures(history, images)
    return html
