"""A small client of an engine's control pages: health, information, cache and abort.

In: a base URL and the paths of a dialect. Out: plain data. The only importer of httpx outside load/.
Every call has a limit on how long it waits for the next byte; proxies of the environment are not used, since
engines are reached directly.
"""

import time
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx

from autotune.engine.dialect import Dialect, LiveFlag
from autotune.failure import LiveRefusedError

_BETWEEN_FLUSHES_S = 0.2
_WORDS = 200


class NoAnswerError(Exception):
    """The engine did not answer a control request, or not with what was asked."""


class EngineApi:
    """The control pages of one running engine."""

    def __init__(self, base_url: str, dialect: Dialect) -> None:
        self._dialect = dialect
        self._client = httpx.Client(base_url=base_url, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def is_healthy(self, deadline_s: float = 5.0) -> bool:
        """Whether the health page answers 200; SGLang generates a token for it, which takes a second."""
        try:
            response = self._client.get(self._dialect.health_path, timeout=deadline_s)
        except httpx.HTTPError:
            return False
        return response.status_code == HTTPStatus.OK

    def info(self, deadline_s: float = 10.0) -> dict[str, Any]:
        """Return the engine's page about itself.

        Raises:
            NoAnswerError: no answer, an error status, or no JSON object.
        """
        return self._object(self._dialect.info_path, deadline_s)

    def vocabulary_size(self, deadline_s: float = 10.0) -> int | None:
        """Return the size of the model's vocabulary, None if the engine does not tell.

        Raises:
            NoAnswerError: no answer, an error status, or no JSON object.
        """
        size = self._object(self._dialect.model_info_path, deadline_s).get("vocab_size")
        return size if isinstance(size, int) else self._probed_vocabulary_size(deadline_s)

    def _probed_vocabulary_size(self, deadline_s: float) -> int | None:
        probe = self._dialect.vocabulary_probe
        if probe is None:
            return None
        answer = self._send("POST", probe.path, deadline_s, probe.body)
        found = probe.size.search(answer.text)
        return int(found[1]) if found else None

    def flush_cache(self, patience_s: float = 10.0, deadline_s: float = 10.0) -> None:
        """Empty the prefix cache, retrying while the engine says that it is busy.

        Raises:
            NoAnswerError: no answer, or still busy after `patience_s`.
        """
        give_up_s = time.monotonic() + patience_s
        while True:
            response = self._send("POST", self._dialect.flush_path, deadline_s)
            if response.is_success:
                return
            if time.monotonic() >= give_up_s:
                text = response.text.strip()
                raise NoAnswerError(f"the cache could not be flushed: HTTP {response.status_code} {text}")
            time.sleep(_BETWEEN_FLUSHES_S)

    def abort_all(self, deadline_s: float = 5.0) -> None:
        """Drop every queued and running request.

        Raises:
            NoAnswerError: no answer.
        """
        self._send("POST", self._dialect.abort_path, deadline_s, {"abort_all": True})

    def set_live(self, flag: LiveFlag, value: int, deadline_s: float = 10.0) -> None:
        """Set a flag of the running engine, which must be idle, and read it back where it is told.

        Raises:
            LiveRefusedError: the engine did not do it, whatever its status said.
            NoAnswerError: no answer.
        """
        path, asked = flag.known.path, flag.body(value)
        answer = self._send("POST", path, deadline_s, asked)
        if not (answer.is_success and _is_done(answer)):
            text = answer.text.strip()[:_WORDS]
            raise LiveRefusedError(f"{path} answered HTTP {answer.status_code} {text} to {asked}")
        told = flag.told_by(self.info(deadline_s))
        if any(each != flag.part_of(value) for each in told):
            raise LiveRefusedError(f"{path} took {asked}, but {self._dialect.info_path} tells {told}")

    def _object(self, path: str, deadline_s: float) -> dict[str, Any]:
        response = self._send("GET", path, deadline_s)
        if not response.is_success:
            raise NoAnswerError(f"{path} answered HTTP {response.status_code}")
        try:
            body = response.json()
        except ValueError as error:
            raise NoAnswerError(f"{path} answered no JSON: {error}") from error
        if not isinstance(body, dict):
            raise NoAnswerError(f"{path} answered no JSON object")
        return body

    def _send(
        self, method: str, path: str, deadline_s: float, body: Mapping[str, object] | None = None
    ) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body, timeout=deadline_s)
        except httpx.HTTPError as error:
            raise NoAnswerError(f"{path} did not answer: {error!r}") from error


def _is_done(answer: httpx.Response) -> bool:
    """Whether every rank said true."""
    try:
        words = answer.json()
    except ValueError:
        return False
    return isinstance(words, list) and bool(words) and all(word is True for word in words)
