"""The workload: what requests look like. The same seed gives the same requests on every trial.

In: the `workload` of an SLO file and a load point. Out: `OfferedLoad`s of `Request`s with lengths and due
times and, where a wire needs them, prompts. Pure but for reading a dataset, a tokenizer or a trace.
Invariant: a request's lengths depend on the workload's seed and its index alone; the salt changes only the
contents of prompts and the draw of arrivals, so that no two loads meet in the engine's prefix cache.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache, partial
from pathlib import Path
from typing import Self, overload

from pydantic import Field, PositiveInt, model_validator

from autotune.document import Frozen
from autotune.load.arrivals import LoadPoint, due_times_s
from autotune.load.dataset import Prompt, read_dataset
from autotune.load.lengths import Draw, Length, drawn_tokens, generator_for, shortest_tokens
from autotune.load.text import text_maker
from autotune.load.trace import read_trace
from autotune.request import OfferedLoad, Request

__all__ = [
    "Conversation",
    "LazyRequests",
    "SharedPrefix",
    "Wire",
    "Workload",
    "offer",
    "prompter",
    "read_dataset",
    "warm_up",
    "with_prompts",
]

CHARACTERS_PER_TOKEN = 4
"""Estimate of a text prompt's length before an engine has counted it (English, byte-pair vocabularies)."""

_SHORTEST_REQUEST_S = 0.005
_SPECIAL_IDS_BELOW = 512
_SPECIAL_IDS_ABOVE = 2048
_WORD_DRAWS = 2**30


class Wire(StrEnum):
    """Which HTTP endpoint requests go to."""

    GENERATE = "generate"
    COMPLETIONS = "completions"
    CHAT = "chat"


class SharedPrefix(Frozen):
    """`groups` different prefixes of `tokens` tokens, taken in turn by the share `ratio` of all requests.

    So of n tokens of prompts about n * ratio * tokens / mean length can be cache hits, all but each group's
    first.
    """

    groups: PositiveInt
    tokens: PositiveInt
    ratio: float = Field(default=1.0, gt=0, le=1)


class Conversation(Frozen):
    """Every `turns` requests are one conversation; a turn is sent `pause_s` after the one before has ended.

    A turn's prompt is the one before, an answer of the length asked for there, and `input_tokens` new ones.
    That answer is made up, so that every trial sends the same: an engine's cache can hit the prompt before,
    but not the answer to it.
    """

    turns: int = Field(ge=2)
    pause_s: float = Field(default=0.0, ge=0)


class Workload(Frozen):
    """What every request of a study looks like: random tokens of given lengths, or texts of a dataset.

    `dataset` is a JSONL file of `{"prompt": text}` with an optional `"output_tokens"` that wins over
    `output_tokens`, or of ShareGPT's conversations. With a `tokenizer` (a Hugging Face tokenizer.json) random
    prompts are texts of exactly `input_tokens` tokens instead of token ids, and texts of a dataset are
    counted instead of estimated. Sampling is greedy (temperature 0). Without `ignore_eos` answers end where
    the model ends them, and requests hold nothing beyond OpenAI's interface.
    """

    input_tokens: Length | None = None
    output_tokens: Length
    shared_prefix: SharedPrefix | None = None
    conversation: Conversation | None = None
    dataset: Path | None = None
    tokenizer: Path | None = None
    endpoint: Wire = Wire.GENERATE
    ignore_eos: bool = True
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _prompts_can_be_made(self) -> Self:
        if (self.input_tokens is None) == (self.dataset is None):
            raise ValueError("give either input_tokens (random prompts) or dataset (a JSONL file)")
        if self.endpoint is Wire.CHAT and self.input_tokens is not None and self.tokenizer is None:
            raise ValueError(
                "the chat endpoint takes text, and a text of exact length needs the model's tokenizer: "
                "give a tokenizer or give a dataset, or use endpoint: generate"
            )
        if self.conversation is not None and (self.input_tokens is None or self.shared_prefix is not None):
            raise ValueError("a conversation is made of input_tokens, without a dataset or shared_prefix")
        self._check_prefix()
        return self

    def _check_prefix(self) -> None:
        if self.shared_prefix is None:
            return
        if self.input_tokens is None:
            raise ValueError("shared_prefix belongs to input_tokens; a dataset brings its own prefixes")
        shortest = shortest_tokens(self.input_tokens)
        if self.shared_prefix.tokens >= shortest:
            raise ValueError(
                f"a shared prefix of {self.shared_prefix.tokens} tokens leaves nothing of the shortest "
                f"input, {shortest} tokens (a lognormal length takes a minimum)"
            )


@dataclass(frozen=True, eq=False)
class LazyRequests(Sequence[Request]):
    """`size` requests, each made when it is looked at and never kept; equal looks give equal requests."""

    size: int
    make: Callable[[int], Request]

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Request]: ...
    def __getitem__(self, index: int | slice) -> Request | Sequence[Request]:
        if isinstance(index, slice):
            return tuple(self.make(position) for position in range(self.size)[index])
        return self.make(range(self.size)[index])


