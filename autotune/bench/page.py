"""A bench report as one HTML file that needs nothing else.

In: a `BenchReport`. Out: the file. Talks to the disk. Invariant: text from outside is escaped.
"""

import html
from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go  # type: ignore[import-untyped]  # plotly has neither types nor stubs

from autotune.bench.curves import Chart, Series, charts
from autotune.bench.rows import BenchReport
from autotune.bench.table import HEADS, cells, outcome
from autotune.report.atomic import replace_text

_STYLE = (
    "body{font-family:system-ui,sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse}"
    "td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ccc}td:last-child{text-align:left}"
)


def write_page(report: BenchReport, path: Path) -> None:
    """Write the report with its plots; the plots' JavaScript is inside."""
    replace_text(path, "".join(_parts(report)))


def _parts(report: BenchReport) -> Iterator[str]:
    title = html.escape(f"{report.model} at {report.url}")
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
    yield f"<p>autotune {html.escape(report.version)}, {html.escape(report.began)}</p><table>"
    yield _line("th", HEADS)
    for row in report.rows:
        yield _line("td", cells(row))
    yield "</table>"
    for line in outcome(report):
        yield f"<p>{html.escape(line)}</p>"
    for number, chart in enumerate(charts(report)):
        yield f"<h2>{html.escape(chart.title)}</h2>"
        yield _figure(chart).to_html(full_html=False, include_plotlyjs=number == 0, div_id=f"chart-{number}")
    yield "</body></html>\n"


def _line(kind: str, texts: tuple[str, ...]) -> str:
    return "<tr>" + "".join(f"<{kind}>{html.escape(text)}</{kind}>" for text in texts) + "</tr>"


def _figure(chart: Chart) -> go.Figure:
    figure = go.Figure(layout={"template": "plotly_white", "height": 420})
    for series in chart.series:
        figure.add_scatter(
            x=series.x, y=series.y, name=html.escape(series.name), mode="lines+markers", error_y=_bars(series)
        )
    figure.update_xaxes(title=chart.x_title, type="log" if chart.is_log else "linear")
    figure.update_yaxes(title=chart.y_title, rangemode="tozero")
    return figure


def _bars(series: Series) -> dict[str, object]:
    up = [high - value for high, value in zip(series.high, series.y, strict=True)]
    down = [value - low for low, value in zip(series.low, series.y, strict=True)]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1}
