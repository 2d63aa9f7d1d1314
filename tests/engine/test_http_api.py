import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from autotune.engine.dialect import LiveFlag
from autotune.engine.http_api import EngineApi, NoAnswerError
from autotune.engine.sglang import SGLANG
from autotune.engine.sglang.flags import live_knowledge
from autotune.failure import LiveRefusedError

_BUSY = (400, b"Flush cache failed.")


@dataclass
class Script:
    """What a path answers, the last entry for ever; and what was asked."""

    answers: dict[str, list[tuple[int, bytes]]]
    asked: list[tuple[str, str, bytes]] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, bytes]:
        answers = self.answers.get(path, [(404, b"")])
        return answers.pop(0) if len(answers) > 1 else answers[0]


@contextmanager
def serving(script: Script) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            script.asked.append((self.command, self.path, body))
            status, content = script.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the base class calls it so

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def asking(script: Script) -> AbstractContextManager[EngineApi]:
    @contextmanager
    def opened() -> Iterator[EngineApi]:
        with serving(script) as url, EngineApi(url, SGLANG) as api:
            yield api

    return opened()


def test_only_a_200_is_healthy() -> None:
    with asking(Script({"/health": [(503, b""), (200, b"")]})) as api:
        assert not api.is_healthy()
        assert api.is_healthy()
    with EngineApi("http://127.0.0.1:1", SGLANG) as nowhere:
        assert not nowhere.is_healthy()


def test_the_information_page_is_given_as_it_is() -> None:
    with asking(Script({"/server_info": [(200, b'{"version": "0.5.23"}')]})) as api:
        assert api.info() == {"version": "0.5.23"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [((500, b""), "HTTP 500"), ((200, b"<html>"), "no JSON:"), ((200, b"[1]"), "no JSON object")],
)
def test_an_information_page_that_is_none_is_an_error(answer: tuple[int, bytes], words: str) -> None:
    with asking(Script({"/server_info": [answer]})) as api, pytest.raises(NoAnswerError, match=words):
        api.info()


@pytest.mark.parametrize(
    "call", [EngineApi.info, EngineApi.vocabulary_size, EngineApi.abort_all, EngineApi.flush_cache]
)
def test_a_server_that_is_gone_gives_no_answer(call: Callable[[EngineApi], object]) -> None:
    with EngineApi("http://127.0.0.1:1", SGLANG) as api, pytest.raises(NoAnswerError, match="did not answer"):
        call(api)


def test_a_vocabulary_that_the_engine_tells_is_believed() -> None:
    with asking(Script({"/model_info": [(200, b'{"vocab_size": 128256}')]})) as api:
        assert api.vocabulary_size() == 128256


def test_a_vocabulary_that_the_engine_does_not_tell_is_probed() -> None:
    refusal = b'{"error": {"message": "out-of-vocabulary token id -1; valid range is [0, 2048)."}}'
    script = Script({"/model_info": [(200, b"{}")], "/generate": [(400, refusal)]})
    with asking(script) as api:
        assert api.vocabulary_size() == 2048
    assert json.loads(script.asked[-1][2])["token_ids_logprob"] == [-1]


def test_a_vocabulary_that_nobody_tells_is_unknown() -> None:
    script = Script({"/model_info": [(200, b"{}")], "/generate": [(200, b'{"text": "hello"}')]})
    with asking(script) as api:
        assert api.vocabulary_size() is None
    with serving(script) as url, EngineApi(url, replace(SGLANG, vocabulary_probe=None)) as api:
        assert api.vocabulary_size() is None


def test_a_flush_is_repeated_while_the_engine_is_busy() -> None:
    script = Script({"/flush_cache": [_BUSY, _BUSY, (200, b"Cache flushed.")]})
    with asking(script) as api:
        api.flush_cache(patience_s=5)
    assert [path for _, path, _ in script.asked] == 3 * ["/flush_cache"]


def test_a_flush_that_stays_refused_is_given_up() -> None:
    with (
        asking(Script({"/flush_cache": [_BUSY]})) as api,
        pytest.raises(NoAnswerError, match="HTTP 400 Flush"),
    ):
        api.flush_cache(patience_s=0)


_LIVE = LiveFlag("max-running-requests", live_knowledge()["max-running-requests"], maximum=64, ranks=2)


def page(*limits: int) -> tuple[int, bytes]:
    states = [{"pp_max_micro_batch_size": limit} for limit in limits]
    return 200, json.dumps({"internal_states": states}).encode()


def test_a_limit_is_set_live_with_each_rank_told_its_part() -> None:
    script = Script({"/set_internal_state": [(200, b"[true, true]")], "/server_info": [page(8, 8)]})
    with asking(script) as api:
        api.set_live(_LIVE, 17)
    assert json.loads(script.asked[0][2]) == {"server_args": {"pp_max_micro_batch_size": 8}}


def test_a_limit_that_no_page_tells_is_taken_by_word() -> None:
    script = Script({"/set_internal_state": [(200, b"[true]")], "/server_info": [(200, b"{}")]})
    with asking(script) as api:
        api.set_live(_LIVE, 16)


@pytest.mark.parametrize(
    ("answer", "told", "words"),
    [
        ((200, b"[false]"), page(8), r"HTTP 200 \[false\] to .*pp_max"),
        ((200, b"[true, false]"), page(8, 8), "HTTP 200"),
        ((200, b"[]"), page(8), "HTTP 200"),
        ((200, b"true"), page(8), "HTTP 200 true"),
        ((200, b"<html>"), page(8), "HTTP 200 <html>"),
        ((404, b'{"detail": "Not Found"}'), page(8), "HTTP 404"),
        ((200, b"[true]"), page(32), r"but /server_info tells \[32\]"),
    ],
)
def test_a_limit_that_was_not_set_is_refused_whatever_the_status(
    answer: tuple[int, bytes], told: tuple[int, bytes], words: str
) -> None:
    script = Script({"/set_internal_state": [answer], "/server_info": [told]})
    with asking(script) as api, pytest.raises(LiveRefusedError, match=words):
        api.set_live(_LIVE, 16)


def test_abort_asks_for_all_requests() -> None:
    script = Script({"/abort_request": [(200, b"")]})
    with asking(script) as api:
        api.abort_all()
    assert script.asked == [("POST", "/abort_request", b'{"abort_all":true}')]


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with asking(Script({"/health": [(200, b"")]})) as api:
        assert api.is_healthy()
