"""A bench report as a table for the terminal, as CSV and as JSON.

In: a `BenchReport`. Out: a rich table; files. Talks to the console and the disk. The JSON holds everything,
the CSV one line per point; units are in the names.
"""

import csv
import io
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autotune.atomic import replace_text
from autotune.bench.points import Sweep
from autotune.bench.rows import BenchCeiling, BenchReport, BenchRow, SearchResult
from autotune.breakdown import Distribution
from autotune.load.lengths import Length
from autotune.report.marks import simulated_text
from autotune.report.units import ceiling_value, significant
from autotune.slo import Decision

_LATENCIES = (
    *("ttft", "ttft_scheduled", "ramp_ttft", "cold_ttft", "hit_ttft", "tpot", "itl", "chunk_gap"),
    *("e2e", "e2e_scheduled", "dispatch_delay"),
)
_PERCENTILES = ("p50", "p90", "p95", "p99")
_RATES = ("output_throughput_tps", "total_throughput_tps", "request_throughput_rps", "goodput_rps")
_COUNTS = ("sent", "succeeded", "input_tokens", "cached_tokens", "output_tokens")
HEADS = (
    *("load", "n", "TTFT p50", "p95", "95 % interval", "TPOT p50", "ITL p99", "tok/s", "req/s"),
    *("failed", "stalls", ""),
)
_WIDEST = 200
_MILLISECONDS_BELOW_S = 1.0


