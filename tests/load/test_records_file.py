import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.errors import StudyError
from autotune.load.records_file import read_records, write_records
from autotune.request import (
    ClientHealth,
    LoadResult,
    RequestFailure,
    RequestFailureKind,
    RequestPhase,
    RequestRecord,
)

nanoseconds = st.integers(0, 10**13)
counts = st.integers(0, 10**6)
failures = st.builds(
    RequestFailure, st.sampled_from(RequestFailureKind), st.sampled_from(RequestPhase), st.text(max_size=30)
)


@st.composite
def records(draw: st.DrawFn) -> RequestRecord:
    gaps = draw(st.lists(st.tuples(nanoseconds, counts), max_size=6))
    return RequestRecord(
        index=draw(counts),
        scheduled_s=draw(nanoseconds) / 1e9,
        sent_s=draw(st.none() | nanoseconds.map(lambda time_ns: time_ns / 1e9)),
        ended_s=draw(nanoseconds) / 1e9,
        input_tokens=draw(counts),
        output_tokens=draw(counts),
        cached_tokens=draw(st.none() | counts),
        chunk_times_s=np.cumsum(np.array([gap for gap, _ in gaps], dtype=np.int64)) / 1e9,
        chunk_tokens=np.array([tokens for _, tokens in gaps], dtype=np.int64),
        failure=draw(st.none() | failures),
    )


finite = st.floats(0, 1e6)
results = st.builds(
    LoadResult,
    st.lists(records(), max_size=6).map(tuple),
    st.none() | st.builds(ClientHealth, finite, finite, counts),
)


def plain(result: LoadResult) -> object:
    return result.client, [
        (
            (r.index, r.scheduled_s, r.sent_s, r.ended_s, r.input_tokens, r.output_tokens, r.cached_tokens),
            (r.chunk_times_s.tolist(), r.chunk_tokens.tolist(), r.chunk_times_s.dtype, r.chunk_tokens.dtype),
            r.failure,
        )
        for r in result.records
    ]


def some_result(requests: int = 3, chunks: int = 4) -> LoadResult:
    times_s = np.cumsum(np.random.default_rng(0).exponential(0.02, size=(requests, chunks)), axis=1)
    return LoadResult(
        tuple(
            RequestRecord(n, 0.0, 0.1, 9.0, 1, chunks, 0, times_s[n], np.ones(chunks, dtype=np.int64))
            for n in range(requests)
        ),
        ClientHealth(0.001, 0.5, 3),
    )


@given(result=results)
def test_what_was_written_is_read_back_to_the_nanosecond(
    result: LoadResult, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.npz"
    write_records(path, result)
    assert plain(read_records(path)) == plain(result)


def test_the_hash_is_that_of_the_file_and_the_same_for_the_same_result(tmp_path: Path) -> None:
    one = write_records(tmp_path / "one.npz", some_result())
    assert one == hashlib.sha256((tmp_path / "one.npz").read_bytes()).hexdigest()
    assert one == write_records(tmp_path / "two.npz", some_result())


def test_the_file_is_smaller_than_its_times(tmp_path: Path) -> None:
    path = tmp_path / "big.npz"
    write_records(path, some_result(requests=50, chunks=256))
    assert path.stat().st_size < 50 * 256 * 8


def test_a_second_write_replaces_the_first_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "records.npz"
    write_records(path, some_result())
    write_records(path, some_result(requests=1))
    assert [file.name for file in tmp_path.iterdir()] == ["records.npz"]
    assert len(read_records(path).records) == 1


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.npz"
    before = write_records(path, some_result())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_records(path, some_result(requests=1))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [file.name for file in tmp_path.iterdir()] == ["records.npz"]


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_records(tmp_path / "none" / "records.npz", some_result())
    with pytest.raises(FileNotFoundError):
        read_records(tmp_path / "none.npz")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_half_a_file_is_damaged(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "records.npz"
    write_records(path, some_result())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(StudyError, match="not a whole file of request records"):
        read_records(path)


@pytest.mark.parametrize("form", [b'{"form": 99}', b"no json"])
def test_another_form_is_refused(tmp_path: Path, form: bytes) -> None:
    path = tmp_path / "records.npz"
    np.savez(path, about=np.frombuffer(form, dtype=np.uint8))
    with pytest.raises(StudyError, match="not a whole file"):
        read_records(path)
