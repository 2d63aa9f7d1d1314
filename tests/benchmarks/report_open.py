"""How long a large report takes to write and to open: python -m tests.benchmarks.report_open [TRIALS ...]

Seconds from asking headless Chromium for the file to the first plot, and to the last; in between the page can
be read and used already, its text from the first moment on. Needs the extra `browser` and a chromium.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from autotune.report.html import write_report
from tests.support.many_trials import many_trials

LIMIT_S = 3.0
RUNS = 3


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or [50, 500, 5000]
    print("trials   size MB   write s   first plot s   all plots s   (best of 3; to be under 3 s at 5000)")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), chromium_sandbox=False)
        for count in counts:
            path = Path(folder) / f"{count}.html"
            began_s = time.perf_counter()
            write_report(many_trials(count), path)
            wrote_s = time.perf_counter() - began_s
            first_s, all_s = min(opening_s(browser, path) for _ in range(RUNS))
            size_mb = path.stat().st_size / 1e6
            print(f"{count:6}   {size_mb:7.2f}   {wrote_s:7.2f}   {first_s:12.2f}   {all_s:11.2f}")


def opening_s(browser: Browser, path: Path) -> tuple[float, float]:
    """Return the seconds to the first and to the last plot, by the page's own clock."""
    page = browser.new_page()
    page.add_init_script(
        """new MutationObserver(() => performance.mark(document.body?.dataset.ready ?? 'none'))
        .observe(document, { attributes: true, subtree: true, attributeFilter: ['data-ready'] });"""
    )
    page.goto(path.as_uri())
    page.wait_for_selector('body[data-ready="all"]')
    marks = page.evaluate("['some', 'all'].map((n) => performance.getEntriesByName(n)[0].startTime / 1000)")
    page.close()
    return float(marks[0]), float(marks[1])


if __name__ == "__main__":
    main()
