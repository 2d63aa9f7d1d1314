import base64
import gzip
import json
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from autotune.document import to_yaml
from autotune.failure import FailureKind
from autotune.report.html import SHOWN_FAILURES, render_report, write_report
from autotune.report.units import printable
from tests.support import histories as made

HOSTILE = "</script><img src=x onerror=alert(1)><!-- ]]> {{ 7*7 }} \u2028 &lt;b&gt; \"'"


class Page(HTMLParser):
    """Collects tags, attributes and texts, and the contents of the scripts by their id."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.scripts: dict[str, str] = {}
        self._script: str | None = None
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend((tag, name, value or "") for name, value in attrs)
        if tag == "script":
            self._script = dict(attrs).get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.texts.append(data)
        else:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def unpacked(page: Page, key: str) -> str:
    return gzip.decompress(base64.b64decode(page.scripts[key])).decode()


def data_of(source: str) -> Any:
    return json.loads(unpacked(Page(source), "data"))


@pytest.mark.parametrize(
    ("name", "plots"),
    [
        ("improved", {"plane", "load", "distributions", "importance", "slices", "progress", "timeline"}),
        ("kept", {"plane", "load", "distributions", "importance", "slices", "progress", "timeline"}),
        ("nothing_meets", {"plane", "load", "distributions", "importance", "slices", "progress", "timeline"}),
        ("not_confirmed", {"plane", "load", "distributions", "importance", "slices", "progress", "timeline"}),
        ("unfinished", {"plane", "load", "distributions", "importance", "slices", "progress", "timeline"}),
        ("empty", {"plane", "importance", "slices"}),
        ("pareto", {"plane", "load", "distributions", "importance", "slices", "progress", "timeline"}),
        (
            "front_answered",
            {"plane", "load", "distributions", "importance", "slices", "progress", "timeline"},
        ),
    ],
)
def test_every_kind_of_study_has_a_page(name: str, plots: set[str], tmp_path: Path) -> None:
    write_report(getattr(made, name)(), tmp_path / "report.html")
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert data_of(source)["plots"].keys() == plots
    assert {value for _, name, value in Page(source).attributes if name == "id"} >= plots
    assert len(source) < 1_000_000


def test_the_page_refers_to_nothing_outside_itself() -> None:
    source = render_report(made.improved())
    page = Page(source)
    loading = {"src", "srcset", "data", "action", "poster", "background", "style"}
    assert not [name for _, name, _ in page.attributes if name in loading]
    assert all(value.startswith("#") for _, name, value in page.attributes if name == "href")
    assert "link" not in page.tags
    assert "@import" not in source
    assert "url(" not in source
    policy = [value for _, name, value in page.attributes if name == "content" and "default-src" in value]
    assert policy[0].startswith("default-src 'none';")


def test_links_within_the_page_lead_somewhere() -> None:
    page = Page(render_report(made.improved()))
    keys = {value for _, name, value in page.attributes if name == "id"}
    assert {value[1:] for _, name, value in page.attributes if name == "href"} <= keys


def test_the_plots_library_is_embedded_once_and_whole() -> None:
    page = Page(render_report(made.pareto()))
    library = files("autotune.report").joinpath("page/plotly-basic.min.js").read_text(encoding="utf-8")
    assert unpacked(page, "library") == library
    assert page.tags.count("script") == 3


def test_the_same_history_gives_the_same_bytes() -> None:
    assert render_report(made.improved()) == render_report(made.improved())


def test_the_answer_comes_before_everything_else() -> None:
    text = Page(render_report(made.improved())).text
    order = [
        text.index(part)
        for part in (
            "Improved: a better",
            "What to change: run trial 2",
            "+12.0 % [+8.10 % .. +16.0 %]",
            "What binds",
            "How sure",
            "GPU-hours.",
            "Launch on node0",
            "differs from the baseline by",
            "Every mark is a candidate",
            "Fewer than 20 candidates",
            "A line a trial",
            "while kv_pool",
            "Versions, places and seeds",
        )
    ]
    assert order == sorted(order)


def test_simulated_numbers_carry_a_banner_and_a_marked_title() -> None:
    page = Page(render_report(made.improved(is_simulated=True)))
    assert ("p", "class", "banner") in page.attributes
    assert "SIMULATED r1" in page.texts
    assert "SIMULATED" not in Page(render_report(made.improved())).text


def test_failed_trials_are_listed_with_their_evidence() -> None:
    text = Page(render_report(made.improved())).text
    assert "no_kv_memory: 2" in text
    assert "RuntimeError: Not enough memory. Raise mem-fraction-static" in text
    assert "Trial 3  while kv_pool" in text
    assert "before\nRuntimeError: Not enough memory\nafter" in text


def test_of_many_failures_the_last_are_shown_and_all_are_counted() -> None:
    study = made.make_study()
    trials = [made.failed(number, FailureKind.CRASHED, f"line {number}") for number in range(50)]
    source = render_report(made.history(study, *trials))
    text = Page(source).text
    assert "crashed: 50" in text
    assert f"The last {SHOWN_FAILURES} of them" in text
    assert "line 29" not in text
    assert "line 30" in text
    assert len(data_of(source)["trials"]["failure"]) == 50


def test_everything_needed_to_reproduce_is_there() -> None:
    history = made.improved(made.TWO_NODES)
    text = Page(render_report(history)).text
    assert to_yaml(history.study.space) in text
    assert to_yaml(history.study.slo) in text
    assert history.study.identity in text
    for fact in (
        "seed of the workload",
        "image digest",
        "GPU driver",
        "node1 (8 GPUs)",
        "baseline effective",
    ):
        assert fact in text
    assert "--node-rank 1" in text


def test_hostile_text_never_becomes_html() -> None:
    tame, hostile = (
        made.improved(
            {
                "model": text,
                "environment": {"NAME": text},
                "tune": {
                    "chunked-prefill-size": {"int": [1024, 32768]},
                    "schedule-policy": {"choices": ["fcfs", "lpm", text]},
                },
            }
        )
        for text in ("tame", HOSTILE)
    )
    tame, hostile = (
        made.history(
            history.study,
            *history.trials,
            made.trial(history.study, 9, {"schedule-policy": text}, 1050.0, 7.5),
            made.failed(10, FailureKind.CRASHED, text),
            answer=history.answer,
        )
        for history, text in ((tame, "tame"), (hostile, HOSTILE))
    )
    expected, page = Page(render_report(tame)), Page(render_report(hostile))
    assert page.tags == expected.tags
    assert [name for _, name, _ in page.attributes] == [name for _, name, _ in expected.attributes]
    assert HOSTILE in page.text
    assert page.scripts.keys() == expected.scripts.keys()
    assert json.dumps(printable(HOSTILE), ensure_ascii=False)[1:-1] in unpacked(page, "data")
