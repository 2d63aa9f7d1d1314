"""The JSON that SGLang 0.5.23 answers requests with, captured from a real server. Pure.

In: a ticket's numbers. Out: the objects of /generate, /v1/completions and /v1/chat/completions, whole or as
chunks, their usage, and their errors. Token counts are exact; ids and texts are made up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_WORD = "tok "
_KIND = {False: "text_completion", True: "chat.completion"}


@dataclass(frozen=True)
class Answer:
    """One request's answer so far: `new_tokens` of `tokens` are new in this chunk."""

    rid: str
    model: str
    created: int
    prompt_tokens: int
    cached_tokens: int
    tokens: int
    new_tokens: int
    vocabulary_size: int
    is_last: bool
    retractions: int = 0
    e2e_s: float = 0.0
    abort: str | None = None


def generate(answer: Answer, *, incremental: bool) -> dict[str, Any]:
    """Return a chunk of /generate, or the whole answer: cumulative unless `incremental`."""
    first = answer.tokens - answer.new_tokens if incremental else 0
    about: dict[str, Any] = {
        "id": answer.rid,
        "finish_reason": _finish_of_generate(answer),
        "prompt_tokens": answer.prompt_tokens,
        "weight_version": "default",
        "num_retractions": answer.retractions,
        "reasoning_tokens": 0,
        "completion_tokens": answer.tokens,
        "cached_tokens": answer.cached_tokens,
        "dp_rank": None,
    }
    if answer.is_last:
        about["e2e_latency"] = answer.e2e_s
    return {
        "text": _WORD * (answer.tokens - first),
        "output_ids": [_token(answer, index) for index in range(first, answer.tokens)],
        "meta_info": about,
    }


def whole(answer: Answer, *, is_chat: bool, reports_cache: bool) -> dict[str, Any]:
    """Return the answer of an OpenAI endpoint that does not stream."""
    text = _WORD * answer.tokens
    content = {"role": "assistant", "content": text, "reasoning_content": None}
    choice = {
        "index": 0,
        **({"message": content} if is_chat else {"text": text}),
        "logprobs": None,
        "finish_reason": "length",
        "matched_stop": None,
    }
    return {
        **_head(answer, _KIND[is_chat]),
        "choices": [choice],
        "usage": usage(answer, reports_cache=reports_cache),
        "metadata": {"weight_version": "default"},
    }


def chunk(answer: Answer, *, is_chat: bool, finish: str | None = None) -> dict[str, Any]:
    """Return one chunk of an OpenAI stream, without usage."""
    text = _WORD * answer.new_tokens
    delta: dict[str, Any] = {"reasoning_content": None}
    if answer.new_tokens:
        delta["content"] = text
    choice = {
        "index": 0,
        **({"delta": delta} if is_chat else {"text": text}),
        "logprobs": None,
        "finish_reason": finish,
        "matched_stop": None,
    }
    kind = "chat.completion.chunk" if is_chat else "text_completion"
    return {**_head(answer, kind), "choices": [choice]}


def chat_opening(answer: Answer) -> dict[str, Any]:
    """Return the chunk that names the role; it comes together with the first token."""
    opening = chunk(answer, is_chat=True)
    opening["choices"][0]["delta"] = {"reasoning_content": None, "role": "assistant", "content": ""}
    return opening


def usage_chunk(answer: Answer, *, is_chat: bool, reports_cache: bool) -> dict[str, Any]:
    """Return the last chunk of a stream with include_usage; it has no choices."""
    kind = "chat.completion.chunk" if is_chat else "text_completion"
    return {**_head(answer, kind), "choices": [], "usage": usage(answer, reports_cache=reports_cache)}


def usage(answer: Answer, *, reports_cache: bool) -> dict[str, Any]:
    """Return the counts; cached tokens are only told with --enable-cache-report."""
    details = {"cached_tokens": answer.cached_tokens} if reports_cache else None
    return {
        "prompt_tokens": answer.prompt_tokens,
        "total_tokens": answer.prompt_tokens + answer.tokens,
        "completion_tokens": answer.tokens,
        "prompt_tokens_details": details,
        "reasoning_tokens": 0,
        "completion_tokens_details": None,
    }


def aborted_generate(rid: str, message: str, status: int) -> dict[str, Any]:
    """Return the event of a /generate stream that was refused after HTTP 200."""
    finish = {"type": "abort", "status_code": status, "message": message}
    return {
        "text": "",
        "output_ids": [],
        "meta_info": {"id": rid, "finish_reason": finish, "completion_tokens": 0},
    }


def generate_error(message: str, status: int | None = None) -> dict[str, Any]:
    """Return /generate's own error: short in a body, with type and code in a stream."""
    error: dict[str, Any] = {"message": message}
    if status is not None:
        error |= {"type": "invalid_request_error", "code": status, "retryable": False}
    return {"error": error}


def openai_error(message: str, kind: str, status: int) -> dict[str, Any]:
    """Return the error object of the OpenAI endpoints and of a full queue."""
    return {"object": "error", "message": message, "type": kind, "param": None, "code": status}


def _head(answer: Answer, kind: str) -> Mapping[str, Any]:
    return {"id": answer.rid, "object": kind, "created": answer.created, "model": answer.model}


def _finish_of_generate(answer: Answer) -> dict[str, Any] | None:
    if answer.abort is not None:
        return {"type": "abort", "status_code": 500, "message": answer.abort}
    return {"type": "length", "length": answer.tokens} if answer.is_last else None


def _token(answer: Answer, index: int) -> int:
    return (answer.prompt_tokens * 31 + index * 7919) % answer.vocabulary_size