def show(report: BenchReport, console: Console) -> None:
    """Print the rows as a table, never narrower than it can be read, and what is to be said of them."""
    shown = Table(title=escape(heading(report)), title_justify="left", box=SIMPLE_HEAD)
    for name in HEADS:
        shown.add_column(name, justify="left" if name in {"load", ""} else "right", no_wrap=True)
    for row in report.rows:
        shown.add_row(*map(escape, cells(row)))
    wide = Console(file=console.file, width=_WIDEST)
    wide.print(shown, width=wide.measure(shown).maximum)
    for line in outcome(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def heading(report: BenchReport) -> str:
    """Return what was measured."""
    return f"{'SIMULATED: ' if report.is_simulated else ''}{report.model} at {report.url}"


def about(report: BenchReport) -> str:
    """Return when and with what it was measured."""
    parts = [f"autotune {report.version}", report.began]
    asked = next((row.workload for row in report.rows if row.sweep is not Sweep.LENGTH), None)
    if asked is not None:
        prompt = asked.dataset.name if asked.dataset is not None else _length(asked.input_tokens)
        parts.append(f"prompts of {prompt}, answers of {_length(asked.output_tokens)}, seed {asked.seed}")
    return " \N{MIDDLE DOT} ".join(parts)


def highlights(report: BenchReport) -> list[str]:
    """Return the few numbers that a whole sweep is for: one user's speed, all users' throughput, a search."""
    lines = []
    for row in report.rows:
        doubt = "" if row.invalid is None else " (INVALID)"
        if row.sweep is Sweep.SINGLE and row.figures.single_stream_tps is not None:
            lines.append(f"one user reads {significant(row.figures.single_stream_tps)} tokens/s{doubt}")
        if row.sweep is Sweep.SATURATION:
            rate_tps = significant(row.figures.output_throughput_tps)
            lines.append(f"{row.load.concurrency} users read {rate_tps} tokens/s together{doubt}")
    return [*lines, *outcome_of_search(report)]


def cells(row: BenchRow) -> tuple[str, ...]:
    """Return a row's cells; the interval is that of the TTFT's p95."""
    figures = row.figures
    failed = figures.sent - figures.succeeded
    return (
        title(row),
        str(figures.ttft.samples if figures.ttft else 0),
        _percentile(figures.ttft, "p50"),
        _percentile(figures.ttft, "p95"),
        _interval(figures.ttft),
        _percentile(figures.tpot, "p50"),
        _percentile(figures.itl, "p99"),
        f"{figures.output_throughput_tps:.1f}",
        f"{figures.request_throughput_rps:.2f}",
        str(failed or ""),
        str(figures.stalls.hits or ""),
        _mark(row),
    )


def title(row: BenchRow) -> str:
    """Return what a row is called: its load, and the sweep where the load does not tell."""
    if row.sweep in {Sweep.CONCURRENCY, Sweep.RATE, Sweep.LENGTH, Sweep.STEPS}:
        return row.label
    return f"{row.sweep}: {row.label}"


def _mark(row: BenchRow) -> str:
    if row.invalid is not None:
        return "INVALID"
    decisions = {each.decision for each in row.ceilings}
    worst = (Decision.MISSED, Decision.UNDECIDED, Decision.MET)
    return next((str(decision) for decision in worst if decision in decisions), "")


def remarks(row: BenchRow) -> list[str]:
    """Return what must be said of a row: invalid, failures by kind, ceilings, added tokens."""
    told = [] if row.invalid is None else [f"INVALID: {row.invalid}"]
    if row.sweep is Sweep.SINGLE and row.figures.single_stream_tps is not None:
        told.append(f"one user reads {row.figures.single_stream_tps:.1f} tokens/s (1 / median TPOT)")
    told += [f"{share.hits} {kind}" for kind, share in row.figures.errors.items()]
    told += [_ceiling_line(each) for each in row.ceilings if each.decision is not Decision.MET]
    if row.template_tokens:
        told.append(f"the server counts {row.template_tokens:+.1f} prompt tokens per request")
    return told


def summary_line(row: BenchRow) -> str:
    """Return a row in words, for a line of progress."""
    waits = f"TTFT p50 {_percentile(row.figures.ttft, 'p50')}, p95 {_percentile(row.figures.ttft, 'p95')}"
    parts = [f"{title(row)}: {waits}, {row.figures.output_throughput_tps:.1f} tok/s", _mark(row)]
    return "  ".join(part for part in parts if part)


def outcome(report: BenchReport) -> list[str]:
    """Return the lines under the table: what is to be said of a row, what the search found, notes."""
    lines = [f"{title(row)}: {remark}" for row in report.rows for remark in remarks(row)]
    told = [*lines, *outcome_of_search(report), *report.notes]
    return [simulated_text(), *told] if report.is_simulated else told


def outcome_of_search(report: BenchReport) -> list[str]:
    """Return the line about a search, if there was one."""
    return [] if report.search is None else [_search_line(report.search)]


def write_json(report: BenchReport, path: Path) -> None:
    """Write everything."""
    replace_text(path, report.model_dump_json(indent=1, by_alias=True) + "\n")


def write_csv(report: BenchReport, path: Path) -> None:
    """Write one line per point."""
    lines = [_flat(row) | {"is_simulated": report.is_simulated} for row in report.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]) if lines else ["sweep"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    replace_text(path, text.getvalue())


def _flat(row: BenchRow) -> dict[str, object]:
    figures = row.figures
    line: dict[str, object] = {"sweep": str(row.sweep), "x": row.x, "load": row.load.label}
    line |= {name: getattr(figures, name) for name in (*_COUNTS, *_RATES, "single_stream_tps", "window_s")}
    for name in _LATENCIES:
        latency: Distribution | None = getattr(figures, name)
        line[f"{name}_samples"] = latency.samples if latency else 0
        line[f"{name}_mean_s"] = latency.mean if latency else None
        for percent in _PERCENTILES:
            found = getattr(latency, percent) if latency else None
            line[f"{name}_{percent}_s"] = found.value if found else None
            line[f"{name}_{percent}_low_s"] = found.low if found else None
            line[f"{name}_{percent}_high_s"] = found.high if found else None
    missed = [each.text for each in row.ceilings if each.decision is Decision.MISSED]
    return line | {"stalls": figures.stalls.hits, "missed": "; ".join(missed), "invalid": row.invalid}


def _ceiling_line(ceiling: BenchCeiling) -> str:
    """Return how a ceiling stands; what is undecided needs more requests than it had."""
    value = (
        "nothing measured"
        if ceiling.value is None
        else ceiling_value(f"{ceiling.text} at concurrency 1", ceiling.value)
    )
    more = " (needs more --requests)" if ceiling.decision is Decision.UNDECIDED else ""
    return f"{ceiling.text}: {ceiling.decision}{more}, {value}"


def _search_line(found: SearchResult) -> str:
    if found.kept is None and found.was_spoilt:
        return f"search: nothing is known: {found.kind} {found.missed:g} was spoilt by this client"
    if found.kept is None:
        return "search: no load keeps the ceilings"
    verb = "seems to keep" if found.is_undecided else "keeps"
    doubt = " (undecided there: needs more --requests)" if found.is_undecided else ""
    kept = f"search: {found.kind} {found.kept:g} {verb} the ceilings{doubt}"
    if found.missed is None:
        return f"{kept}; no higher load was tried"
    why = "spoilt by this client" if found.was_spoilt else "does not"
    return f"{kept}, {found.missed:g} {why}"


def _percentile(latency: Distribution | None, name: str) -> str:
    return "-" if latency is None else _time(getattr(latency, name).value)


def _interval(latency: Distribution | None) -> str:
    """Return the interval of p95; an end that the samples leave open stays empty."""
    if latency is None:
        return "-"
    return "..".join("" if end is None else _time(end) for end in (latency.p95.low, latency.p95.high))


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < _MILLISECONDS_BELOW_S else f"{seconds:.2f} s"


def _length(length: Length | None) -> str:
    """Return a length, or the distribution that it is drawn from."""
    if isinstance(length, int | None):
        return f"{length} tokens"
    words = length.model_dump_json(by_alias=True).translate(str.maketrans("", "", '{}[]"'))
    return f"{words.replace(':', ' ').replace(',', ', ')} tokens"
