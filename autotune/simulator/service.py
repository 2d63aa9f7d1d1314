"""What the HTTP server does with a request: understand its body, let it run, and tell how it goes.

In: parsed JSON. Out: JSON objects, whole or one after another. Knows SGLang's endpoints and nothing of the
HTTP library. Whatever cannot be served is an `AnswerError` with the status and body SGLang has for it.
"""

import itertools
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from autotune.request import Request
from autotune.simulator import shapes
from autotune.simulator.flags import SchedulerFlags
from autotune.simulator.pace import Pacemaker, Ticket
from autotune.simulator.profile import Profile
from autotune.simulator.prompts import PrefixIndex, pretend_tokens
from autotune.simulator.scheduler import Refusal
from autotune.simulator.server_info import served_name

_FULL_QUEUE = HTTPStatus.SERVICE_UNAVAILABLE
_DEFAULT_TOKENS = {"generate": 128, "completions": 16, "chat": 256}


class AnswerError(Exception):
    """A request that gets an error answer."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        self.status = status
        self.body = body
        super().__init__(str(body))


@dataclass(frozen=True)
class Asked:
    """An understood request. `wire` is generate, completions or chat; `streams`: as server-sent events."""

    wire: str
    rid: str
    model: str
    request: Request
    ignores_eos: bool
    streams: bool
    stream_interval: int = 1
    includes_usage: bool = False
    continuous_usage: bool = False

    @property
    def is_chat(self) -> bool:
        """Whether answers are chat messages."""
        return self.wire == "chat"


class Service:
    """Serves the generation endpoints of one engine."""

    def __init__(self, profile: Profile, flags: SchedulerFlags, pacemaker: Pacemaker) -> None:
        self._profile = profile
        self._flags = flags
        self._pacemaker = pacemaker
        self._prefixes = PrefixIndex()
        self._numbers = itertools.count()
        self._tickets: dict[str, Ticket] = {}
        self._reports_cache = bool(dict(flags.given).get("enable-cache-report"))

    def understand(self, wire: str, body: object) -> Asked:
        """Return the request that a body asks for.

        Raises:
            AnswerError: the body is not what the endpoint takes.
        """
        if not isinstance(body, dict):
            raise _bad(wire, "the body is not a JSON object")
        sampling = body.get("sampling_params") or {} if wire == "generate" else body
        length = sampling.get("max_new_tokens" if wire == "generate" else "max_tokens", _DEFAULT_TOKENS[wire])
        if not isinstance(length, int) or length < 1:
            raise _bad(wire, "max_tokens must be positive")
        options = body.get("stream_options") or {}
        return Asked(
            wire=wire,
            rid=str(body.get("rid") or uuid.uuid4().hex),
            model=str(body.get("model") or served_name(self._flags)),
            request=self._request(self._prompt(wire, body), length),
            ignores_eos=bool(sampling.get("ignore_eos", False)),
            streams=bool(body.get("stream", False)),
            stream_interval=int(sampling.get("stream_interval") or self._flags.stream_interval),
            includes_usage=bool(options.get("include_usage", False)),
            continuous_usage=bool(options.get("continuous_usage_stats", False)),
        )

    async def answer(self, asked: Asked) -> Mapping[str, Any]:
        """Return the whole answer.

        Raises:
            AnswerError: the engine refuses the request.
        """
        async with self._running(asked) as (ticket, refusal):
            if ticket is None:
                raise AnswerError(*_refused(asked, refusal))
            await ticket.wait()
            answer = self._snapshot(asked, ticket, 0)
        if asked.wire == "generate":
            return shapes.generate(answer, incremental=False)
        return shapes.whole(answer, is_chat=asked.is_chat, reports_cache=self._reports_cache)

    async def events(self, asked: Asked) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the events of a streamed answer; a refusal is an event, too."""
        async with self._running(asked) as (ticket, refusal):
            if ticket is None:
                yield _refusal_event(asked, refusal)
                return
            told = 0
            async for _ in ticket.changes():
                is_due = ticket.ended_s is not None or told == 0
                if not is_due and ticket.tokens - told < asked.stream_interval:
                    continue
                answer = self._snapshot(asked, ticket, told)
                for event in self._events_of(asked, answer):
                    yield event
                told = ticket.tokens

    def abort(self, rid_prefix: str) -> None:
        """Abort every request whose id begins like this; an empty prefix means all."""
        for rid, ticket in tuple(self._tickets.items()):
            if rid.startswith(rid_prefix):
                self._pacemaker.abort(ticket, "Abort in waiting queue or while running")

    @asynccontextmanager
    async def _running(self, asked: Asked) -> AsyncIterator[tuple[Ticket | None, Refusal | None]]:
        """Run a request; one that is left before its end (the client hung up) is aborted."""
        admitted = await self._pacemaker.submit(asked.request, ignores_eos=asked.ignores_eos)
        if isinstance(admitted, Refusal):
            yield None, admitted
            return
        self._tickets[asked.rid] = admitted
        try:
            yield admitted, None
        finally:
            del self._tickets[asked.rid]
            self._pacemaker.abort(admitted, "the client hung up")

    def _prompt(self, wire: str, body: Mapping[str, Any]) -> Sequence[int]:
        if wire == "chat":
            text = "\n".join(str(message.get("content", "")) for message in body.get("messages") or ())
            return self._ids(wire, text)
        prompt = body.get("prompt") if wire == "completions" else body.get("input_ids", body.get("text"))
        if not prompt:
            raise _bad(wire, "Either text, input_ids or input_embeds should be provided.")
        return self._ids(wire, prompt)

    def _ids(self, wire: str, prompt: object) -> Sequence[int]:
        match prompt:
            case str():
                return pretend_tokens(prompt, self._profile.vocabulary_size) or [0]
            case [list() as only]:
                return self._ids(wire, only)
            case list() if all(type(token) is int for token in prompt):
                largest = max(prompt)
                if largest >= self._profile.vocabulary_size or min(prompt) < 0:
                    size = self._profile.vocabulary_size
                    text = f"The input_ids {largest} is out of the vocabulary; valid range is [0, {size})."
                    raise _bad(wire, text)
                return prompt
            case _:
                raise _bad(wire, "the simulator takes one prompt: a text or a list of token ids")

    def _request(self, token_ids: Sequence[int], length: int) -> Request:
        group, shared = self._prefixes.group_of(token_ids)
        return Request(next(self._numbers), len(token_ids), length, prefix_group=group, prefix_tokens=shared)

    def _snapshot(self, asked: Asked, ticket: Ticket, told: int) -> shapes.Answer:
        ended_s = ticket.ended_s
        return shapes.Answer(
            rid=asked.rid,
            model=asked.model,
            created=_unix_time(),
            prompt_tokens=asked.request.input_tokens,
            cached_tokens=ticket.sequence.cached_tokens or 0,
            tokens=ticket.tokens,
            new_tokens=ticket.tokens - told,
            vocabulary_size=self._profile.vocabulary_size,
            is_last=ended_s is not None,
            retractions=ticket.sequence.retractions,
            e2e_s=0.0 if ended_s is None else ended_s - ticket.sent_s,
            abort=ticket.sequence.failure,
        )

    def _events_of(self, asked: Asked, answer: shapes.Answer) -> list[dict[str, Any]]:
        if asked.wire == "generate":
            return [shapes.generate(answer, incremental=self._flags.incremental_streaming)]
        is_chat, finish = asked.is_chat, "length" if answer.abort is None else "abort"
        is_first = answer.tokens == answer.new_tokens
        chunks = [shapes.chat_opening(answer)] if is_chat and is_first else []
        ends_here = answer.is_last and not is_chat
        chunks.append(shapes.chunk(answer, is_chat=is_chat, finish=finish if ends_here else None))
        if answer.is_last and is_chat:
            chunks.append(shapes.chunk(_without_text(answer), is_chat=True, finish=finish))
        usage = shapes.usage(answer, reports_cache=self._reports_cache) if asked.continuous_usage else None
        if usage is not None or not is_chat:
            chunks = [{**each, "usage": usage} for each in chunks]
        if answer.is_last and asked.includes_usage:
            chunks.append(shapes.usage_chunk(answer, is_chat=is_chat, reports_cache=self._reports_cache))
        return chunks


