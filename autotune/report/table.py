"""All trials of a study as a table: one row a trial, one column a flag, an objective or a statistic.

In: a `StudyHistory`. Out: a pandas DataFrame in base units (seconds, tokens, ratios), a CSV file, or the same
columns as short texts. Talks to the disk in `write_csv` only.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.atomic import replace_bytes, replace_text
from autotune.errors import ConfigError
from autotune.metrics import Metric
from autotune.report.findings import decision_of, failure_kind, objective_of, stop_lines, verdict_of
from autotune.report.units import (
    ABSENT,
    duration,
    flag_value,
    metric_value,
    percent,
    printable,
    whole,
)
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from autotune.slo import CeilingVerdict, Objective
from autotune.space import FlagValue

if TYPE_CHECKING:
    import pandas as pd

_STATISTICS = (
    (Metric.TTFT, "p50"),
    (Metric.TTFT, "p95"),
    (Metric.ITL, "p99"),
    (Metric.TPOT, "p95"),
    (Metric.OUTPUT_THROUGHPUT, None),
    (Metric.ERROR_RATIO, None),
)
_UNITS = {Metric.OUTPUT_THROUGHPUT: "_tps", Metric.ERROR_RATIO: ""}


@dataclass(frozen=True)
class Column:
    """One column: its name, pandas' type, how a trial's value is found and how it is shown."""

    name: str
    kind: str
    read: Callable[[NumberedTrial], object]
    show: Callable[[Any], str]

    def text(self, trial: NumberedTrial) -> str:
        """Return the value of a trial as it is shown."""
        value = self.read(trial)
        return ABSENT if value is None else self.show(value)


def trials_frame(history: StudyHistory) -> "pd.DataFrame":
    """Return all trials in order of their numbers, also if there are none.

    Flags are columns named `--flag`; statistics are named as `ttft_p95_s at concurrency 50`.
    """
    import pandas as pd  # noqa: PLC0415 - no command needs it, and its import takes longer than a trial

    return pd.DataFrame(
        {
            column.name: pd.Series([column.read(trial) for trial in history.trials], dtype=column.kind)
            for column in columns(history)
        }
    )


def write_csv(history: StudyHistory, path: Path) -> None:
    """Write the table as CSV, all at once; what is not known is an empty field.

    Raises:
        InfrastructureError: the file cannot be written.
    """
    table = columns(history)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.name for column in table)
    writer.writerows([column.read(trial) for column in table] for trial in history.trials)
    replace_text(path, text.getvalue())


def write_parquet(history: StudyHistory, path: Path) -> None:
    """Write the table as Parquet; flags of mixed types become text.

    Raises:
        ConfigError: pyarrow is not installed.
        InfrastructureError: the file cannot be written.
    """
    frame = trials_frame(history)
    for name in (column.name for column in columns(history) if column.kind == "object"):
        if len({type(value) for value in frame[name] if value is not None}) > 1:
            frame[name] = [None if value is None else str(value) for value in frame[name]]
    try:
        content = frame.to_parquet(index=False)
    except ImportError:
        raise ConfigError("--parquet needs pyarrow: pip install 'autotune[parquet]'") from None
    replace_bytes(path, content)


def columns(history: StudyHistory) -> tuple[Column, ...]:
    """Return the columns of a study's table."""
    return (
        *_outcome_columns(),
        *_place_columns(history),
        *_judged_columns(history),
        *(_flag_column(name) for name in history.study.space.tune),
        *_engine_columns(),
        *(_objective_column(index, history.study.slo.goals) for index in range(len(history.study.slo.goals))),
        *_verdict_columns(history),
        *(
            _statistic_column(point.label, metric, statistic)
            for point in history.study.slo.load
            for metric, statistic in _STATISTICS
        ),
        *(_phase_column(phase) for phase in _phases(history)),
    )


