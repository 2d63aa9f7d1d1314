"""`autotune dashboard`: Optuna's dashboard on a study, our notes on its trials, raw files behind their links.

In: a study's folder. Out: web pages, until Ctrl-C. Talks HTTP, as a server, and reads the study's storage.
Invariants: nobody changes a study from a browser; only files under the study's `trials` are given away;
trials that end meanwhile get their notes, too.
"""

import json
import mimetypes
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from socketserver import ThreadingMixIn
from textwrap import fill
from threading import Lock
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from autotune.errors import InfrastructureError
from autotune.report.answer import answer_text, margin_text
from autotune.report.findings import (
    decision_of,
    differences,
    failure_kind,
    failure_line,
    objective_of,
    stop_lines,
    verdict_of,
)
from autotune.report.marks import SIMULATED
from autotune.report.units import duration, flag_list, metric_value
from autotune.search.confirmation import NumberedTrial
from autotune.search.dashboard import Application, NotedStudy
from autotune.search.ledger import HistoryReader
from autotune.search.study_history import StudyHistory

_RAW = "/raw/"
_TEXT_WIDTH = 100
_READING = ("GET", "HEAD")
_READ_ONLY = "autotune shows this study, it does not let it be changed here"


def serve_dashboard(folder: Path, *, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve until interrupted; `port` 0 is any that is free.

    Raises:
        ConfigError: optuna-dashboard is not installed.
        InfrastructureError: the port is taken.
        StudyError: there is no study, or its storage is damaged.
    """
    with closing(HistoryReader(folder)) as reader, closing(NotedStudy(folder)) as study:
        site = DashboardSite(folder, reader, study)
        try:
            server = make_server(host, port, site, server_class=_Server, handler_class=_Quiet)
        except OSError as error:
            raise InfrastructureError(
                f"{host}:{port} cannot be served: {error.strerror}\n    Take another port with --port."
            ) from error
        with server:
            tell(f"{reader.read().study.name}: http://{host}:{server.server_port}{study.path}")
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                tell("stopped")


class DashboardSite:
    """The WSGI application around Optuna's: read only, with raw files, and notes that keep up."""

    def __init__(self, folder: Path, reader: HistoryReader, study: NotedStudy) -> None:
        self._folder = folder
        self._reader = reader
        self._study = study
        self._optuna: Application = study.application()
        self._lock = Lock()
        self._noted = -1

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        path = str(environ.get("PATH_INFO", ""))
        if environ["REQUEST_METHOD"] not in _READING:
            return _answer(start_response, HTTPStatus.FORBIDDEN, json.dumps({"reason": _READ_ONLY}))
        if path.startswith(_RAW):
            return self._raw_file(path.removeprefix(_RAW), start_response)
        if path.startswith("/api/studies/"):
            self._note()
        return self._optuna(environ, start_response)

    def _note(self) -> None:
        """Attach what the finished trials say, if any has ended since."""
        with self._lock:
            history = self._reader.read()
            if (count := len(history.trials) + (history.answer is not None)) == self._noted:
                return
            notes = {trial.number: trial_note(history, trial) for trial in history.trials}
            self._study.save_notes(_fenced(_wrapped(answer_text(history))), notes)
            self._noted = count

    def _raw_file(self, name: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
        allowed = (self._folder / "trials").resolve()
        path = (self._folder / name).resolve()
        if not path.is_relative_to(allowed) or not path.is_file():
            return _answer(start_response, HTTPStatus.NOT_FOUND, json.dumps({"reason": "no such file"}))
        kind = "text/plain; charset=utf-8" if path.suffix == ".log" else mimetypes.guess_type(path.name)[0]
        start_response("200 OK", [("Content-Type", kind or "application/octet-stream")])
        return (path.read_bytes(),)


def trial_note(history: StudyHistory, trial: NumberedTrial) -> str:
    """Return what a trial says, as Markdown: its verdict, its failure with evidence, its raw files."""
    return "\n\n".join(_note_parts(history, trial))


def _note_parts(history: StudyHistory, trial: NumberedTrial) -> Iterator[str]:
    record = trial.record
    if record.is_simulated:
        yield f"**{SIMULATED}**"
    yield f"**{decision_of(history, trial) or failure_kind(record)}** ({record.role})"
    changed = differences(history, record.to_candidate())
    flags = [flag_list({name: value}) for name, value in changed.items()]
    yield "Against the baseline:\n\n" + _fenced("\n".join(flags) or "nothing differs")
    goals = history.study.slo.goals
    values = [(goal.quantity, objective_of(record, goals, index)) for index, goal in enumerate(goals)]
    lines = [f"{what}: {metric_value(what.metric, value)}" for what, value in values if value is not None]
    if record.measured_live_on is not None:
        lines.append(f"measured live on the engine of trial {record.measured_live_on}, not launched")
    lines += [fill(f"partial: {line}", _TEXT_WIDTH) for line in stop_lines(record)]
    verdict = verdict_of(history, trial)
    lines += [f"{margin_text(each)} ({each.decision})" for each in (verdict.ceilings if verdict else ())]
    lines += [f"{phase}: {duration(spent_s)}" for phase, spent_s in record.durations_s.items()]
    if lines:
        yield _fenced("\n".join(lines))
    if failure_line(record):
        tail = record.failure.log_tail if record.failure else ()
        yield "Evidence:\n\n" + _fenced("\n".join([failure_line(record), *(["", *tail] if tail else [])]))
    links = [f"- [{path.name}]({_RAW}{path.relative_to(history.folder)})" for path in _files(history, trial)]
    if links:
        yield "Raw files:\n\n" + "\n".join(links)


def _files(history: StudyHistory, trial: NumberedTrial) -> list[Path]:
    if trial.record.measured_live_on is not None:
        return [history.folder / point.file for point in trial.record.points]
    folder = history.folder / "trials" / f"{trial.number:04}"
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _wrapped(text: str) -> str:
    return "\n".join(fill(line, _TEXT_WIDTH) for line in text.splitlines())


def _fenced(text: str) -> str:
    """Return a text that Markdown shows as it is, whatever backticks are in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"


def _answer(start_response: Callable[..., Any], status: HTTPStatus, body: str) -> Iterable[bytes]:
    start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
    return (body.encode(),)


class _Server(ThreadingMixIn, WSGIServer):
    """Answers several requests at once: a browser asks for many."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    """Does not write a line for every request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Say nothing."""
