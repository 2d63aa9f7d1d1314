"""A load point of an earlier launch, measured again from its raw file, for whatever SLO.

In: a `PointRecord` and the study's folder. Out: its `Measurement` with what is known of it under another SLO,
or a `LostRecordsError` that says why not. Reads the disk. Invariant: the file is the recorded one (its hash),
and gives the recorded numbers again.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

from autotune.errors import StudyError
from autotune.load.arrivals import LoadPoint
from autotune.load.records_file import read_records
from autotune.metrics import Measurement, PointSummary, join, measure
from autotune.record import AnswersRecord, PointRecord
from autotune.request import RequestRecord, due_order
from autotune.slo import EarlyJudge, Slo, Stop

_ROUNDING_S = 1e-6
"""Raw times are whole nanoseconds."""
_EDGE = 1e-3
"""Rounding may move a token over the edge of a window, of the thousands in it."""


class LostRecordsError(Exception):
    """A raw file cannot be used; the message says why."""


@dataclass(frozen=True)
class Remeasured:
    """A load point under another SLO; `doubt`: why what there is of it decides nothing, None if it does."""

    measurement: Measurement
    record: PointRecord
    doubt: str | None = None


def remeasure(slo: Slo, point: LoadPoint, kept: PointRecord, folder: Path) -> Remeasured:
    """Measure a recorded load point again.

    One that was stopped while it ran is looked at as it was then: only what would have stopped it under this
    SLO, too, is decided.

    Raises:
        LostRecordsError: its raw file is not there, not the recorded one, or gives other numbers.
    """
    records = _recorded(kept, folder)
    stop = kept.stopped
    if stop is None:
        measurement = _joined(records, point)
    else:
        records = sorted(records, key=due_order)
        measurement = measure(records[: stop.requests], concurrency=point.concurrency)
    if not _gives(measurement, kept.summary):
        raise LostRecordsError(f"the raw records of {kept.load} do not give the recorded numbers again")
    doubt = None
    if stop is not None and (again := _stopped_again(slo, point, stop, records)) is not None:
        stop, measurement = again, measure(records[: again.requests], concurrency=point.concurrency)
    elif stop is not None:
        doubt = f"{kept.load} was stopped early under the study's own SLO, and what there is decides nothing"
    return Remeasured(measurement, _record(kept, slo, measurement, stop), doubt)


def found_answers(answers: AnswersRecord | None, folder: Path) -> AnswersRecord | None:
    """Return the record of answers, with the reason why there are none if their file cannot be used."""
    if answers is None or answers.file is None:
        return answers
    try:
        _content(folder / answers.file, answers.sha256 or "", "answers")
    except LostRecordsError as error:
        return AnswersRecord(reason=str(error))
    return answers


def _recorded(kept: PointRecord, folder: Path) -> Sequence[RequestRecord]:
    path, what = folder / kept.file, f"raw records of {kept.load}"
    _content(path, kept.sha256, what)
    try:
        return read_records(path).records
    except StudyError as error:
        raise LostRecordsError(f"the {what} are damaged") from error


def _content(path: Path, sha256: str, what: str) -> None:
    """Check that a file is there, and the recorded one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise LostRecordsError(f"the {what} are not there") from None
    except OSError as error:
        raise LostRecordsError(f"the {what} cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise LostRecordsError(f"the {what} are not the recorded ones: their SHA-256 differs")


def _joined(records: Sequence[RequestRecord], point: LoadPoint) -> Measurement:
    """Return one measurement of all looks, which lie one after the other in the file."""
    looks = [measure(look, concurrency=point.concurrency) for look in _looks(records, point)]
    return reduce(join, looks) if looks else measure((), concurrency=point.concurrency)


def _looks(records: Sequence[RequestRecord], point: LoadPoint) -> Iterator[list[RequestRecord]]:
    """Yield the requests of every look as they were before `metrics.join` put them in a row."""
    begin_s, look = 0.0, list[RequestRecord]()
    for record in sorted(records, key=lambda each: each.index):
        if _is_of_next_look(record, look, begin_s, point):
            yield _moved(look, begin_s)
            begin_s, look = max(each.ended_s for each in look), []
        look.append(record)
    if look:
        yield _moved(look, begin_s)


def _is_of_next_look(
    record: RequestRecord, look: Sequence[RequestRecord], begin_s: float, point: LoadPoint
) -> bool:
    """Whether a look was complete before this request: by count, or by the time when its last is sent."""
    if point.requests is not None:
        return len(look) == point.requests
    last_s = point.duration_s or 0.0
    if point.rate is not None:
        last_s = (point.due_within(last_s) - 1) / point.mean_rate_rps
    return bool(look) and record.scheduled_s - begin_s > last_s + _ROUNDING_S


def _moved(look: Sequence[RequestRecord], begin_s: float) -> list[RequestRecord]:
    """Return a look's requests with times since it began."""
    return [
        replace(
            record,
            scheduled_s=record.scheduled_s - begin_s,
            sent_s=None if record.sent_s is None else record.sent_s - begin_s,
            ended_s=record.ended_s - begin_s,
            chunk_times_s=record.chunk_times_s - begin_s,
        )
        for record in look
    ]


def _gives(measurement: Measurement, recorded: PointSummary) -> bool:
    again = measurement.summary()
    return (
        (again.sent, again.succeeded) == (recorded.sent, recorded.succeeded)
        and math.isclose(again.window_s, recorded.window_s, abs_tol=_ROUNDING_S)
        and math.isclose(again.output_throughput_tps, recorded.output_throughput_tps, rel_tol=_EDGE)
    )


def _stopped_again(slo: Slo, point: LoadPoint, stop: Stop, records: Sequence[RequestRecord]) -> Stop | None:
    """Return what would have stopped the load under this SLO by then, None if nothing would."""
    judge = EarlyJudge(slo, point, planned=stop.planned)
    while (count := judge.next_look) is not None and count <= stop.requests:
        judge.is_decided(records[:count])
    return judge.stop


def _record(kept: PointRecord, slo: Slo, measurement: Measurement, stop: Stop | None) -> PointRecord:
    return kept.model_copy(
        update={
            "summary": measurement.summary(),
            "goodput_rps": measurement.goodput_rps(slo.request_limits_s(kept.load)),
            "stopped": stop,
        }
    )