def offer(workload: Workload, point: LoadPoint, *, salt: int) -> OfferedLoad:
    """Return the requests of a load point and when they are sent, without random prompts.

    A closed loop that is limited by time gets a lazy sequence that lasts even if every request took 5 ms
    (`load.health.invalid_reason` tells if it ran out all the same). With a dataset, `input_tokens` is an
    estimate of four characters per token (without a tokenizer) and texts repeat only after a full pass, the
    same for every salt. A trace's lengths win over the workload's where prompts are made to measure.

    Raises:
        ConfigError: the dataset, the tokenizer or the trace cannot be read.
        ValueError: the salt is negative.
    """
    make = _request_maker(workload)
    stream = 2 * salt
    if point.rate is not None:
        return _open_loop(make, workload, point, stream)
    ramp_s = point.ramp_s or 0.0
    if point.requests is not None:
        requests = tuple(map(make, range(point.requests)))
        return OfferedLoad(requests, point.concurrency, salt=stream, ramp_s=ramp_s)
    limit_s, slots = point.duration_s or 0.0, point.concurrency or 1
    count = math.ceil(slots * limit_s / _SHORTEST_REQUEST_S)
    return OfferedLoad(LazyRequests(count, make), slots, stop_after_s=limit_s, salt=stream, ramp_s=ramp_s)


def warm_up(workload: Workload, point: LoadPoint, *, salt: int) -> OfferedLoad:
    """Return what is sent before a load point and thrown away: a closed loop that ends when all are answered.

    Its prompts differ from those of every `offer`, but for a dataset, whose last texts in order it takes.
    An open-loop point is warmed by all its warm-up requests at once.

    Raises:
        ConfigError: the dataset or the tokenizer cannot be read.
    """
    count = point.warm_up_requests
    make = _request_maker(workload, from_the_end=True)
    slots = point.concurrency or max(count, 1)
    return OfferedLoad(tuple(map(make, range(count))), slots, salt=2 * salt + 1)


def with_prompts(offered: OfferedLoad, workload: Workload, *, vocabulary_size: int) -> OfferedLoad:
    """Return the same load with a prompt, lazily, for every request that has neither ids nor a text.

    A request's prompt depends on the workload's seed, the load's salt and the request's index; requests of
    one prefix group share their first `prefix_tokens` tokens.
    """
    add = prompter(offered, workload, vocabulary_size=vocabulary_size)
    requests = offered.requests
    return replace(offered, requests=LazyRequests(len(requests), lambda index: add(requests[index])))


