from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotune.errors import StudyError
from autotune.load.answers import (
    ANSWER_TOKENS,
    MOST_PROMPT_TOKENS,
    PROMPTS,
    AnswerSheet,
    AnswerUnit,
    UnansweredError,
    ask,
    ask_into,
    fixed_prompts,
    read_sheet,
)
from autotune.load.workload import Workload
from tests.support.answering_server import Reply, answering, generated

WORKLOAD = Workload.model_validate({"input_tokens": 64, "output_tokens": 8, "seed": 3})


def asked(url: str, flush: Callable[[], None] = lambda: None) -> AnswerSheet:
    return ask(url, WORKLOAD, model="m", vocabulary_size=1000, flush=flush)


def echo(path: str, body: dict[str, Any]) -> Reply:
    """Answer with the end of the prompt, each token with its own log-probability."""
    if path != "/generate":
        return 404, {}
    ids = body["input_ids"][: body["sampling_params"]["max_new_tokens"]]
    return 200, generated(ids, [-id_ / 100 for id_ in ids])


def test_the_same_prompts_are_answered_one_at_a_time_and_all_at_once_with_an_empty_cache() -> None:
    flushes: list[int] = []
    seen: list[dict[str, Any]] = []

    def reply(path: str, body: dict[str, Any]) -> Reply:
        seen.append(body)
        return echo(path, body)

    with answering(reply) as url:
        sheet = asked(url, lambda: flushes.append(len(seen)))

    assert flushes == [1, 1 + PROMPTS]
    assert sheet.alone == sheet.together
    assert len({answer.tokens for answer in sheet.alone}) == PROMPTS
    assert sheet.path == "/generate"
    for answer in sheet.alone:
        assert answer.unit is AnswerUnit.IDS
        assert len(answer.tokens) == ANSWER_TOKENS
        assert answer.logprobs == tuple(-int(token) / 100 for token in answer.tokens)
    assert all(body["sampling_params"]["temperature"] == 0 for body in seen)
    assert all(body["return_logprob"] for body in seen)


def test_without_log_probabilities_token_ids_are_left() -> None:
    with answering(lambda *_: (200, generated([1, 2], None))) as url:
        answer = asked(url).alone[0]

    assert (answer.unit, answer.tokens, answer.logprobs) == (AnswerUnit.IDS, (1, 2), None)


def test_a_server_with_openais_interface_only_gives_the_texts_of_tokens() -> None:
    told = {"tokens": ["a", "b"], "token_logprobs": [-1.0, -2.0]}

    def reply(path: str, body: dict[str, Any]) -> Reply:
        assert body["logprobs"] == 1 if path != "/generate" else True
        return (404, {}) if path == "/generate" else (200, {"choices": [{"text": "ab", "logprobs": told}]})

    with answering(reply) as url:
        answer = asked(url).together[0]

    assert (answer.unit, answer.tokens, answer.logprobs) == (AnswerUnit.TEXTS, ("a", "b"), (-1.0, -2.0))


def test_a_strict_server_that_refuses_log_probabilities_is_compared_by_characters() -> None:
    def reply(path: str, body: dict[str, Any]) -> Reply:
        if path == "/generate" or "logprobs" in body:
            return (405 if path == "/generate" else 400), {}
        return 200, {"choices": [{"text": "hé"}]}

    with answering(reply) as url:
        answer = asked(url).alone[0]

    assert (answer.unit, answer.tokens, answer.logprobs) == (AnswerUnit.CHARACTERS, ("h", "é"), None)


def test_sglangs_text_is_compared_by_characters_if_it_gives_nothing_else() -> None:
    with answering(lambda *_: (200, {"text": "xy", "meta_info": {}})) as url:
        assert asked(url).alone[0].tokens == ("x", "y")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((404, {}), "/v1/completions answered HTTP 404"),
        ((500, {}), "/generate answered HTTP 500"),
        ((200, "no JSON"), "/generate answered something else than an answer"),
        ((200, {"choices": []}), "/generate answered something else than an answer"),
        ((200, generated([], None) | {"text": ""}), "/generate gave an empty answer"),
        ((0, ""), "/generate did not answer: RemoteProtocolError"),
    ],
)
def test_what_is_no_answer_is_named(reply: Reply, message: str) -> None:
    with answering(lambda *_: reply) as url, pytest.raises(UnansweredError) as caught:
        asked(url)

    assert str(caught.value) == message


def test_a_server_that_fails_later_is_named_too() -> None:
    count = iter(range(1000))

    def reply(path: str, body: dict[str, Any]) -> Reply:
        return echo(path, body) if next(count) < 5 else (503, {})

    with answering(reply) as url, pytest.raises(UnansweredError, match=r"/generate answered HTTP 503"):
        asked(url)


def test_the_prompts_are_the_workloads_own_and_the_long_ones_are_cut() -> None:
    lengths = {"uniform": [1000, 8000]}
    workload = Workload.model_validate(
        {
            "input_tokens": lengths,
            "output_tokens": 8,
            "shared_prefix": {"groups": 2, "tokens": 900},
        }
    )

    prompts = fixed_prompts(workload, vocabulary_size=1000)

    assert prompts == fixed_prompts(workload, vocabulary_size=1000)
    assert len(prompts) == PROMPTS
    assert max(len(prompt.token_ids or ()) for prompt in prompts) == MOST_PROMPT_TOKENS
    assert (prompts[0].token_ids or ())[:900] == (prompts[2].token_ids or ())[:900]


def test_texts_of_a_dataset_are_cut_by_characters(tmp_path: Path) -> None:
    dataset = tmp_path / "prompts.jsonl"
    dataset.write_text('{"prompt": "' + "word " * 5000 + '"}\n')
    workload = Workload.model_validate({"dataset": str(dataset), "output_tokens": 8, "endpoint": "chat"})
    seen: list[dict[str, Any]] = []

    def reply(_: str, body: dict[str, Any]) -> Reply:
        seen.append(body)
        return 200, generated([1], [-0.5])

    with answering(reply) as url:
        ask(url, workload, model="m", vocabulary_size=1000, flush=lambda: None)

    assert {len(body["text"]) for body in seen} == {MOST_PROMPT_TOKENS * 4}


def test_a_sheet_is_kept_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    with answering(echo) as url:
        digest = ask_into(path, url, WORKLOAD, model="m", vocabulary_size=1000, flush=lambda: None)
        sheet = asked(url)

    assert len(digest) == 64
    assert read_sheet(path) == sheet
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_sheet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text('{"path": ')

    with pytest.raises(StudyError, match=r"answers\.json: not a whole file of answers"):
        read_sheet(path)
