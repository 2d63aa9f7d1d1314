"""Make runs/example/ anew, a small simulated study with the README's pictures: python -m tests.screenshots

Runs the study and takes the live view's picture in the middle of it, keeps of the raw files those that its
report reads, and photographs the report, once every plot is drawn, in Chromium, which must be on the path
(extra browser). Everything but the storage's times of day is the same every time.
"""

import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from autotune.engine.launchers import open_launcher
from autotune.events import Event, PhaseBegan
from autotune.live.page import Page
from autotune.live.status import STATUS_FILE
from autotune.live.view import StudyView
from autotune.record import Role
from autotune.report.findings import baseline_of, winner_of
from autotune.search.budget import Budget
from autotune.search.ledger import read_history
from autotune.search.study_history import StudyHistory
from autotune.space import LauncherKind
from autotune.study import Study, read_study
from autotune.tuner import tune
from tests.browser.opened import opened

if TYPE_CHECKING:
    from playwright.sync_api import ViewportSize

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "runs" / "example"
SPACE, SLO = "search_spaces/deepseek-r1-2x8h100.yaml", "slo/ttft-p95-10s-at-50.yaml"
BUDGET = Budget(launches=16, finalists=1)
MOMENT = (14, "load: concurrency 50")
"""The trial and its phase at which the live view is photographed."""
_WIDTH, _HEIGHT = 112, 30
_REPORT_SIZE: "ViewportSize" = {"width": 1180, "height": 1120}
_PLOTS_SIZE: "ViewportSize" = {"width": 1180, "height": 1420}
_PLOTS_ONLY = "section:not(#plane):not(#load), #plot-note, nav, h1 {display: none}"
_COLOURS = 64
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Replace the example by a new one."""
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        sys.exit(f"none of {', '.join(_BROWSERS)} is on the path")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / EXAMPLE.name
        history, svg = run_example(folder)
        (folder / "live.svg").write_text(svg, encoding="utf-8")
        _photograph(browser, history, folder)
        _prune(history)
        shutil.rmtree(EXAMPLE, ignore_errors=True)
        shutil.copytree(folder, EXAMPLE)
    print(f"{EXAMPLE.relative_to(ROOT)}: {sum(path.stat().st_size for path in _files(EXAMPLE)):,} bytes")


def example_study() -> Study:
    """Return what the example asks."""
    draft = read_study(ROOT / SPACE, ROOT / SLO, name=EXAMPLE.name, launcher=LauncherKind.SIMULATED)
    return draft.study


def run_example(folder: Path) -> tuple[StudyHistory, str]:
    """Run the study; return it, and the live view in its middle as SVG."""
    study = example_study()
    launcher = open_launcher(study.space, seed=study.seed)
    console = Console(file=io.StringIO(), width=_WIDTH, height=_HEIGHT)
    view = StudyView(study, folder, BUDGET, launcher, console)
    pictures: list[str] = []

    def observe(event: Event) -> None:
        view.observe(event)
        if isinstance(event, PhaseBegan) and (event.trial.number, event.phase) == MOMENT:
            pictures.append(_live_picture(Page(view.progress())))

    tune(study, launcher, BUDGET, folder, observe=observe)
    return read_history(folder), pictures[0]


def _live_picture(page: Page) -> str:
    """Return the page as SVG, in fonts that the reader has: no picture reaches for the network."""
    console = Console(
        record=True,
        width=_WIDTH,
        height=_HEIGHT,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(page)
    template = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return console.export_svg(title="autotune tune", code_format=template, unique_id="live")


def _photograph(program: str, history: StudyHistory, folder: Path) -> None:
    """Photograph the top of the report, and its first plots."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - the extra 'browser'

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        with opened(browser, history, folder.parent, viewport=_REPORT_SIZE) as report:
            report.page.screenshot(path=folder / "report.png")
            report.page.add_style_tag(content=_PLOTS_ONLY)
            report.page.set_viewport_size(_PLOTS_SIZE)
            report.page.screenshot(path=folder / "plots.png")
        browser.close()
    for name in ("report.png", "plots.png"):
        with Image.open(folder / name) as shot:
            shot.convert("RGB").quantize(_COLOURS).save(folder / name, optimize=True)


def _prune(history: StudyHistory) -> None:
    """Keep the storage, and the raw records of the baseline and the winner."""
    kept = {trial.number for trial in (baseline_of(history), winner_of(history)) if trial is not None}
    kept |= {trial.number for trial in history.trials if trial.record.role is Role.CONFIRMATION}
    for trial in (history.folder / "trials").iterdir():
        if int(trial.name) not in kept:
            shutil.rmtree(trial)
    for path in _files(history.folder):
        if path.suffix in (".log", ".lock") or path.name == STATUS_FILE:
            path.unlink()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
