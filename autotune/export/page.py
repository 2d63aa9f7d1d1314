"""The evidence for people: EVIDENCE.md, which lies beside every export. Pure.

In: a `Selection`. Out: Markdown. Invariant: text from outside stands in code spans and code blocks whose
fences are longer than any run of backticks in it.
"""

import platform
import re
from collections.abc import Iterable, Iterator, Sequence

from autotune import __version__
from autotune.document import to_yaml
from autotune.export.change import changes, single_effects, whole_effect
from autotune.export.evidence import launches_of
from autotune.export.file import ExportFile
from autotune.export.selection import Selection
from autotune.metrics import Metric
from autotune.record import PointRecord
from autotune.report.alike import alike_text
from autotune.report.answer import answer_text, room_text
from autotune.report.commands import launch_commands
from autotune.report.findings import confirmed_of, verdict_of
from autotune.report.units import (
    ABSENT,
    ceiling_value,
    flag_value,
    gain_text,
    latency,
    metric_value,
    printable,
    whole,
)
from autotune.search.confirmation import NumberedTrial


def evidence_page(selection: Selection) -> ExportFile:
    """Return `EVIDENCE.md`."""
    return ExportFile("EVIDENCE.md", "\n\n".join(_blocks(selection)) + "\n")


def _blocks(selection: Selection) -> Iterator[str]:
    study = selection.history.study
    yield f"# Evidence for trial {selection.trial.number} of {study.name}"
    yield from (f"**{_code(mark)}**" for mark in selection.marks)
    yield _block(answer_text(selection.history))
    yield from _changes(selection)
    yield "## Ceilings"
    yield _ceilings(selection)
    yield from _fresh_launches(selection)
    yield "## Flags"
    yield _flags(selection)
    yield "## Launch commands"
    for command in launch_commands(study, selection.trial):
        yield f"{_code(command.node)}:"
        yield _block(command.text)
    yield "## Measurements"
    yield _measurements(selection)
    yield "## Versions and seeds"
    yield _table(("what", "value"), _facts(selection))
    yield "## Inputs"
    yield _block(to_yaml(study.space))
    yield _block(to_yaml(study.slo))


def _changes(selection: Selection) -> Iterator[str]:
    """Yield the difference from the baseline in words, and its measured effect."""
    changed = changes(selection)
    yield "## Changes against the baseline"
    if not changed:
        yield "None that is known."
        return
    yield _list(map(str, changed))
    source, effects = whole_effect(selection)
    if effects:
        yield f"Effect of {'this change' if len(changed) == 1 else 'all of it together'} ({source}):"
        yield _list(effects)
    singles = tuple(single_effects(selection))
    if singles:
        yield "Single flags, from two trials of the search that differ in nothing else, one launch each:"
        yield _list(singles)
    elif len(changed) > 1:
        yield "What a single flag did is not known: no two trials differ in one of them alone."


def _ceilings(selection: Selection) -> str:
    verdict = verdict_of(selection.history, selection.trial)
    rows = [
        (
            each.ceiling,
            ceiling_value(each.ceiling, each.value),
            room_text(each),
            each.decision,
            str(each.samples),
        )
        for each in (verdict.ceilings if verdict else ())
    ]
    return _table(("ceiling", "measured", "margin", "verdict", "samples"), rows)


def _fresh_launches(selection: Selection) -> Iterator[str]:
    confirmed = confirmed_of(selection.history, selection.trial)
    if confirmed is None:
        return
    goals = selection.history.study.slo.goals
    rows = [
        (
            str(goal.quantity),
            ", ".join(metric_value(goal.quantity.metric, value) for value in confirmed.objective(index)),
            str(confirmed.failed_launches),
            gain_text(gain) if gain else ABSENT,
        )
        for index, (goal, gain) in enumerate(zip(goals, confirmed.gains or (None,) * len(goals), strict=True))
    ]
    yield "## Fresh launches"
    yield _table(("objective", "each launch", "failed", "gain over the baseline"), rows)
    answers = alike_text(confirmed)
    if answers is not None:
        yield "## Answers"
        yield _code(answers)


def _flags(selection: Selection) -> str:
    """Return every flag that was fixed or asked for, with what the engine made of it."""
    record = selection.trial.record
    asked = {**selection.history.study.space.flags, **record.candidate}
    effective = record.effective.flags if record.effective else {}
    rows = [
        (name, flag_value(value), flag_value(effective[name]) if name in effective else "not reported")
        for name, value in asked.items()
    ]
    return _table(("flag", "asked", "effective"), rows)


def _measurements(selection: Selection) -> str:
    heads = (
        "trial",
        "load",
        "throughput",
        "TTFT p50",
        "TTFT p95",
        "ITL p99",
        "errors",
        "raw records, SHA-256",
    )
    rows = [
        _measurement(launch, point) for launch in launches_of(selection) for point in launch.record.points
    ]
    return _table(heads, rows)


def _measurement(trial: NumberedTrial, point: PointRecord) -> tuple[str, ...]:
    summary = point.summary
    return (
        f"{trial.number} {trial.record.role}",
        point.load,
        metric_value(Metric.OUTPUT_THROUGHPUT, summary.output_throughput_tps),
        latency(summary.value(Metric.TTFT, "p50")),
        latency(summary.value(Metric.TTFT, "p95")),
        latency(summary.value(Metric.ITL, "p99")),
        metric_value(Metric.ERROR_RATIO, summary.error_ratio),
        f"{point.file} {point.sha256}",
    )


def _facts(selection: Selection) -> list[tuple[str, str]]:
    study, effective = selection.history.study, selection.trial.record.effective
    return [
        ("autotune", __version__),
        ("Python", platform.python_version()),
        (study.space.engine, study.space.version),
        (f"{study.space.engine}, as the engine said", (effective and effective.version) or "not seen"),
        ("image", study.space.image or "none"),
        ("model", study.space.model),
        ("KV pool", f"{whole(effective.kv_tokens if effective else None)} tokens"),
        ("running limit", f"{whole(effective.running_limit if effective else None)} requests"),
        ("study identity", study.identity),
        ("seed of the search", str(study.seed)),
        ("seed of the workload", str(study.slo.workload.seed)),
    ]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_code(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_code(line)}" for line in lines)


def _code(text: str) -> str:
    """Return one line of text as a code span that may stand in a table."""
    text = printable(text).replace("|", "\\|")
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text else ""


def _block(text: str) -> str:
    fence = "`" * max(_longest_run(text) + 1, 3)
    lines = [printable(line) for line in text.split("\n")]
    return "\n".join([f"{fence}text", *lines, fence]).replace(f"\n\n{fence}", f"\n{fence}")


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
