"""A report as a reader opens it: from the disk, the network cut, everything that goes wrong collected."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.report.html import write_report
from autotune.search.study_history import StudyHistory

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}
BREAKS = """for (const kind of ["error", "unhandledrejection"])
  addEventListener(kind, () => { document.documentElement.dataset.broken = ""; });"""
PATIENCE_MS = 90_000
"""A busy machine draws slowly; what does not come at all is found all the same."""


@dataclass
class Report:
    """An open report; `faults`: console errors and warnings, exceptions, and requests for anything else."""

    page: "Page"
    faults: list[str] = field(default_factory=list)

    def plot(self, key: str) -> list[dict[str, Any]]:
        """Return the traces that a plot shows, as plotly has them."""
        script = (
            "key => document.querySelector(`[data-plot=${key}]`).data.map(t => JSON.parse(JSON.stringify(t)))"
        )
        found: list[dict[str, Any]] = self.page.evaluate(script, key)
        return [trace for trace in found if trace.get("hoverinfo") != "skip"]

    def marks(self, key: str) -> dict[str, list[int]]:
        """Return the trials that a plot's traces show, by their names."""
        return {trace["name"]: trace["customdata"] for trace in self.plot(key)}


@contextmanager
def opened(browser: "Browser", history: StudyHistory, folder: Path, **context: Any) -> Iterator[Report]:
    """Write the report of a study and open it; every plot is drawn when this returns."""
    path = folder / "report.html"
    write_report(history, path)
    options = {"viewport": DESKTOP, "offline": True, "reduced_motion": "reduce", **context}
    tab = browser.new_context(**options)
    report = Report(tab.new_page())
    page = report.page
    page.set_default_timeout(PATIENCE_MS)
    page.add_init_script(BREAKS)
    page.on("pageerror", lambda error: report.faults.append(str(error)))
    page.on(
        "console",
        lambda message: report.faults.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on(
        "request",
        lambda request: report.faults.append(request.url) if not request.url.startswith("file:") else None,
    )
    try:
        page.goto(path.as_uri())
        page.wait_for_selector('body[data-ready="all"], [data-broken] body')
        yield report
    finally:
        tab.close()