def _outcome_columns() -> tuple[Column, ...]:
    return (
        Column("number", "int64", lambda trial: trial.number, str),
        Column("role", "str", lambda trial: trial.record.role.value, str),
        Column("outcome", "str", lambda trial: trial.record.outcome.value, str),
        Column("failure", "str", lambda trial: failure_kind(trial.record), printable),
        Column("confirms", "Int64", lambda trial: trial.record.confirms, str),
        Column("same_as", "Int64", lambda trial: trial.record.same_as, str),
        Column("measured_live_on", "Int64", lambda trial: trial.record.measured_live_on, str),
        Column("is_simulated", "bool", lambda trial: trial.record.is_simulated, flag_value),
    )


def _place_columns(history: StudyHistory) -> tuple[Column, ...]:
    """Return where a trial ran, of a study on several slots."""
    if len(history.study.space.slots) == 1:
        return ()
    return (Column("nodes", "str", lambda trial: " ".join(trial.record.nodes) or None, printable),)


def _judged_columns(history: StudyHistory) -> tuple[Column, ...]:
    """Return under which file a study is judged again, and why a launch is not."""
    again = history.judged_again
    if again is None:
        return ()
    why = {number: reason for reason, numbers in again.not_judged.items() for number in numbers}
    return (
        Column("judged_again_under", "str", lambda _: str(again.file), printable),
        Column("not_judged_because", "str", lambda trial: why.get(trial.number), printable),
    )


def _flag_column(name: str) -> Column:
    def read(trial: NumberedTrial) -> FlagValue | None:
        value = trial.record.candidate.get(name)
        return flag_value(value) if isinstance(value, tuple) else value

    return Column(f"--{name}", "object", read, flag_value)


def _engine_columns() -> tuple[Column, ...]:
    def read(trial: NumberedTrial, name: str) -> object:
        return None if trial.record.effective is None else getattr(trial.record.effective, name)

    return (
        Column("kv_tokens", "Int64", partial(read, name="kv_tokens"), whole),
        Column("running_limit", "Int64", partial(read, name="running_limit"), whole),
        Column("engine_version", "str", partial(read, name="version"), printable),
    )


def _objective_column(index: int, goals: Sequence[Objective]) -> Column:
    def read(trial: NumberedTrial) -> float | None:
        return objective_of(trial.record, goals, index)

    return Column(goals[index].text, "float64", read, partial(metric_value, goals[index].quantity.metric))


def _verdict_columns(history: StudyHistory) -> tuple[Column, ...]:
    def binding(trial: NumberedTrial) -> CeilingVerdict | None:
        verdict = verdict_of(history, trial)
        return verdict.binding if verdict else None

    def ceiling(trial: NumberedTrial) -> str | None:
        found = binding(trial)
        return found.ceiling if found else None

    def margin_ratio(trial: NumberedTrial) -> float | None:
        found = binding(trial)
        return found.margin_ratio if found else None

    return (
        Column("verdict", "str", partial(decision_of, history), str),
        Column("binding_ceiling", "str", ceiling, str),
        Column("margin_ratio", "float64", margin_ratio, percent),
        Column("stopped", "str", lambda trial: "; ".join(stop_lines(trial.record)) or None, printable),
    )


def _statistic_column(load: str, metric: Metric, statistic: str | None) -> Column:
    def read(trial: NumberedTrial) -> float | None:
        point = trial.record.whole_point(load)
        return None if point is None else point.summary.value(metric, statistic)

    name = f"{metric}{'' if statistic is None else f'_{statistic}'}{_UNITS.get(metric, '_s')} at {load}"
    return Column(name, "float64", read, partial(metric_value, metric))


def _phase_column(phase: str) -> Column:
    def read(trial: NumberedTrial) -> float | None:
        return trial.record.durations_s.get(phase)

    return Column(f"{phase}_duration_s", "float64", read, duration)


def _phases(history: StudyHistory) -> tuple[str, ...]:
    """Return every phase that took time in any trial, in the order in which they first appeared."""
    return tuple(dict.fromkeys(phase for trial in history.trials for phase in trial.record.durations_s))
