"""What the HTTP server does with a request: understand its body, let it run, and tell how it goes.

In: parsed JSON. Out: JSON objects, whole or one after another. Knows SGLang's endpoints and nothing of the
HTTP library. Whatever cannot be served is an `AnswerError` with the status and body SGLang has for it.
"""

import itertools
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from autotune.request import Request
from autotune.simulator import shapes
from autotune.simulator.flags import SchedulerFlags
from autotune.simulator.pace import Pacemaker, RefusedError, Ticket
from autotune.simulator.profile import Profile
from autotune.simulator.prompts import PrefixIndex, pretend_tokens
from autotune.simulator.server_info import served_name
from autotune.simulator.turn import Refusal

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
            raise bad_body(wire, "the body is not a JSON object")
        sampling = body.get("sampling_params") or {} if wire == "generate" else body
        length = sampling.get("max_new_tokens" if wire == "generate" else "max_tokens", _DEFAULT_TOKENS[wire])
        if not isinstance(length, int) or length < 1:
            raise bad_body(wire, "max_tokens must be positive")
        self._refuse_unknown_tokens(wire, body.get("token_ids_logprob") or ())
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
        try:
            ticket = await self._admit(asked)
        except RefusedError as error:
            raise _refused(asked, error.refusal) from None
        try:
            await ticket.wait()
            answer = self._snapshot(asked, ticket, 0)
        finally:
            self._leave(asked, ticket)
        if asked.wire == "generate":
            return shapes.generate(answer, incremental=False)
        return shapes.whole(answer, is_chat=asked.is_chat, reports_cache=self._reports_cache)

    async def events(self, asked: Asked) -> AsyncGenerator[Mapping[str, Any]]:
        """Yield the events of a streamed answer; a refusal is an event, too."""
        try:
            ticket = await self._admit(asked)
        except RefusedError as error:
            yield _refusal_event(asked, error.refusal)
            return
        told = 0
        try:
            async for _ in ticket.changes():
                is_due = ticket.ended_s is not None or told == 0
                if is_due or ticket.tokens - told >= asked.stream_interval:
                    for event in self._events_of(asked, self._snapshot(asked, ticket, told)):
                        yield event
                    told = ticket.tokens
        finally:
            self._leave(asked, ticket)

    def abort(self, rid_prefix: str) -> None:
        """Abort every request whose id begins like this; an empty prefix means all."""
        for rid, ticket in tuple(self._tickets.items()):
            if rid.startswith(rid_prefix):
                self._pacemaker.abort(ticket, "Abort in waiting queue or while running")

    async def _admit(self, asked: Asked) -> Ticket:
        ticket = await self._pacemaker.submit(asked.request, ignores_eos=asked.ignores_eos)
        self._tickets[asked.rid] = ticket
        return ticket

    def _leave(self, asked: Asked, ticket: Ticket) -> None:
        """Forget a request; one that is left before its end (the client hung up) is aborted."""
        self._tickets.pop(asked.rid, None)
        self._pacemaker.abort(ticket, "the client hung up")

    def _prompt(self, wire: str, body: Mapping[str, Any]) -> Sequence[int]:
        if wire == "chat":
            text = "\n".join(str(message.get("content", "")) for message in body.get("messages") or ())
            return self._ids(wire, text)
        prompt = body.get("prompt") if wire == "completions" else body.get("input_ids", body.get("text"))
        if not prompt:
            raise bad_body(wire, "Either text, input_ids or input_embeds should be provided.")
        return self._ids(wire, prompt)

    def _ids(self, wire: str, prompt: object) -> Sequence[int]:
        match prompt:
            case str():
                return pretend_tokens(prompt, self._profile.vocabulary_size) or [0]
            case [list() as only]:
                return self._ids(wire, only)
            case list() if all(type(token) is int for token in prompt):
                self._refuse_unknown_tokens(wire, prompt)
                return prompt
            case _:
                raise bad_body(wire, "the simulator takes one prompt: a text or a list of token ids")

    def _refuse_unknown_tokens(self, wire: str, token_ids: Sequence[int]) -> None:
        size = self._profile.vocabulary_size
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < size:
            raise bad_body(wire, f"a token id is outside the vocabulary: valid range is [0, {size})")

    def _request(self, token_ids: Sequence[int], length: int) -> Request:
        group, shared = self._prefixes.group_of(token_ids)
        return Request(next(self._numbers), len(token_ids), length, prefix_group=group, prefix_tokens=shared)

    def _snapshot(self, asked: Asked, ticket: Ticket, told: int) -> shapes.Answer:
        ended_s = ticket.ended_s
        return shapes.Answer(
            rid=asked.rid,
            model=asked.model,
            created=int(datetime.now(UTC).timestamp()),
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
            chunks.append(shapes.chunk(replace(answer, new_tokens=0), is_chat=True, finish=finish))
        usage = shapes.usage(answer, reports_cache=self._reports_cache) if asked.continuous_usage else None
        if usage is not None or not is_chat:
            chunks = [{**each, "usage": usage} for each in chunks]
        if answer.is_last and asked.includes_usage:
            chunks.append(shapes.usage_chunk(answer, is_chat=is_chat, reports_cache=self._reports_cache))
        return chunks


def bad_body(wire: str, message: str) -> AnswerError:
    """Return the answer to a body that the endpoint does not take."""
    status = HTTPStatus.BAD_REQUEST
    if wire == "generate":
        return AnswerError(status, shapes.generate_error(message))
    return AnswerError(status, shapes.openai_error(message, "Bad Request", status))


def _refused(asked: Asked, refusal: Refusal) -> AnswerError:
    status = refusal.status
    if status == _FULL_QUEUE:
        return AnswerError(status, shapes.openai_error(refusal.message, str(status), status))
    if asked.wire == "generate":
        return AnswerError(status, shapes.generate_error(refusal.message))
    return AnswerError(status, shapes.openai_error(refusal.message, "BadRequestError", status))


def _refusal_event(asked: Asked, refusal: Refusal) -> Mapping[str, Any]:
    is_full = refusal.status == _FULL_QUEUE
    if asked.wire == "generate":
        if is_full:
            return shapes.aborted_generate(asked.rid, refusal.message, refusal.status)
        return shapes.generate_error(refusal.message, refusal.status)
    kind = "SERVICE_UNAVAILABLE" if is_full else "BadRequestError"
    return {"error": shapes.openai_error(refusal.message, kind, refusal.status)}