def prompter(
    offered: OfferedLoad, workload: Workload, *, vocabulary_size: int
) -> Callable[[Request], Request]:
    """Return the function that gives one request of this load its token ids or, with a tokenizer, its text.

    Ids at both ends of the vocabulary, where special tokens live, are left out (at most an eighth of it
    at each end).

    Raises:
        ConfigError: the tokenizer cannot be read.
        ValueError: the vocabulary is empty.
    """
    if vocabulary_size < 1:
        raise ValueError("a vocabulary has at least one token")
    if workload.tokenizer is not None:
        maker, special = text_maker(workload.tokenizer), workload.endpoint is not Wire.CHAT
        numbers = _numbers_of(offered, workload, 0, _WORD_DRAWS)
        return lambda request: (
            request
            if _has_prompt(request)
            else replace(request, text=maker.text(numbers(request), request.input_tokens, special=special))
        )
    low = min(_SPECIAL_IDS_BELOW, vocabulary_size // 8)
    high = vocabulary_size - min(_SPECIAL_IDS_ABOVE, vocabulary_size // 8)
    ids = _numbers_of(offered, workload, low, high)
    return lambda request: request if _has_prompt(request) else replace(request, token_ids=ids(request))


def _has_prompt(request: Request) -> bool:
    return request.token_ids is not None or request.text is not None


def _numbers_of(
    offered: OfferedLoad, workload: Workload, low: int, high: int
) -> Callable[[Request], tuple[int, ...]]:
    """Return what draws a request's `input_tokens` numbers from [low, high), its shared beginning first."""

    def drawn(count: int, purpose: Draw, number: int) -> tuple[int, ...]:
        generator = generator_for(workload.seed, purpose, offered.salt, number)
        return tuple(generator.integers(low, high, size=count).tolist())

    def said(request: Request) -> tuple[int, ...]:
        # A longer draw must begin like a shorter one: numpy promises it for `random`, not for `integers`.
        generator = generator_for(workload.seed, Draw.CONVERSATION, offered.salt, request.prefix_group or 0)
        return tuple((low + (high - low) * generator.random(request.input_tokens)).astype(int).tolist())

    prefix = lru_cache(maxsize=None)(partial(drawn, purpose=Draw.PREFIX))

    def numbers(request: Request) -> tuple[int, ...]:
        shared = request.prefix_tokens if request.prefix_group is not None else 0
        head = prefix(shared, number=request.prefix_group) if shared else ()
        return (*head, *drawn(request.input_tokens - shared, Draw.CONTENT, request.index))

    return numbers if workload.conversation is None else said


def _open_loop(
    make: Callable[[int], Request], workload: Workload, point: LoadPoint, stream: int
) -> OfferedLoad:
    limit_s = point.duration_s
    count = point.requests if limit_s is None else math.ceil(limit_s * point.mean_rate_rps)
    turns = 1 if workload.conversation is None else workload.conversation.turns
    heads = math.ceil((count or 1) / turns)
    due_s = due_times_s(_slowed(point, turns), heads, generator_for(workload.seed, Draw.ARRIVALS, stream))
    requests = [make(index) for index in range(count or 1)]
    for head, due in zip(range(0, len(requests), turns), due_s, strict=True):
        requests[head] = replace(requests[head], due_s=float(due))
    if point.trace is not None and workload.dataset is None and workload.conversation is None:
        requests = [_as_long_as(request, point.trace) for request in requests]
    return OfferedLoad(tuple(requests), None, stop_after_s=limit_s, salt=stream)


def _slowed(point: LoadPoint, turns: int) -> LoadPoint:
    """Return the arrivals of conversations whose turns together are the point's."""
    if turns == 1:
        return point
    steps = None if point.steps is None else tuple(step / turns for step in point.steps)
    return point.model_copy(update={"rate": (point.rate or 0.0) / turns, "steps": steps})


def _as_long_as(request: Request, trace: Path) -> Request:
    """Give a request the lengths of its row in a trace; a prompt is never shorter than its prefix and one."""
    row = read_trace(trace)[request.index]
    return replace(
        request,
        input_tokens=max(row.input_tokens or request.input_tokens, request.prefix_tokens + 1),
        output_tokens=row.output_tokens or request.output_tokens,
    )


def _request_maker(workload: Workload, *, from_the_end: bool = False) -> Callable[[int], Request]:
    if workload.input_tokens is not None:
        made = _random_request if workload.conversation is None else _turn
        return partial(made, workload, workload.input_tokens)
    if workload.dataset is None:
        raise AssertionError("a workload has input_tokens or a dataset")
    lines = [_measured(workload, prompt) for prompt in read_dataset(workload.dataset)]
    order = generator_for(workload.seed, Draw.DATASET_ORDER).permutation(len(lines))
    if from_the_end:
        order = order[::-1]
    return partial(_dataset_request, workload, [lines[position] for position in order.tolist()])


def _random_request(workload: Workload, input_tokens: Length, index: int) -> Request:
    shared = workload.shared_prefix
    has_prefix = shared is not None and (
        shared.ratio == 1 or generator_for(workload.seed, Draw.HAS_PREFIX, index).random() < shared.ratio
    )
    return Request(
        index=index,
        input_tokens=drawn_tokens(input_tokens, workload.seed, Draw.INPUT_TOKENS, index),
        output_tokens=drawn_tokens(workload.output_tokens, workload.seed, Draw.OUTPUT_TOKENS, index),
        prefix_group=index % shared.groups if shared and has_prefix else None,
        prefix_tokens=shared.tokens if shared and has_prefix else 0,
    )


def _turn(workload: Workload, input_tokens: Length, index: int) -> Request:
    """Return one turn; its whole prompt counts as a prefix, since the next turn's begins with it."""
    if workload.conversation is None:
        raise AssertionError("a turn belongs to a conversation")
    conversation, turn = divmod(index, workload.conversation.turns)
    said = range(index - turn, index + 1)
    asked = [drawn_tokens(input_tokens, workload.seed, Draw.INPUT_TOKENS, each) for each in said]
    answers = [drawn_tokens(workload.output_tokens, workload.seed, Draw.OUTPUT_TOKENS, each) for each in said]
    prompt_tokens = sum(asked) + sum(answers[:-1])
    return Request(
        index=index,
        input_tokens=prompt_tokens,
        output_tokens=answers[-1],
        prefix_group=conversation,
        prefix_tokens=prompt_tokens,
        after=index - 1 if turn else None,
        pause_s=workload.conversation.pause_s if turn else 0.0,
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """A text of a dataset and its lengths."""

    text: str
    input_tokens: int
    output_tokens: int | None


def _measured(workload: Workload, prompt: Prompt) -> _Line:
    special = workload.endpoint is not Wire.CHAT

    def tokens(text: str, *, special: bool) -> int:
        if workload.tokenizer is None:
            return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
        return text_maker(workload.tokenizer).count(text, special=special)

    answered = prompt.output_tokens
    if prompt.answer is not None:
        answered = tokens(prompt.answer, special=False)
    return _Line(prompt.prompt, tokens(prompt.prompt, special=special), answered)


def _dataset_request(workload: Workload, lines: Sequence[_Line], index: int) -> Request:
    line = lines[index % len(lines)]
    drawn = drawn_tokens(workload.output_tokens, workload.seed, Draw.OUTPUT_TOKENS, index)
    return Request(
        index=index,
        input_tokens=line.input_tokens,
        output_tokens=line.output_tokens or drawn,
        text=line.text,
    )
