"""The report in a real browser: it opens from the disk, shows what was measured, and can be worked with."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from autotune.failure import FailureKind
from autotune.report.findings import front
from autotune.report.language import Language, speaking
from tests.browser.opened import DESKTOP, PHONE, opened
from tests.support import histories as made
from tests.support.many_trials import many_trials

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

KINDS = (
    "improved",
    "kept",
    "nothing_meets",
    "not_confirmed",
    "unfinished",
    "empty",
    "pareto",
    "front_answered",
    "undecided",
)
HOSTILE = "</script><img src=x onerror=\"document.title='broken'\"><b>{{7*7}}</b> &lt;i&gt; %s ${1}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_study_opens_without_a_fault(browser: "Browser", kind: str, tmp_path: Path) -> None:
    with opened(browser, getattr(made, kind)(), tmp_path) as report:
        assert report.faults == []
        assert report.page.locator("#plot-note").is_hidden()


def test_the_plane_has_a_mark_for_every_candidate_of_a_known_study(
    browser: "Browser", tmp_path: Path
) -> None:
    with opened(browser, made.improved(), tmp_path) as report:
        assert report.marks("plane") == {
            "meets the SLO, nothing better": [2],
            "meets the SLO, dominated": [0],
            "misses the SLO": [1],
            "crashed, no place here": [3, 4],
            "not measured, no place here": [5, 6],
        }
        assert [len(trace["x"]) for trace in report.plot("load")] == [2, 2, 1]
        assert {trace["name"] for trace in report.plot("progress")} >= {"best so far", "meets the SLO"}


def test_the_front_in_the_browser_is_that_of_the_python_code(browser: "Browser", tmp_path: Path) -> None:
    history = many_trials(300)
    with opened(browser, history, tmp_path) as report:
        shown = report.marks("plane")
    assert set(shown["meets the SLO, nothing better"]) == front(history)
    placed = [number for name, numbers in shown.items() if "no place" not in name for number in numbers]
    assert len(placed) == sum(trial.record.objectives is not None for trial in history.trials) - 4


def test_any_two_quantities_span_the_plane(browser: "Browser", tmp_path: Path) -> None:
    with opened(browser, made.improved(), tmp_path) as report:
        report.page.get_by_label("Up").select_option("ttft p50 at concurrency 100")
        title = report.page.evaluate("document.querySelector('[data-plot=plane]').layout.yaxis.title.text")
        assert title == "ttft p50 at concurrency 100 (s)"
        (best,) = [
            trace for trace in report.plot("plane") if trace["name"] == "meets the SLO, nothing better"
        ]
        assert best["y"] == pytest.approx([14.4 / 3], rel=1e-4)
        report.page.get_by_label("Across").select_option("error_ratio at concurrency 50")
        assert sum(map(len, report.marks("plane").values())) == 7
        assert report.faults == []


def centre(report: Any, key: str, trace: int) -> tuple[float, float]:
    """Return where the first mark of a trace is on the screen."""
    report.page.locator(f"[data-plot={key}]").scroll_into_view_if_needed()
    script = """([key, index]) => {
        const plot = document.querySelector(`[data-plot=${key}]`), box = plot.getBoundingClientRect();
        const trace = plot.data[index], layout = plot._fullLayout;
        const suffix = trace.xaxis === "x2" ? "2" : "";
        const [x, y] = [layout[`xaxis${suffix}`], layout[`yaxis${suffix}`]];
        return [box.left + x._offset + x.d2p(trace.x[0]), box.top + y._offset + y.d2p(trace.y[0])];
    }"""
    found = report.page.evaluate(script, [key, trace])
    return found[0], found[1]


def test_hovering_shows_the_candidate_and_a_click_its_trial(browser: "Browser", tmp_path: Path) -> None:
    with opened(browser, made.improved(), tmp_path) as report:
        report.page.mouse.move(*centre(report, "plane", 0))
        hover = report.page.locator("[data-plot=plane] .hoverlayer")
        hover.get_by_text("trial 2 (search)").wait_for()
        told = hover.text_content() or ""
        assert "schedule-policy lpm" in told
        assert "ttft p95 at concurrency 50: 7.20 s [6.84 s .. 7.20 s]" in told
        report.page.mouse.click(*centre(report, "plane", 0))
        panel = report.page.get_by_role("dialog", name="Trial 2")
        panel.wait_for()
        assert "chunked-prefill-size" in panel.inner_text()
        assert "room" not in panel.inner_text()
        assert "trials/0002/" in panel.inner_text()
        report.page.keyboard.press("Escape")
        assert panel.count() == 0


def test_a_trial_that_crashed_can_be_clicked_on_its_strip(browser: "Browser", tmp_path: Path) -> None:
    with opened(browser, made.improved(), tmp_path) as report:
        strip = [trace["name"] for trace in report.plot("plane")].index("crashed, no place here")
        report.page.mouse.click(*centre(report, "plane", strip))
        panel = report.page.get_by_role("dialog", name="Trial 3")
        panel.wait_for()
        assert "RuntimeError: Not enough memory" in panel.inner_text()


def test_everything_can_be_reached_with_the_keyboard(browser: "Browser", tmp_path: Path) -> None:
    with opened(browser, made.improved(), tmp_path) as report:
        report.page.keyboard.press("Tab")
        assert report.page.evaluate("document.activeElement.textContent") == "Skip to the answer"
        button = report.page.locator("#candidates button.trial").first
        button.focus()
        report.page.keyboard.press("Enter")
        report.page.get_by_role("dialog", name="Trial 0").wait_for()
        report.page.keyboard.press("Escape")
        assert report.page.evaluate("document.activeElement.dataset.trial") == "0"


def test_behind_every_plot_is_a_table_with_its_numbers(browser: "Browser", tmp_path: Path) -> None:
    with opened(browser, many_trials(60), tmp_path) as report:
        for key in ("plane", "load", "importance", "slices", "progress", "timeline"):
            details = report.page.locator(f"[data-numbers={key}]")
            details.locator("summary").click()
            details.locator("tbody tr").first.wait_for()  # it is filled when it is opened
        load = report.page.locator("[data-numbers=load]").inner_text()
        assert "winner (trial 1)" in load
        assert "6.00 s [5.70 s .. 6.00 s]" in load


def test_the_table_of_trials_is_sorted_and_turned_page_by_page(browser: "Browser", tmp_path: Path) -> None:
    with opened(browser, many_trials(120), tmp_path) as report:
        table = report.page.locator("#trial-table")
        assert table.locator("tbody tr").count() == 50
        assert "1 to 50 of 124" in table.inner_text()
        table.get_by_role("button", name="Further").click()
        assert table.locator("tbody button.trial").first.inner_text() == "50"
        table.get_by_role("button", name="output_throughput at concurrency 50").click()
        table.get_by_role("button", name="output_throughput at concurrency 50").click()
        assert table.locator("tbody button.trial").first.inner_text() in ("1", "121", "123")
        assert table.locator("[aria-sort=descending]").count() == 1


def test_hostile_text_is_shown_and_never_run(browser: "Browser", tmp_path: Path) -> None:
    study = made.make_study(
        {
            "model": HOSTILE,
            "tune": {"schedule-policy": {"choices": ["fcfs", "lpm", HOSTILE]}},
        }
    )
    trials = [
        made.trial(study, 0, {"schedule-policy": HOSTILE}, 900.0, 5.0),
        made.failed(1, FailureKind.CRASHED, HOSTILE, candidate={"schedule-policy": HOSTILE}),
    ]
    with opened(browser, made.history(study, *trials), tmp_path) as report:
        report.page.mouse.move(*centre(report, "plane", 0))
        report.page.locator("[data-plot=plane] .hoverlayer").get_by_text("trial 0").wait_for()
        report.page.locator("#trial-table button.trial").last.click()
        assert HOSTILE in report.page.get_by_role("dialog").inner_text()
        assert report.page.locator("img").count() == 0
        assert report.page.title() == "r1"
        assert report.faults == []


@pytest.mark.parametrize("language", list(Language))
@pytest.mark.parametrize(
    "look",
    [
        pytest.param(
            {"viewport": size, "color_scheme": scheme, "has_touch": name == "phone"}, id=f"{name}-{scheme}"
        )
        for name, size in (("phone", PHONE), ("desktop", DESKTOP))
        for scheme in ("light", "dark")
    ],
)
def test_no_width_and_no_colour_scheme_lets_the_page_overflow(
    browser: "Browser", language: Language, look: dict[str, Any], tmp_path: Path, shots: Path
) -> None:
    with speaking(language), opened(browser, made.improved(is_simulated=True), tmp_path, **look) as report:
        report.page.screenshot(path=f"{shots}.png", full_page=True)
        width = report.page.evaluate("document.documentElement.scrollWidth")
        assert width == look["viewport"]["width"]
        ground = report.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(255, 255, 255)" if look["color_scheme"] == "light" else "rgb(20, 23, 27)")
        assert report.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["improved", "nothing_meets", "front_answered"])
def test_axe_finds_no_serious_violation(browser: "Browser", kind: str, scheme: str, tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    with opened(browser, getattr(made, kind)(), tmp_path, color_scheme=scheme) as report:
        for key in ("plane", "timeline"):
            report.page.locator(f"[data-numbers={key}] summary").click()
        found = axe.Axe().run(report.page).response["violations"]
        report.page.locator("#candidates button.trial").first.click()
        found += axe.Axe().run(report.page).response["violations"]
    serious = [
        (each["id"], each["help"], [node["target"] for node in each["nodes"]][:5])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_it_prints_in_light_colours_with_the_plots(browser: "Browser", tmp_path: Path, shots: Path) -> None:
    with opened(browser, made.improved(), tmp_path, color_scheme="dark") as report:
        pdf = report.page.pdf(path=f"{shots}.pdf", format="A4")
        assert pdf.startswith(b"%PDF")
        report.page.emulate_media(media="print")
        assert report.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert report.page.locator("nav").is_hidden()


def test_without_javascript_the_answer_and_the_evidence_are_there(browser: "Browser", tmp_path: Path) -> None:
    from autotune.report.html import write_report  # noqa: PLC0415 - `opened` waits for scripts

    write_report(made.improved(), tmp_path / "report.html")
    tab = browser.new_context(java_script_enabled=False, offline=True)
    page = tab.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    text = page.locator("body").inner_text()
    tab.close()
    assert "Improved: a better candidate" in text
    assert "need JavaScript" in text
    assert "RuntimeError: Not enough memory" in text
