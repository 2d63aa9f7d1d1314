"""What an engine answers to fixed prompts, greedily: token by token, to set two launches side by side.

In: a base URL and the workload whose prompts are asked. Out: an `AnswerSheet`, and its raw file. Talks to one
server, to the disk in `write_sheet` and `read_sheet`. Invariant: every launch of a study is asked the same
prompts in the same two ways, one at a time and all at once, because an engine's arithmetic depends on what
else is in its batch; how much, only the same prompts asked in both ways can tell.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from autotune.document import Frozen
from autotune.errors import StudyError
from autotune.load.arrivals import LoadPoint
from autotune.load.workload import CHARACTERS_PER_TOKEN, Workload, offer, prompter
from autotune.request import Request

PROMPTS = 16
ANSWER_TOKENS = 32
MOST_PROMPT_TOKENS = 2048
"""Longer prompts of the workload are cut: 16 of them must cost seconds, not minutes."""
_SALT = 2**31
_REQUEST_LIMIT_S = 120.0
_UNKNOWN_HERE = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


class AnswerUnit(StrEnum):
    """What an answer is compared by: token ids, the texts of tokens, or single characters."""

    IDS = "token ids"
    TEXTS = "token texts"
    CHARACTERS = "characters"


class GivenAnswer(Frozen):
    """One answer; `logprobs`: the natural logarithm of each token's probability, None if not given."""

    unit: AnswerUnit
    tokens: tuple[int | str, ...]
    logprobs: tuple[float, ...] | None = None


class AnswerSheet(Frozen):
    """The answers of one launch: each of the same prompts, asked one at a time and all at once."""

    path: str
    alone: tuple[GivenAnswer, ...]
    together: tuple[GivenAnswer, ...]

    @property
    def passes(self) -> tuple[tuple[GivenAnswer, ...], ...]:
        """Both ways of asking."""
        return (self.alone, self.together)


class UnansweredError(Exception):
    """The server did not answer the prompts; the message says why, in a word for the reader."""


@dataclass(frozen=True)
class _Form:
    """One way of asking: where, with which body, and how the answer is read."""

    path: str
    body: Callable[[Request, str], dict[str, object]]
    read: Callable[[Mapping[str, Any]], GivenAnswer]


def ask(
    base_url: str,
    workload: Workload,
    *,
    model: str,
    vocabulary_size: int,
    flush: Callable[[], None],
    limit_s: float = _REQUEST_LIMIT_S,
) -> AnswerSheet:
    """Ask the fixed prompts of a workload, `PROMPTS` of them, `ANSWER_TOKENS` tokens each.

    SGLang's own endpoint is asked first, then OpenAI's with log-probabilities, then without. `flush` empties
    the prefix cache, before each of both passes. `limit_s`: the longest that one request may take.

    Raises:
        UnansweredError: no form of asking was understood, or a request failed.
    """
    prompts = fixed_prompts(workload, vocabulary_size=vocabulary_size)
    with httpx.Client(base_url=base_url, trust_env=False, timeout=min(limit_s, _REQUEST_LIMIT_S)) as client:

        def answer(form: _Form, prompt: Request) -> GivenAnswer:
            response = _post(client, form.path, form.body(prompt, model))
            if not response.is_success:
                raise UnansweredError(f"{form.path} answered HTTP {response.status_code}")
            return _read(form, response)

        form = _understood(client, prompts[0], model)
        flush()
        alone = tuple(answer(form, prompt) for prompt in prompts)
        flush()
        with ThreadPoolExecutor(len(prompts)) as threads:
            together = tuple(threads.map(lambda prompt: answer(form, prompt), prompts))
    return AnswerSheet(path=form.path, alone=alone, together=together)


def ask_into(
    path: Path,
    base_url: str,
    workload: Workload,
    *,
    model: str,
    vocabulary_size: int,
    flush: Callable[[], None],
    limit_s: float = _REQUEST_LIMIT_S,
) -> str:
    """Ask as `ask` does, keep the sheet in a file, and return the file's SHA-256.

    Raises:
        UnansweredError: as `ask`.
        OSError: as `write_sheet`.
    """
    sheet = ask(
        base_url, workload, model=model, vocabulary_size=vocabulary_size, flush=flush, limit_s=limit_s
    )
    return write_sheet(path, sheet)


