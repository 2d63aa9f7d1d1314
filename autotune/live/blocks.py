"""The parts of the live page, each as lines of text. Pure.

In: a `Progress`, the rows and the cells that there are. Out: lines, at most so many as rows; no lines where
there is nothing to say. Invariant: text from outside carries no control characters.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from rich.cells import cell_len
from rich.text import Text

from autotune.live.chart import area_chart
from autotune.live.lines import COLOURS
from autotune.live.progress import Controller, Progress, RunningTrial
from autotune.record import TrialRecord
from autotune.report.answer import room_text
from autotune.report.findings import failure_line, failures_by_kind, verdict_of
from autotune.report.search_end import search_end_text
from autotune.report.units import (
    ceiling_value,
    duration,
    flag_value,
    metric_value,
    printable,
    signed_percent,
)
from autotune.search.confirmation import NumberedTrial
from autotune.slo import CeilingVerdict

_BAR_CELLS = 24
_LABEL_CELLS = 12
_BETWEEN_CELLS = 2
_LEAST_CELLS = 8
_MINUTE_S = 60.0
GONE = "The process that ran it is gone: the same tune command goes on from here."
_RUNNING_SHOWN = 3


def head_lines(progress: Progress) -> list[Text]:
    """Return the study's name, how far it is, and how long it still takes."""
    title = Text(style="bold")
    if progress.is_simulated:
        title.append(" SIMULATED ", style="bold white on magenta").append(" ")
    title.append(progress.history.study.name).append(f"  {progress.part}", style="cyan")
    lines = [title, Text("  ·  ".join(_counts(progress)))]
    if progress.controller is Controller.GONE:
        return [*lines, Text(GONE, style="red")]
    left = _left_text(progress)
    return [*lines, Text(left, style="green")] if left else lines


def running_lines(progress: Progress, rows: int, width: int) -> list[Text]:
    """Return for each trial that runs what it does and, where there is room, how much of it is done."""
    running = progress.running
    if len(running) > rows:
        shown = [_doing(progress, trial) for trial in running[: rows - 1]]
        hidden = f"and {len(running) - len(shown)} more that run" if shown else f"{len(running)} trials run"
        return [*shown, Text(hidden, style="dim")]
    lines: list[Text] = []
    for trial in running:
        lines.append(_doing(progress, trial))
        if len(running) * 2 <= rows:
            lines.append(_bar_line(progress, trial, width))
    return lines


def flag_lines(progress: Progress, rows: int, width: int) -> list[Text]:
    """Return the flags in which what runs, the best and the baseline differ, side by side."""
    columns = _columns(progress)
    if not any(is_running for _, _, is_running in columns):
        return []
    names = [
        name
        for name in progress.history.study.space.tune
        if len({_flag(record, name) for _, record, _ in columns}) > 1
    ]
    goal = progress.history.study.slo.goals[0]
    values = [_objective(progress, record) for _, record, _ in columns]
    table = [
        ["", *(title for title, _, _ in columns)],
        [str(goal.quantity.metric), *values],
        *([name, *(_flag(record, name) for _, record, _ in columns)] for name in names),
    ]
    lines = _aligned(table, width)
    lines[0].stylize("bold")
    hidden = len(lines) - rows
    if hidden > 0:
        lines = [*lines[: rows - 1], Text(f"and {hidden + 1} more flags that differ", style="dim")]
    return lines


def ceilings_title(progress: Progress) -> str:
    """Return whose ceilings are shown."""
    trial = progress.standing.incumbent
    if trial is None:
        return "ceilings"
    role = "the best so far" if progress.standing.meets(trial) else "the nearest so far"
    return f"ceilings of trial {trial.number}, {role}"


