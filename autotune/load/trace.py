"""Traces of real traffic: when requests came, and how long they were. Reads the disk.

In: a JSONL or CSV file with a header. Out: `TraceRow`s in the order of their times, the first at 0.
Names that are understood (the first that a row has counts):
    time     timestamp_s, timestamp, Timestamp, TIMESTAMP: seconds, or a date with a time
             timestamp_ms: milliseconds; so is the `timestamp` of a row with `input_length` (Mooncake)
    prompt   input_tokens, input_length, ContextTokens, "Request tokens"   (Azure's and BurstGPT's names last)
    answer   output_tokens, output_length, GeneratedTokens, "Response tokens"
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from autotune.errors import ConfigError, Problem

_TIMES = ("timestamp_s", "timestamp", "Timestamp", "TIMESTAMP")
_PROMPTS = ("input_tokens", "input_length", "ContextTokens", "Request tokens")
_ANSWERS = ("output_tokens", "output_length", "GeneratedTokens", "Response tokens")
_REMEDY = (
    'A row is like {"timestamp_s": 1.25, "input_tokens": 900, "output_tokens": 80}; lengths may be left out.'
)


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace; lengths are None where the trace has none."""

    at_s: float
    input_tokens: int | None
    output_tokens: int | None


@lru_cache(maxsize=4)
def read_trace(path: Path) -> tuple[TraceRow, ...]:
    """Read a trace; a row without an answer (a request that failed then) is left out.

    Raises:
        ConfigError: the file cannot be read, has fewer than two requests, or a row is not understood.
    """
    rows = []
    for line, fields in _rows(path):
        try:
            rows.append(_row(fields))
        except (ValueError, TypeError) as error:
            raise ConfigError([Problem(str(error), path, line, remedy=_REMEDY)]) from error
    kept = sorted((row for row in rows if row.output_tokens != 0), key=lambda row: row.at_s)
    if len(kept) < 2 or kept[0].at_s == kept[-1].at_s:  # noqa: PLR2004 - one request has no rate
        raise ConfigError([Problem("a trace has two requests or more, at different times", path)])
    begin_s = kept[0].at_s
    return tuple(TraceRow(row.at_s - begin_s, row.input_tokens, row.output_tokens) for row in kept)


def trace_rate_rps(rows: tuple[TraceRow, ...]) -> float:
    """Return the mean rate of a trace, by its gaps."""
    return (len(rows) - 1) / rows[-1].at_s


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(f"the trace cannot be read: {error}", path)]) from error
    if text.lstrip().startswith("{"):
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, _object(path, number, line)
    else:
        yield from enumerate(csv.DictReader(text.splitlines()), start=2)


def _object(path: Path, number: int, line: str) -> Mapping[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError([Problem("is not a JSON object", path, number, remedy=_REMEDY)])
    return value


def _row(fields: Mapping[str, object]) -> TraceRow:
    return TraceRow(_time_s(fields), _tokens(fields, _PROMPTS, least=1), _tokens(fields, _ANSWERS, least=0))


def _time_s(fields: Mapping[str, object]) -> float:
    if "timestamp_ms" in fields:
        return float(str(fields["timestamp_ms"])) / 1e3
    name = next((name for name in _TIMES if name in fields), None)
    if name is None:
        raise ValueError("has no timestamp")
    text = str(fields[name]).strip()
    try:
        at_s = float(text)
    except ValueError:
        return _moment_s(text)
    return at_s / 1e3 if name == "timestamp" and "input_length" in fields else at_s


def _moment_s(text: str) -> float:
    """Return a date with a time as seconds; only differences of them are used."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither seconds nor a date with a time") from None
    return (moment - datetime(1970, 1, 1, tzinfo=moment.tzinfo)).total_seconds()


def _tokens(fields: Mapping[str, object], names: tuple[str, ...], *, least: int) -> int | None:
    name = next((name for name in names if fields.get(name) not in {None, ""}), None)
    if name is None:
        return None
    tokens = int(str(fields[name]))
    if tokens < least:
        raise ValueError(f"{name} is {tokens}, at least {least} was expected")
    return tokens