def fixed_prompts(workload: Workload, *, vocabulary_size: int) -> tuple[Request, ...]:
    """Return the prompts that every launch of a study is asked: the workload's own, cut where too long."""
    offered = offer(workload, LoadPoint(concurrency=PROMPTS, requests=PROMPTS), salt=_SALT)
    add = prompter(offered, workload, vocabulary_size=vocabulary_size)
    return tuple(add(_cut(request)) for request in offered.requests)


def write_sheet(path: Path, sheet: AnswerSheet) -> str:
    """Write a sheet as JSON, whole or not at all, and return the SHA-256 of the file, in hex.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    content = sheet.model_dump_json().encode()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


def read_sheet(path: Path) -> AnswerSheet:
    """Read a sheet back.

    Raises:
        OSError: the file cannot be read.
        StudyError: the file is damaged.
    """
    try:
        return AnswerSheet.model_validate_json(path.read_bytes())
    except ValueError as error:
        line = str(error).splitlines()[0]
        raise StudyError(f"{path}: not a whole file of answers: {line}") from error


def _cut(request: Request) -> Request:
    tokens = min(request.input_tokens, MOST_PROMPT_TOKENS)
    text = None if request.text is None else request.text[: MOST_PROMPT_TOKENS * CHARACTERS_PER_TOKEN]
    prefix = min(request.prefix_tokens, tokens)
    return replace(request, input_tokens=tokens, prefix_tokens=prefix, text=text, after=None, due_s=None)


def _understood(client: httpx.Client, prompt: Request, model: str) -> _Form:
    """Return the first form of asking that the server understands."""
    refusal = ""
    for form in _FORMS:
        response = _post(client, form.path, form.body(prompt, model))
        if response.is_success:
            return form
        refusal = f"{form.path} answered HTTP {response.status_code}"
        if response.status_code not in _UNKNOWN_HERE:
            break
    raise UnansweredError(refusal)


def _post(client: httpx.Client, path: str, body: Mapping[str, object]) -> httpx.Response:
    try:
        return client.post(path, json=body)
    except httpx.HTTPError as error:
        raise UnansweredError(f"{path} did not answer: {type(error).__name__}") from error


def _read(form: _Form, response: httpx.Response) -> GivenAnswer:
    try:
        answer = form.read(response.json())
    except (ValueError, LookupError, TypeError) as error:
        raise UnansweredError(f"{form.path} answered something else than an answer") from error
    if not answer.tokens:
        raise UnansweredError(f"{form.path} gave an empty answer")
    return answer


def _generate_body(request: Request, _model: str) -> dict[str, object]:
    sampling = {"max_new_tokens": ANSWER_TOKENS, "temperature": 0, "ignore_eos": True}
    return {**_prompt(request, "input_ids", "text"), "sampling_params": sampling, "return_logprob": True}


def _completion_body(request: Request, model: str) -> dict[str, object]:
    asked = {"model": model, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    return {**asked, **_prompt(request, "prompt", "prompt")}


def _with_logprobs(request: Request, model: str) -> dict[str, object]:
    return {**_completion_body(request, model), "logprobs": 1}


def _prompt(request: Request, ids_key: str, text_key: str) -> dict[str, object]:
    return {ids_key: request.token_ids} if request.text is None else {text_key: request.text}


def _generated(answer: Mapping[str, Any]) -> GivenAnswer:
    """Read SGLang's answer: [log-probability, token id, text or null] for every token, if it gives them."""
    told: Sequence[Sequence[Any]] | None = answer["meta_info"].get("output_token_logprobs")
    if told:
        ids, logprobs = tuple(each[1] for each in told), tuple(float(each[0]) for each in told)
        return GivenAnswer(unit=AnswerUnit.IDS, tokens=ids, logprobs=logprobs)
    if answer.get("output_ids"):
        return GivenAnswer(unit=AnswerUnit.IDS, tokens=tuple(answer["output_ids"]))
    return _characters(answer["text"])


def _completed(answer: Mapping[str, Any]) -> GivenAnswer:
    choice = answer["choices"][0]
    told = choice.get("logprobs")
    if told and told.get("tokens"):
        logprobs = tuple(float(each) for each in told["token_logprobs"])
        return GivenAnswer(unit=AnswerUnit.TEXTS, tokens=tuple(told["tokens"]), logprobs=logprobs)
    return _characters(choice["text"])


def _characters(text: str) -> GivenAnswer:
    return GivenAnswer(unit=AnswerUnit.CHARACTERS, tokens=tuple(text))


_FORMS = (
    _Form("/generate", _generate_body, _generated),
    _Form("/v1/completions", _with_logprobs, _completed),
    _Form("/v1/completions", _completion_body, _completed),
)
