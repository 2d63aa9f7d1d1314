"""Raw records in a file: compact, exact to the nanosecond, never half written.

In: a `LoadResult`. Out: a `.npz` of plain arrays (times as whole nanoseconds, chunk times as gaps within
their request) and its hash; and back. Talks to the disk.
Invariant: reading what was written gives the same result, times rounded to 1 ns; equal results give
equal bytes.
"""

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autotune.errors import StudyError
from autotune.request import (
    ClientHealth,
    LoadResult,
    RequestFailure,
    RequestFailureKind,
    RequestPhase,
    RequestRecord,
)

Integers: TypeAlias = NDArray[np.int64]

_FORM = 1
_NEVER_NS = np.iinfo(np.int64).min
_NOT_TOLD = -1
_FASTEST_COMPRESSION = 1
_NS = 1_000_000_000


def write_records(path: Path, result: LoadResult) -> str:
    """Write a result and return the SHA-256 of the file, in hex.

    The file appears under its name whole or not at all: it is written under another name beside it, synced
    and renamed.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    content = _archived(_columns(result))
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return hashlib.sha256(content).hexdigest()


def read_records(path: Path) -> LoadResult:
    """Read a result back.

    Raises:
        OSError: the file cannot be read.
        StudyError: the file is damaged or of another form.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in archive.files}
        return _result(columns)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        raise StudyError(f"{path}: not a whole file of request records: {error}") from error


def _columns(result: LoadResult) -> dict[str, NDArray[np.generic]]:
    records = result.records
    about = {
        "form": _FORM,
        "client": None if result.client is None else asdict(result.client),
        "failures": {
            position: [record.failure.kind, record.failure.phase, record.failure.message]
            for position, record in enumerate(records)
            if record.failure is not None
        },
    }
    return {
        "about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
        "index": _whole([record.index for record in records]),
        "scheduled_ns": _to_ns([record.scheduled_s for record in records]),
        "sent_ns": _sent_ns([record.sent_s for record in records]),
        "ended_ns": _to_ns([record.ended_s for record in records]),
        "input_tokens": _whole([record.input_tokens for record in records]),
        "output_tokens": _whole([record.output_tokens for record in records]),
        "cached_tokens": _whole(
            [_NOT_TOLD if record.cached_tokens is None else record.cached_tokens for record in records]
        ),
        "chunks": _whole([len(record.chunk_times_s) for record in records]),
        "chunk_gaps_ns": _gaps_ns(records),
        "chunk_tokens": _joined([record.chunk_tokens for record in records]),
    }


def _result(columns: Mapping[str, NDArray[np.int64]]) -> LoadResult:
    about = json.loads(columns["about"].tobytes())
    if about["form"] != _FORM:
        raise ValueError(f"form {about['form']} is not {_FORM}")
    failures = {int(position): _failure(*parts) for position, parts in about["failures"].items()}
    ends = np.cumsum(columns["chunks"])[:-1]
    gaps_ns = np.split(columns["chunk_gaps_ns"], ends)
    tokens = np.split(columns["chunk_tokens"], ends)
    records = tuple(
        RequestRecord(
            index=int(columns["index"][position]),
            scheduled_s=_to_s(columns["scheduled_ns"][position]),
            sent_s=_sent_s(columns["sent_ns"][position]),
            ended_s=_to_s(columns["ended_ns"][position]),
            input_tokens=int(columns["input_tokens"][position]),
            output_tokens=int(columns["output_tokens"][position]),
            cached_tokens=_told(columns["cached_tokens"][position]),
            chunk_times_s=np.cumsum(gaps_ns[position]) / _NS,
            chunk_tokens=tokens[position],
            failure=failures.get(position),
        )
        for position in range(len(columns["index"]))
    )
    return LoadResult(records, None if about["client"] is None else ClientHealth(**about["client"]))


def _archived(columns: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return the bytes of an uncommonly fast .npz: numpy's own writer knows only zlib's default level."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, column in columns.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, column, allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy"),
                member.getvalue(),
                compress_type=zipfile.ZIP_DEFLATED,
                compresslevel=_FASTEST_COMPRESSION,
            )
    return file.getvalue()


def _failure(kind: str, phase: str, message: str) -> RequestFailure:
    return RequestFailure(RequestFailureKind(kind), RequestPhase(phase), message)


def _to_ns(times_s: Sequence[float] | NDArray[np.float64]) -> Integers:
    return np.rint(np.asarray(times_s, dtype=np.float64) * _NS).astype(np.int64)


def _sent_ns(times_s: Sequence[float | None]) -> Integers:
    return np.where([each is None for each in times_s], _NEVER_NS, _to_ns([each or 0.0 for each in times_s]))


def _gaps_ns(records: Sequence[RequestRecord]) -> Integers:
    """Return every record's first chunk time and the gaps after it, one record after the other."""
    times_s = np.concatenate([np.empty(0), *(record.chunk_times_s for record in records)])
    times_ns = _to_ns(times_s)
    counts = np.array([len(record.chunk_times_s) for record in records], dtype=np.int64)
    firsts = (np.cumsum(counts) - counts)[counts > 0]
    gaps_ns: Integers = np.diff(times_ns, prepend=0)
    gaps_ns[firsts] = times_ns[firsts]
    return gaps_ns


def _to_s(time_ns: np.int64) -> float:
    return int(time_ns) / _NS


def _sent_s(time_ns: np.int64) -> float | None:
    return None if time_ns == _NEVER_NS else _to_s(time_ns)


def _told(tokens: np.int64) -> int | None:
    return None if tokens == _NOT_TOLD else int(tokens)


def _whole(values: list[int]) -> Integers:
    return np.array(values, dtype=np.int64)


def _joined(columns: list[Integers]) -> Integers:
    return np.concatenate([_whole([]), *columns])


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
