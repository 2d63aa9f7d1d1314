"""The three HTTP endpoints: the body of a request, and what one streamed event says. Pure.

In: a `Request` and the workload; or the data of an event. Out: JSON bytes; or a `Progress`, and the `Tally`
of all of them. Sources: SGLang 0.5.23, srt/entrypoints/http_server.py and srt/entrypoints/openai/.
Invariant: tokens are what the server's usage says; the number of chunks is never a number of tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic_core import from_json, to_json

from autotune.load.failure import StreamError, shown
from autotune.load.workload import Wire, Workload
from autotune.request import Request, RequestFailureKind

_PATHS: Mapping[Wire, str] = {
    Wire.GENERATE: "/generate",
    Wire.COMPLETIONS: "/v1/completions",
    Wire.CHAT: "/v1/chat/completions",
}
_DONE = b"[DONE]"
_ROLES = ("user", "assistant")
_OPENAI: Mapping[str, object] = {"stream_options": {"include_usage": True}}
# SGLang and vLLM take these; a strict server refuses a request with a key that it does not know.
_BEYOND_OPENAI: Mapping[str, object] = {
    "ignore_eos": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
}


class Progress(NamedTuple):
    """What one event says. Counts are totals so far, None where the event has none.

    A named tuple, because one is made for every token.
    """

    output_tokens: int | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    has_text: bool = False
    finish: str | None = None
    is_done: bool = False


@dataclass(slots=True)
class Tally:
    """The totals of one stream so far."""

    output_tokens: int = 0
    input_tokens: int | None = None
    cached_tokens: int | None = None
    finish: str | None = None
    is_done: bool = False
    is_counted: bool = False

    def add(self, progress: Progress) -> int:
        """Take an event in and return how many output tokens are new in it.

        Raises:
            StreamError: PROTOCOL, the total went down.
        """
        output_tokens, input_tokens, cached_tokens, _, finish, is_done = progress
        if input_tokens is not None:
            self.input_tokens = input_tokens
        if cached_tokens is not None:
            self.cached_tokens = cached_tokens
        if finish is not None:
            self.finish = finish
        if is_done:
            self.is_done = True
        if output_tokens is None:
            return 0
        return self._raise_to(output_tokens)

    def _raise_to(self, total: int) -> int:
        new = total - self.output_tokens
        if new < 0:
            raise StreamError(
                RequestFailureKind.PROTOCOL,
                f"the count of output tokens went down from {self.output_tokens} to {total}",
            )
        self.output_tokens = total
        self.is_counted = True
        return new

    def check_end(self, asked_tokens: int, *, ignore_eos: bool) -> None:
        """Judge a stream that has ended.

        Fewer tokens than asked under `ignore_eos` are a PROTOCOL failure and not ABORTED: the server says
        that it finished, but did not do what the request said (a context limit, or `ignore_eos` unknown to
        it), and the latency of a shorter answer compares with nothing.

        Raises:
            StreamError: CUT_STREAM without an end mark; PROTOCOL without tokens or with too few.
        """
        if not self.is_done and self.finish is None:
            raise StreamError(
                RequestFailureKind.CUT_STREAM,
                f"the stream ended after {self.output_tokens} tokens without [DONE] or a finish reason",
            )
        if not self.is_counted:
            raise StreamError(RequestFailureKind.PROTOCOL, "the server never sent a count of tokens (usage)")
        if self.output_tokens == 0 or (ignore_eos and self.output_tokens < asked_tokens):
            raise StreamError(
                RequestFailureKind.PROTOCOL,
                f"{asked_tokens} output tokens were asked and {self.output_tokens} came "
                f"(finish reason: {self.finish})",
            )


def path_of(wire: Wire) -> str:
    """Return the URL path of an endpoint."""
    return _PATHS[wire]


def body_of(request: Request, workload: Workload, model: str) -> bytes:
    """Return the JSON body that asks for one streamed, greedy answer with counts of tokens in every chunk.

    Raises:
        ValueError: the request has no prompt that this endpoint takes.
    """
    if workload.endpoint is Wire.GENERATE:
        body = _generate_body(request, ignore_eos=workload.ignore_eos)
    else:
        body = _openai_body(request, workload, model)
    return to_json(body)


def read_event(wire: Wire, data: bytes) -> Progress:
    """Return what an event says.

    Raises:
        StreamError: IN_STREAM_ERROR, the event is an error under HTTP status 200; ABORTED, the engine gave
            the request up; PROTOCOL, the event is not what this endpoint sends.
    """
    if not data.startswith(b"{") and data.strip() == _DONE:
        return Progress(is_done=True)
    return progress_of(wire, _parsed(data))


def parsed_list(objects: bytes, count: int) -> list[dict[str, object]] | None:
    """Return the elements of a JSON list; None if they are not `count` objects."""
    try:
        events: list[dict[str, object]] = from_json(objects)
    except ValueError:
        return None
    return events if len(events) == count and all(type(event) is dict for event in events) else None


def plain_totals(wire: Wire, events: Sequence[Mapping[str, object]], above: int) -> list[int] | None:
    """Return the total of output tokens after each event if they say nothing else that changes.

    None if one is an error or the end, brings no token beyond those `above` which it stands, or differs from
    the others in its counts of the prompt: then they are to be taken one by one.
    """
    counts_of = _generate_counts if wire is Wire.GENERATE else _openai_counts
    totals: list[int] = []
    same: tuple[object, object] | None = None
    for event in events:
        total, prompt = counts_of(event)
        if type(total) is not int or total <= above or prompt != (same or prompt):
            return None
        if "error" in event or event.get("object") == "error":
            return None
        totals.append(total)
        above, same = total, prompt
    return totals


def progress_of(wire: Wire, event: Mapping[str, object]) -> Progress:
    """Return what a parsed event says.

    Raises:
        StreamError: as `read_event`.
    """
    if "error" in event or event.get("object") == "error":
        _check_error(event)
    progress = _generate_progress(event) if wire is Wire.GENERATE else _openai_progress(event)
    if progress.finish == "abort":
        raise StreamError(RequestFailureKind.ABORTED, _abort_message(event))
    return progress


def _generate_body(request: Request, *, ignore_eos: bool) -> dict[str, object]:
    sampling = {"max_new_tokens": request.output_tokens, "temperature": 0, "ignore_eos": ignore_eos}
    prompt = {"text": request.text} if request.text is not None else {"input_ids": _ids(request)}
    return {**prompt, "sampling_params": sampling, "stream": True}


def _openai_body(request: Request, workload: Workload, model: str) -> dict[str, object]:
    return {
        "model": model,
        **_openai_prompt(request, workload.endpoint),
        "max_tokens": request.output_tokens,
        "temperature": 0,
        "stream": True,
        **(_BEYOND_OPENAI if workload.ignore_eos else _OPENAI),
    }


def _openai_prompt(request: Request, wire: Wire) -> dict[str, object]:
    if wire is Wire.COMPLETIONS:
        return {"prompt": _ids(request) if request.text is None else request.text}
    if request.text is None:
        raise ValueError(f"request {request.index} has no text for the chat endpoint")
    texts = (*request.said, request.text)
    return {"messages": [{"role": _ROLES[place % 2], "content": text} for place, text in enumerate(texts)]}


def _ids(request: Request) -> Sequence[int]:
    if request.token_ids is None:
        raise ValueError(f"request {request.index} has neither token ids nor a text")
    return request.token_ids


def _parsed(data: bytes) -> Mapping[str, object]:
    try:
        event = from_json(data)  # four times as fast as the standard library's
    except ValueError:
        raise StreamError(RequestFailureKind.PROTOCOL, f"an event is not JSON: {shown(data)}") from None
    if not isinstance(event, dict):
        raise StreamError(RequestFailureKind.PROTOCOL, f"an event is not an object: {shown(data)}")
    return event


def _check_error(event: Mapping[str, object]) -> None:
    """Older servers put the error at the top, with object "error"; newer ones under the key "error"."""
    error = event.get("error")
    if error is None and event.get("object") == "error":
        error = event
    if error is None:
        return
    message = _mapping(error).get("message", error)
    raise StreamError(RequestFailureKind.IN_STREAM_ERROR, shown(str(message).encode()))


def _generate_progress(event: Mapping[str, object]) -> Progress:
    about = event.get("meta_info")
    if not isinstance(about, dict):
        raise StreamError(RequestFailureKind.PROTOCOL, "an event of /generate has no meta_info")
    return Progress(  # by position: by name it takes twice as long
        _count(about.get("completion_tokens")),
        _count(about.get("prompt_tokens")),
        _count(about.get("cached_tokens")),
        bool(event.get("text")),
        _finish(about.get("finish_reason")),
    )


def _openai_progress(event: Mapping[str, object]) -> Progress:
    choices = event.get("choices")
    if not isinstance(choices, list):
        raise StreamError(RequestFailureKind.PROTOCOL, "an event has no choices")
    choice = _mapping(choices[0]) if choices else {}
    usage = _mapping(event.get("usage"))
    return Progress(
        _count(usage.get("completion_tokens")),
        _count(usage.get("prompt_tokens")),
        _count(_mapping(usage.get("prompt_tokens_details")).get("cached_tokens")),
        _has_text(choice),
        _finish(choice.get("finish_reason")),
    )


def _generate_counts(event: Mapping[str, object]) -> tuple[object, tuple[object, object]]:
    """Return the total of output tokens, None at an end, and what is said of the prompt."""
    about = event.get("meta_info")
    if type(about) is not dict or about.get("finish_reason") is not None:
        return None, (None, None)
    return about.get("completion_tokens"), (about.get("prompt_tokens"), about.get("cached_tokens"))


def _openai_counts(event: Mapping[str, object]) -> tuple[object, tuple[object, object]]:
    """Return the same for OpenAI's wires."""
    choices, usage = event.get("choices"), event.get("usage")
    if type(choices) is not list or type(usage) is not dict:
        return None, (None, None)
    if choices and _mapping(choices[0]).get("finish_reason") is not None:
        return None, (None, None)
    return usage.get("completion_tokens"), (usage.get("prompt_tokens"), usage.get("prompt_tokens_details"))


def _has_text(choice: Mapping[str, object]) -> bool:
    delta = _mapping(choice.get("delta"))
    return bool(choice.get("text") or delta.get("content") or delta.get("reasoning_content"))


def _finish(reason: object) -> str | None:
    """Return the finish reason: /generate has an object with a type, the others a word."""
    if reason is None:
        return None
    word = reason.get("type") if isinstance(reason, dict) else reason
    return word if isinstance(word, str) else None


def _abort_message(event: Mapping[str, object]) -> str:
    reason = _mapping(_mapping(event.get("meta_info")).get("finish_reason"))
    return shown(str(reason.get("message") or "the engine aborted the request").encode())


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None  # a bool is no count