def _unix_time() -> int:
    return time.time_ns() // 1_000_000_000


def _without_text(answer: shapes.Answer) -> shapes.Answer:
    return shapes.Answer(**{**_fields(answer), "new_tokens": 0})


def _fields(answer: shapes.Answer) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in answer.__dataclass_fields__}


def _bad(wire: str, message: str) -> AnswerError:
    status = HTTPStatus.BAD_REQUEST
    if wire == "generate":
        return AnswerError(status, shapes.generate_error(message))
    return AnswerError(status, shapes.openai_error(message, "Bad Request", status))


def _refused(asked: Asked, refusal: Refusal | None) -> tuple[int, Mapping[str, Any]]:
    assert refusal is not None  # noqa: S101 - there is either a ticket or a refusal
    if refusal.status == _FULL_QUEUE:
        return refusal.status, shapes.openai_error(refusal.message, str(refusal.status), refusal.status)
    if asked.wire == "generate":
        return refusal.status, shapes.generate_error(refusal.message)
    return refusal.status, shapes.openai_error(refusal.message, "BadRequestError", refusal.status)


def _refusal_event(asked: Asked, refusal: Refusal | None) -> Mapping[str, Any]:
    assert refusal is not None  # noqa: S101 - there is either a ticket or a refusal
    is_full = refusal.status == _FULL_QUEUE
    if asked.wire == "generate":
        if is_full:
            return shapes.aborted_generate(asked.rid, refusal.message, refusal.status)
        return shapes.generate_error(refusal.message, refusal.status)
    kind = "SERVICE_UNAVAILABLE" if is_full else "BadRequestError"
    return {"error": shapes.openai_error(refusal.message, kind, refusal.status)}
