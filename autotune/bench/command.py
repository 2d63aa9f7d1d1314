"""`autotune bench` from its options to its files.

In: a URL, `Options`, a console. Out: the exit code: 0, 1 if a ceiling was missed (or no load of a search
keeps them), 130 if it was stopped. Talks to the server, the console and the disk. Invariant: what was
measured before Ctrl-C is shown and written all the same.
"""

import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from autotune.bench.ask import Options, Plan, plan_of
from autotune.bench.page import write_page
from autotune.bench.picture import write_picture
from autotune.bench.points import BenchPoint
from autotune.bench.rows import BenchReport, BenchRow
from autotune.bench.run import Bench, http_endpoint
from autotune.bench.table import show, summary_line, write_csv, write_json
from autotune.bench.target import Target, find_target

STOPPED_EXIT_CODE = 130


def bench(
    url: str,
    options: Options,
    console: Console,
    *,
    out: Path | None,
    model: str | None = None,
    api_key_env: str | None = None,
    vocabulary_size: int | None = None,
) -> int:
    """Measure what was asked, show it, write it into the folder `out`, and return the exit code.

    Raises:
        ConfigError: an option cannot be understood, or the environment variable is not set.
        InfrastructureError: the server cannot be reached, or a file cannot be written.
        LoadError: this machine ran out of files, ports or memory.
    """
    target = find_target(url, model=model, api_key_env=api_key_env, vocabulary_size=vocabulary_size)
    plan = plan_of(options, target)
    report, was_stopped = _measured(target, plan, console)
    show(report, console)
    if out is not None:
        _write(report, out, console)
    if was_stopped:
        return STOPPED_EXIT_CODE
    return 1 if report.has_missed else 0


def _measured(target: Target, plan: Plan, console: Console) -> tuple[BenchReport, bool]:
    with console.status("looking at the server") as status:
        progress = _Progress(console, status, len(plan.points))
        runner = Bench(
            target, plan.asked, http_endpoint(target, progress.ended), progress.begin, progress.end
        )
        search, notes = None, list(plan.notes)
        try:
            runner.run(plan.points)
            if plan.where is not None:
                search = runner.search(plan.workload, plan.where, plan.amount, plan.arrivals)
        except KeyboardInterrupt:
            notes.append("stopped before its end")
            return runner.report(notes=notes), True
    return runner.report(search, notes), False


class _Progress:
    """A line for every point that is done and, on a terminal, one that tells how far the present one is."""

    def __init__(self, console: Console, status: Status, points: int) -> None:
        self._console = console
        self._status = status
        self._points = points
        self._begun = 0
        self._began_s = 0.0
        self._point = ""
        self._amount = ""

    def begin(self, point: BenchPoint) -> None:
        """Tell what is measured now; a search has no known number of points."""
        self._begun += 1
        self._began_s = time.monotonic()
        place = f"{self._begun}/{self._points}" if self._begun <= self._points else f"{self._begun}"
        self._point = f"point {place}, {point.sweep}: {point.label}"
        self._amount = f" of {point.load.requests}" if point.load.requests else ""
        self._status.update(escape(self._point))

    def ended(self, requests: int) -> None:
        """Tell how many requests of the load under way are over (of the warm-up, while that lasts)."""
        minutes, seconds = divmod(round(time.monotonic() - self._began_s), 60)
        self._status.update(
            escape(f"{self._point}: {requests}{self._amount} answered, {minutes}:{seconds:02}")
        )

    def end(self, row: BenchRow) -> None:
        """Tell what came out."""
        self._console.print(summary_line(row), markup=False, highlight=False, soft_wrap=True)


def _write(report: BenchReport, out: Path, console: Console) -> None:
    write_json(report, out / "bench.json")
    write_csv(report, out / "bench.csv")
    write_page(report, out / "bench.html")
    reason = write_picture(report, out / "bench.png")
    for name in ("bench.json", "bench.csv", "bench.html"):
        console.print(f"wrote {out / name}", markup=False, highlight=False)
    told = f"wrote {out / 'bench.png'}" if reason is None else f"no PNG: {reason}"
    console.print(told, markup=False, highlight=False)