def ceiling_lines(progress: Progress, rows: int, width: int) -> list[Text]:
    """Return each ceiling with what was measured and the room that is left."""
    trial = progress.standing.incumbent
    verdict = None if trial is None else verdict_of(progress.history, trial)
    if verdict is None:
        return [Text(ceiling.text, style="dim") for ceiling in progress.history.study.slo.ceilings][:rows]
    judged = sorted(verdict.ceilings, key=lambda each: each.margin_ratio)
    table = [[each.ceiling, ceiling_value(each.ceiling, each.value), room_text(each)] for each in judged]
    lines = _aligned(table, width)
    for line, each in zip(lines, judged, strict=True):
        line.stylize(COLOURS[each.decision])
        if width - cell_len(line.plain) > _BAR_CELLS // 2:
            line.append("  ").append_text(_margin_bar(each, _BAR_CELLS // 2))
    return lines[:rows]


def best_title(progress: Progress) -> str:
    """Return what the chart shows."""
    return f"best {progress.history.study.slo.goals[0].quantity} so far"


def best_lines(progress: Progress, rows: int, width: int) -> list[Text]:
    """Return the best value so far, against the baseline's, and how it came about."""
    standing = progress.standing
    trial = standing.incumbent
    if trial is None or not standing.meets(trial):
        return [Text("nothing meets the SLO yet", style="yellow"), *_nearest(trial)][:rows]
    chart = area_chart(standing.best_by_launch, width=width - _LABEL_CELLS - 1, height=rows - 1)
    known = [value for value in standing.best_by_launch if value is not None]
    labels = [""] * len(chart)
    if chart:
        labels[-1] = _value(progress, min(known))
        labels[0] = _value(progress, max(known))
    lines = [_best_line(progress, trial)]
    for label, row in zip(labels, chart, strict=True):
        lines.append(Text(f"{label:>{_LABEL_CELLS}} ", style="dim").append(row.rstrip(), style="green"))
    return lines


def failure_lines(progress: Progress, rows: int, _width: int) -> list[Text]:
    """Return how many trials failed of which kind, and the decisive line of the last ones."""
    kinds = failures_by_kind(progress.history)
    if not kinds:
        return []
    counts = Text("  ·  ".join(f"{len(trials)} {kind}" for kind, trials in kinds.items()), style="red")
    newest = sorted((trials[-1] for trials in kinds.values()), key=lambda trial: -trial.number)
    lines = [_evidence(trial) for trial in newest if failure_line(trial.record)]
    return [counts, *lines][:rows]


def log_lines(progress: Progress, rows: int, _width: int) -> list[Text]:
    """Return the last lines of the log, the newest at the end."""
    return [line.copy() for line in progress.told[-rows:]] if rows else []


def _counts(progress: Progress) -> Iterator[str]:
    standing, budget = progress.standing, progress.budget
    of = f" of {budget.launches}" if budget and budget.launches else ""
    yield f"launches {standing.launches}{of}"
    if budget is not None:
        yield f"fresh launches {standing.confirmations} of {budget.confirmation_launches}"
    yield f"{duration(standing.spent_s)} spent"


def _left_text(progress: Progress) -> str:
    """Return how many launches and how much time are left, as far as that is known."""
    left, time_left_s = progress.launches_left, progress.time_left_s
    if progress.part in ("answered", "stopped") or (left is None and time_left_s is None):
        return ""
    parts = []
    if time_left_s is not None:
        time = _about(time_left_s) if progress.left_s is None else duration(time_left_s)
        parts.append(f"{time} left")
    if progress.history.search_end is not None:
        parts.append(search_end_text(progress.history.search_end))
    elif left is not None and progress.part != "confirmation":
        until = "" if progress.left_s is None else f" until {_moment(progress)}"
        parts.append(f"{left} more {'launch' if left == 1 else 'launches'}{until}, then the confirmation")
    return "  ·  ".join(parts)


def _moment(progress: Progress) -> str:
    """Return the deadline as a time of day, or as what it is where time is virtual."""
    if progress.is_simulated:
        return "the time is up"
    end = datetime.now().astimezone() + timedelta(seconds=progress.left_s or 0.0)
    return end.strftime("%H:%M")


def _doing(progress: Progress, trial: RunningTrial) -> Text:
    text = Text(f"trial {trial.number} ", style="bold").append(f"({trial.role}) ", style="dim")
    text.append(printable(trial.phase), style="cyan")
    expected_s = progress.standing.expected_phase_s(trial.phase)
    spent_s = trial.phase_s
    if expected_s is None and ":" not in trial.phase.partition("load")[0]:
        expected_s, spent_s = progress.standing.expected_stage_s(trial.stage), trial.stage_s
    of = "" if expected_s is None else f" of {_about(expected_s)}"
    return text.append(f"  {duration(spent_s)}{of}")


def _bar_line(progress: Progress, trial: RunningTrial, width: int) -> Text:
    """Return how much of the whole trial is done."""
    expected_s = progress.standing.trial_s
    if not expected_s:
        return Text(f"{duration(trial.trial_s)} since it began; no trial has ended yet", style="dim")
    cells = max(min(_BAR_CELLS, width - 34), 6)
    filled = round(cells * min(trial.trial_s / expected_s, 1.0))
    text = Text().append("━" * filled, style="cyan").append("─" * (cells - filled), style="dim")
    return text.append(f"  in all {duration(trial.trial_s)} of {_about(expected_s)}", style="dim")


def _about(seconds: float) -> str:
    """Return a time that is only expected, without digits that nobody knows."""
    if seconds < _MINUTE_S:
        return f"~{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / _MINUTE_S), 60)
    return f"~{hours} h {minutes} min" if hours else f"~{minutes} min"


def _columns(progress: Progress) -> list[tuple[str, RunningTrial | TrialRecord, bool]]:
    """Return what is compared: title, flags, whether it runs."""
    columns: list[tuple[str, RunningTrial | TrialRecord, bool]] = [
        (f"trial {trial.number}", trial, True) for trial in progress.running[:_RUNNING_SHOWN]
    ]
    best, baseline = progress.standing.incumbent, progress.standing.baseline
    if best is not None and best is not baseline:
        name = "best" if progress.standing.meets(best) else "nearest"
        columns.append((f"{name} ({best.number})", best.record, False))
    if baseline is not None:
        columns.append(("baseline", baseline.record, False))
    return columns


def _flag(trial: RunningTrial | TrialRecord, name: str) -> str:
    """Return a flag's value; where the candidate leaves it out, what the engine made of it."""
    if name in trial.candidate:
        return flag_value(trial.candidate[name])
    effective = trial.effective if isinstance(trial, TrialRecord) else None
    value = None if effective is None else effective.flags.get(name)
    return "default" if value is None else flag_value(value)


def _objective(progress: Progress, trial: RunningTrial | TrialRecord) -> str:
    values = trial.objectives if isinstance(trial, TrialRecord) else None
    return "..." if isinstance(trial, RunningTrial) else _value(progress, values[0] if values else None)


def _value(progress: Progress, value: float | None) -> str:
    return metric_value(progress.history.study.slo.goals[0].quantity.metric, value)


def _aligned(table: Sequence[Sequence[str]], width: int) -> list[Text]:
    """Return rows with their columns below each other; where they are too wide, the first gives way."""
    first, *others = (max(cell_len(cell) for cell in column) for column in zip(*table, strict=True))
    room = width - sum(others) - _BETWEEN_CELLS * len(others)
    widths = [max(min(first, room), _LEAST_CELLS), *others]
    return [_row(cells, widths) for cells in table]


def _row(cells: Sequence[str], widths: Sequence[int]) -> Text:
    line = Text()
    for cell, width in zip(cells, widths, strict=True):
        text = Text(cell)
        text.truncate(width, overflow="ellipsis", pad=True)
        line.append_text(text).append(" " * _BETWEEN_CELLS)
    line.rstrip()
    return line


def _margin_bar(judged: CeilingVerdict, cells: int) -> Text:
    """Return how much of the limit is used up."""
    used = max(0.0, min(1.0, 1.0 - judged.margin_ratio))
    filled = round(cells * used)
    bar = Text().append("█" * filled, style=COLOURS[judged.decision])
    return bar.append("─" * (cells - filled), style="dim")


def _nearest(trial: NumberedTrial | None) -> list[Text]:
    return [] if trial is None else [Text(f"the nearest is trial {trial.number}", style="dim")]


def _best_line(progress: Progress, trial: NumberedTrial) -> Text:
    standing = progress.standing
    value = trial.record.objectives[0] if trial.record.objectives else None
    text = Text().append(_value(progress, value), style="bold green").append(f"  trial {trial.number}")
    baseline = standing.baseline
    if baseline is None or trial.number == baseline.number:
        return text.append("  the baseline" if baseline else "")
    if not standing.meets(baseline):
        return text.append("  the baseline does not meet the SLO", style="dim")
    reference = baseline.record.objectives[0] if baseline.record.objectives else None
    if value and reference:
        ratio = value / reference - 1
        text.append(f"  {signed_percent(ratio)} against the baseline, not confirmed yet", style="dim")
    return text


def _evidence(trial: NumberedTrial) -> Text:
    return Text(f"trial {trial.number}: {printable(failure_line(trial.record).strip())}", style="dim")
