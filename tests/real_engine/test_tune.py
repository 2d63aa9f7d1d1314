"""The main job on the real SGLang: `autotune tune` relaunches it per trial, loads it over HTTP, and answers.

What is asserted is what physics forces; no time is.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from autotune.document import to_yaml
from autotune.engine.process_tree import living, marked
from autotune.failure import FailureKind, StartPhase
from autotune.load.records_file import read_records
from autotune.record import Outcome, Role, TrialRecord
from autotune.search.answer import AnswerKind
from autotune.search.ledger import read_history
from autotune.search.study_history import StudyHistory
from autotune.space import SearchSpace
from autotune.study import owner_of
from tests.real_engine.cpu import SOCKET_VARIABLE
from tests.support.environment import without_coverage
from tests.support.ports import free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

_SLO = """
workload: {input_tokens: 192, output_tokens: 24, seed: 7}
load:
  - {concurrency: 16, requests: 64}
ceilings:
  - ttft mean < 60s at concurrency 16
  - error_ratio < 1% at concurrency 16
objective: maximise output_throughput at concurrency 16
"""
_GOOD = {
    "chunked-prefill-size": 2048,
    "max-running-requests": 16,
    "max-total-tokens": 40000,
    "context-length": 8192,
}
_TUNE = {
    "chunked-prefill-size": {"choices": [64, 2048]},
    "max-running-requests": {"choices": [1, 16]},
    "max-total-tokens": {"choices": [512, 40000]},
    # The model was made for 8192 tokens; the engine refuses more.
    "context-length": {
        "choices": [8192, 100000],
        "when": "chunked_prefill_size == 2048 and max_running_requests == 16 and max_total_tokens == 40000",
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture
def command(folder: Path, port: int, preloaded: Path, cpu_space: Callable[..., SearchSpace]) -> list[str]:
    environment = {SOCKET_VARIABLE: str(preloaded)}
    space = cpu_space(environment=environment, tune=_TUNE, baseline=_GOOD, port=port)
    (folder / "space.yaml").write_text(to_yaml(space))
    (folder / "slo.yaml").write_text(_SLO)
    program = "from autotune.cli import main; main()"
    return [
        sys.executable, "-c", program, "tune", str(folder / "space.yaml"), str(folder / "slo.yaml"),
        "--study", "real", "--runs", str(folder), "--sampler", "random",
        "--trials", "12", "--finalists", "1",
    ]  # fmt: skip


@pytest.fixture
def history(folder: Path, command: list[str]) -> Iterator[StudyHistory]:
    if not (folder / "real" / "report.html").exists():
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    yield read_history(folder / "real")
    assert _left_behind(folder / "real") == []


def _left_behind(study_folder: Path) -> list[psutil.Process]:
    owner = owner_of(study_folder.name, study_folder)
    return living(marked(lambda mark: mark.study == owner))


def _searched(history: StudyHistory) -> list[TrialRecord]:
    return [
        trial.record
        for trial in history.trials
        if trial.record.durations_s and trial.record.role is not Role.CONFIRMATION
    ]


def _throughput(history: StudyHistory, **flags: int) -> float:
    wanted = {name.replace("_", "-"): value for name, value in flags.items()}
    return next(
        record.objectives[0]
        for record in _searched(history)
        if record.objectives is not None and wanted.items() <= record.candidate.items()
    )


def test_every_trial_is_a_real_launch_with_its_flags_read_back(history: StudyHistory) -> None:
    records = [record for record in _searched(history) if record.outcome is Outcome.MEASURED]

    assert len(records) >= 6
    for record in records:
        assert not record.is_simulated
        assert record.effective is not None
        assert record.effective.version == "0.5.23"
        assert record.effective.kv_tokens == record.candidate["max-total-tokens"]
        chunk = record.candidate["chunked-prefill-size"]
        assert record.effective.flags["chunked-prefill-size"] == chunk
        assert record.effective.running_limit == record.candidate["max-running-requests"]


def test_one_request_at_a_time_cannot_beat_sixteen(history: StudyHistory) -> None:
    one = _throughput(history, max_running_requests=1, chunked_prefill_size=2048, max_total_tokens=40000)
    sixteen = _throughput(history, max_running_requests=16, chunked_prefill_size=2048, max_total_tokens=40000)

    assert one < sixteen


def test_a_pool_for_two_requests_cannot_beat_one_for_all(history: StudyHistory) -> None:
    small = _throughput(history, max_running_requests=16, chunked_prefill_size=2048, max_total_tokens=512)
    large = _throughput(history, max_running_requests=16, chunked_prefill_size=2048, max_total_tokens=40000)

    assert small < large


def test_the_launch_that_the_engine_refused_failed_with_its_kind_phase_and_line(
    history: StudyHistory,
) -> None:
    failure = next(record.failure for record in _searched(history) if record.failure is not None)

    assert failure.kind is FailureKind.BAD_ARGUMENT
    assert failure.phase is StartPhase.PROCESS
    assert "context_length (100000) is greater than the derived context_length (8192)" in failure.line
    assert failure.log_tail


def test_the_answer_was_confirmed_by_fresh_launches_and_is_not_a_restrictive_one(
    history: StudyHistory,
) -> None:
    confirmations = [
        each.record
        for each in history.trials
        if each.record.role is Role.CONFIRMATION and each.record.outcome is Outcome.MEASURED
    ]

    assert len(confirmations) == 4
    assert history.answer is not None
    assert history.answer.kind in (AnswerKind.IMPROVED, AnswerKind.KEEP_BASELINE)
    winner = next(each.record for each in history.trials if each.number == history.answer.winner)
    assert winner.candidate["max-running-requests"] == 16


def test_the_raw_records_hold_every_token(history: StudyHistory) -> None:
    for record in _searched(history):
        for point in record.points:
            raw = read_records(history.folder / point.file).records
            assert len(raw) == point.summary.sent
            assert all(each.output_tokens == 24 for each in raw)
            assert all(each.input_tokens == 192 for each in raw)
            assert all(each.chunk_tokens.sum() == 24 for each in raw)


def test_ctrl_c_leaves_no_server_and_no_port(folder: Path, command: list[str]) -> None:
    arguments = ["interrupted" if each == "real" else each for each in command]
    with subprocess.Popen(
        arguments,
        env=without_coverage(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if re.match(r"trial +0 ", line):
                os.killpg(process.pid, signal.SIGINT)
                break
        _, errors = process.communicate()

    assert process.returncode == 130, errors
    assert _left_behind(folder / "interrupted") == []
    assert read_history(folder / "interrupted").trials[0].record.role is Role.BASELINE


def test_a_killed_controllers_server_is_removed_by_the_next_one(folder: Path, command: list[str]) -> None:
    arguments = ["killed" if each == "real" else each for each in command]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if re.match(r"trial +0 ", line):
                break
        while not _left_behind(folder / "killed"):
            assert process.poll() is None
        process.kill()
    assert _left_behind(folder / "killed") != []
    arguments[arguments.index("12")] = "2"

    done = subprocess.run(arguments, check=False, capture_output=True, text=True)

    assert done.returncode in (0, 1), done.stderr
    assert "removed what an earlier run left behind" in done.stdout
    assert "run again: trial 1" in done.stdout
    assert _left_behind(folder / "killed") == []
    outcomes = [trial.record.outcome for trial in read_history(folder / "killed").trials]
    assert outcomes.count(Outcome.INTERRUPTED) == 1
