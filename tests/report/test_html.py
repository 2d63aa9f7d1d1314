import base64
import gzip
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]  # plotly has no types

from autotune.document import to_yaml
from autotune.failure import FailureKind
from autotune.report.html import render_report, write_report
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


@pytest.mark.parametrize(
    "name",
    ["improved", "kept", "nothing_meets", "not_confirmed", "unfinished", "empty", "pareto", "front_answered"],
)
def test_every_kind_of_study_has_a_page(name: str, tmp_path: Path) -> None:
    history = getattr(made, name)()
    write_report(history, tmp_path / "report.html")
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(source)
    figures = [key for key in page.scripts if key.startswith("figure-")]
    assert len(figures) == (3 if name in ("pareto", "front_answered") else 2)
    assert all("data" in json.loads(page.scripts[key]) for key in figures)
    assert len(source) < 5_000_000


def test_the_page_refers_to_nothing_outside_itself() -> None:
    source = render_report(made.improved())
    page = Page(source)
    loading = {"src", "href", "srcset", "data", "action", "poster", "background", "style"}
    assert not [name for _, name, _ in page.attributes if name in loading]
    assert "link" not in page.tags
    assert "@import" not in source
    assert "url(" not in source
    policy = [value for _, name, value in page.attributes if name == "content" and "default-src" in value]
    assert policy[0].startswith("default-src 'none';")


def test_plotlys_code_is_embedded_once_and_whole() -> None:
    page = Page(render_report(made.pareto()))
    packed = page.scripts["plotly-gzip"]
    assert gzip.decompress(base64.b64decode(packed)).decode() == get_plotlyjs()
    assert page.tags.count("script") == 3 + 2


def test_the_same_history_gives_the_same_bytes() -> None:
    assert render_report(made.improved()) == render_report(made.improved())


def test_the_answer_comes_before_everything_else() -> None:
    text = Page(render_report(made.improved())).text
    order = [
        text.index(part)
        for part in (
            "Improved: a better",
            "Launch on node0",
            "Candidates",
            "Not measured",
            "All trials",
            "To reproduce",
        )
    ]
    assert order == sorted(order)


def test_simulated_numbers_carry_a_banner_and_a_marked_title() -> None:
    page = Page(render_report(made.improved(is_simulated=True)))
    assert ("p", "class", "banner") in page.attributes
    assert "SIMULATED: r1" in page.texts
    assert "SIMULATED" not in Page(render_report(made.improved())).text


def test_failed_trials_are_listed_with_their_evidence() -> None:
    text = Page(render_report(made.improved())).text
    assert "no_kv_memory: 2" in text
    assert "RuntimeError: Not enough memory. Raise mem-fraction-static" in text
    assert "Trial 3, while kv_pool" in text
    assert "before\nRuntimeError: Not enough memory\nafter" in text


def test_everything_needed_to_reproduce_is_there() -> None:
    history = made.improved(made.TWO_NODES)
    text = Page(render_report(history)).text
    assert to_yaml(history.study.space) in text
    assert to_yaml(history.study.slo) in text
    assert history.study.identity in text
    assert "seed of the workload" in text
    assert "effective flags of trial 2" in text
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
    (hover,) = [
        text
        for trace in json.loads(page.scripts["figure-1"])["data"]
        for text in trace.get("hovertext", [])
        if "img" in text
    ][:1]
    assert "<img" not in hover
    assert "&lt;img src=x" in hover
