"""The workload: what requests look like. The same seed gives the same requests on every trial.

In: the `workload` of an SLO file and a load point. Out: `OfferedLoad`s of `Request`s with lengths and due
times and, where a wire needs them, prompts. Pure but for reading a dataset.
Invariant: a request's lengths depend on the workload's seed and its index alone; the salt changes only the
contents of prompts and the draw of arrivals, so that no two loads meet in the engine's prefix cache.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Self, TypeAlias, overload

import numpy as np
from pydantic import (
    Discriminator,
    Field,
    PositiveInt,
    StrictInt,
    Tag,
    ValidationError,
    model_validator,
)

from autotune.document import Frozen
from autotune.errors import ConfigError, Problem
from autotune.load.arrivals import LoadPoint, due_times_s
from autotune.request import OfferedLoad, Request

CHARACTERS_PER_TOKEN = 4
"""Estimate of a text prompt's length before an engine has counted it (English, byte-pair vocabularies)."""

_SHORTEST_REQUEST_S = 0.005
_SPECIAL_IDS_BELOW = 512
_SPECIAL_IDS_ABOVE = 2048
_SHOWN_PROBLEMS = 20


class Wire(StrEnum):
    """Which HTTP endpoint requests go to."""

    GENERATE = "generate"
    COMPLETIONS = "completions"
    CHAT = "chat"


class Uniform(Frozen):
    """Whole numbers drawn evenly from [low, high]."""

    uniform: tuple[PositiveInt, PositiveInt]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.uniform[0] > self.uniform[1]:
            raise ValueError("uniform: the low end comes first")
        return self


class LogNormal(Frozen):
    """Lengths with a long tail, cut at `minimum` and `maximum`."""

    median: PositiveInt = Field(alias="lognormal")
    sigma: float = Field(gt=0, le=3)
    maximum: PositiveInt
    minimum: PositiveInt = 1

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.minimum <= self.median <= self.maximum:
            raise ValueError("lognormal: the median lies between minimum and maximum")
        return self


def _kind_of_length(value: object) -> str:
    if isinstance(value, int):
        return "exact"
    if isinstance(value, Uniform) or (isinstance(value, dict) and "uniform" in value):
        return "uniform"
    if isinstance(value, LogNormal) or (isinstance(value, dict) and value.keys() & {"lognormal", "median"}):
        return "lognormal"
    return "unknown"


Length: TypeAlias = Annotated[
    Annotated[Annotated[StrictInt, Field(ge=1)], Tag("exact")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogNormal, Tag("lognormal")],
    Discriminator(
        _kind_of_length,
        custom_error_type="length",
        custom_error_message=(
            "a length is a number of tokens, {uniform: [low, high]} or "
            "{lognormal: median, sigma: 0.6, maximum: 8192}"
        ),
    ),
]


class SharedPrefix(Frozen):
    """`groups` different prefixes of `tokens` tokens; each request begins with one of them, in turn."""

    groups: PositiveInt
    tokens: PositiveInt


class Workload(Frozen):
    """What every request of a study looks like: random tokens of given lengths, or texts of a dataset.

    `dataset` is a JSONL file of `{"prompt": text}` with an optional `"output_tokens"` that wins over
    `output_tokens`. Sampling is greedy (temperature 0).
    """

    input_tokens: Length | None = None
    output_tokens: Length
    shared_prefix: SharedPrefix | None = None
    dataset: Path | None = None
    endpoint: Wire = Wire.GENERATE
    ignore_eos: bool = True
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _prompts_can_be_made(self) -> Self:
        if (self.input_tokens is None) == (self.dataset is None):
            raise ValueError("give either input_tokens (random prompts) or dataset (a JSONL file)")
        if self.endpoint is Wire.CHAT and self.input_tokens is not None:
            raise ValueError(
                "the chat endpoint takes text, and a text of exact length needs the model's tokenizer: "
                "give a dataset, or use endpoint: generate"
            )
        self._check_prefix()
        return self

    def _check_prefix(self) -> None:
        if self.shared_prefix is None:
            return
        if self.input_tokens is None:
            raise ValueError("shared_prefix belongs to input_tokens; a dataset brings its own prefixes")
        shortest = _shortest(self.input_tokens)
        if self.shared_prefix.tokens >= shortest:
            raise ValueError(
                f"a shared prefix of {self.shared_prefix.tokens} tokens leaves nothing of the shortest "
                f"input, {shortest} tokens (a lognormal length takes a minimum)"
            )


class Prompt(Frozen):
    """One line of a dataset."""

    prompt: str = Field(min_length=1)
    output_tokens: PositiveInt | None = None


class _Draw(IntEnum):
    """What a random stream is for; streams of different purposes never meet."""

    INPUT_TOKENS = 1
    OUTPUT_TOKENS = 2
    DATASET_ORDER = 3
    ARRIVALS = 4
    PREFIX = 5
    CONTENT = 6


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
    estimate of four characters per token and texts repeat only after a full pass, the same for every salt.

    Raises:
        ConfigError: the dataset cannot be read.
        ValueError: the salt is negative.
    """
    make = _request_maker(workload)
    stream = 2 * salt
    if point.rate is not None:
        return _open_loop(make, point, stream, workload.seed)
    if point.requests is not None:
        return OfferedLoad(tuple(map(make, range(point.requests))), point.concurrency, salt=stream)
    limit_s, slots = point.duration_s or 0.0, point.concurrency or 1
    count = math.ceil(slots * limit_s / _SHORTEST_REQUEST_S)
    return OfferedLoad(LazyRequests(count, make), slots, stop_after_s=limit_s, salt=stream)


def warm_up(workload: Workload, point: LoadPoint, *, salt: int) -> OfferedLoad:
    """Return what is sent before a load point and thrown away: a closed loop that ends when all are answered.

    Its prompts differ from those of every `offer`, but for a dataset, whose last texts in order it takes.
    An open-loop point is warmed by all its warm-up requests at once.

    Raises:
        ConfigError: the dataset cannot be read.
    """
    count = point.warm_up_requests
    make = _request_maker(workload, from_the_end=True)
    slots = point.concurrency or max(count, 1)
    return OfferedLoad(tuple(map(make, range(count))), slots, salt=2 * salt + 1)


def with_prompts(offered: OfferedLoad, workload: Workload, *, vocabulary_size: int) -> OfferedLoad:
    """Return the same load with token ids, lazily, for every request that has neither ids nor a text.

    A request's ids depend on the workload's seed, the load's salt and the request's index; requests of one
    prefix group share their first `prefix_tokens` ids.
    """
    add = prompter(offered, workload, vocabulary_size=vocabulary_size)
    requests = offered.requests
    return replace(offered, requests=LazyRequests(len(requests), lambda index: add(requests[index])))


def prompter(
    offered: OfferedLoad, workload: Workload, *, vocabulary_size: int
) -> Callable[[Request], Request]:
    """Return the function that gives one request of this load its token ids.

    Ids at both ends of the vocabulary, where special tokens live, are left out (at most an eighth of it
    at each end).

    Raises:
        ValueError: the vocabulary is empty.
    """
    if vocabulary_size < 1:
        raise ValueError("a vocabulary has at least one token")
    low = min(_SPECIAL_IDS_BELOW, vocabulary_size // 8)
    high = vocabulary_size - min(_SPECIAL_IDS_ABOVE, vocabulary_size // 8)

    def drawn(count: int, purpose: _Draw, number: int) -> tuple[int, ...]:
        generator = _generator(workload.seed, purpose, offered.salt, number)
        return tuple(generator.integers(low, high, size=count).tolist())

    prefix = lru_cache(maxsize=None)(partial(drawn, purpose=_Draw.PREFIX))

    def add(request: Request) -> Request:
        if request.token_ids is not None or request.text is not None:
            return request
        shared = request.prefix_tokens if request.prefix_group is not None else 0
        head = prefix(shared, number=request.prefix_group) if shared else ()
        tail = drawn(request.input_tokens - shared, _Draw.CONTENT, request.index)
        return replace(request, token_ids=(*head, *tail))

    return add


def read_dataset(path: Path) -> tuple[Prompt, ...]:
    """Read a JSONL file of prompts; blank lines are skipped.

    Raises:
        ConfigError: the file cannot be read or is empty, or lines are not of the form (all of them named).
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise ConfigError([Problem("no such dataset", path, remedy="correct workload.dataset")]) from None
    except (OSError, UnicodeDecodeError) as error:
        remedy = "a dataset is a readable UTF-8 file with one JSON object per line"
        raise ConfigError([Problem(f"cannot be read: {error}", path, remedy=remedy)]) from error
    prompts, problems = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                prompts.append(Prompt.model_validate_json(line, strict=True))
            except ValidationError as error:
                problems.append(_line_problem(path, number, error))
    if problems:
        raise ConfigError(problems[:_SHOWN_PROBLEMS])
    if not prompts:
        raise ConfigError([Problem("the dataset is empty", path, remedy=_LINE_FORM)])
    return tuple(prompts)


_LINE_FORM = 'A line is {"prompt": "some text"}, with an optional "output_tokens": 128.'


def _line_problem(path: Path, number: int, error: ValidationError) -> Problem:
    detail = error.errors()[0]
    key = ".".join(map(str, detail["loc"])) or None
    match detail["type"]:
        case "json_invalid":
            message = "is not JSON"
        case "missing":
            message = "is missing"
        case "extra_forbidden":
            message = "unknown key"
        case _:
            message = detail["msg"]
    return Problem(message, path, number, key, _LINE_FORM)


def _open_loop(make: Callable[[int], Request], point: LoadPoint, stream: int, seed: int) -> OfferedLoad:
    rate, limit_s = point.rate or 0.0, point.duration_s
    count = point.requests if limit_s is None else math.ceil(limit_s * rate)
    due_s = due_times_s(point, count or 1, _generator(seed, _Draw.ARRIVALS, stream))
    requests = tuple(replace(make(index), due_s=float(due)) for index, due in enumerate(due_s))
    return OfferedLoad(requests, None, stop_after_s=limit_s, salt=stream)


def _request_maker(workload: Workload, *, from_the_end: bool = False) -> Callable[[int], Request]:
    if workload.input_tokens is not None:
        return partial(_random_request, workload, workload.input_tokens)
    if workload.dataset is None:
        raise AssertionError("a workload has input_tokens or a dataset")
    prompts = read_dataset(workload.dataset)
    order = _generator(workload.seed, _Draw.DATASET_ORDER).permutation(len(prompts))
    if from_the_end:
        order = order[::-1]
    return partial(_dataset_request, workload, [prompts[position] for position in order.tolist()])


def _random_request(workload: Workload, input_tokens: Length, index: int) -> Request:
    shared = workload.shared_prefix
    return Request(
        index=index,
        input_tokens=_length(input_tokens, workload.seed, _Draw.INPUT_TOKENS, index),
        output_tokens=_length(workload.output_tokens, workload.seed, _Draw.OUTPUT_TOKENS, index),
        prefix_group=None if shared is None else index % shared.groups,
        prefix_tokens=0 if shared is None else shared.tokens,
    )


def _dataset_request(workload: Workload, prompts: Sequence[Prompt], index: int) -> Request:
    line = prompts[index % len(prompts)]
    drawn = _length(workload.output_tokens, workload.seed, _Draw.OUTPUT_TOKENS, index)
    return Request(
        index=index,
        input_tokens=math.ceil(len(line.prompt) / CHARACTERS_PER_TOKEN),
        output_tokens=line.output_tokens or drawn,
        text=line.prompt,
    )


def _length(length: Length, seed: int, purpose: _Draw, index: int) -> int:
    match length:
        case Uniform(uniform=(low, high)):
            return int(_generator(seed, purpose, index).integers(low, high, endpoint=True))
        case LogNormal():
            normal = _generator(seed, purpose, index).standard_normal()
            drawn = length.median * math.exp(length.sigma * normal)
            return min(max(round(drawn), length.minimum), length.maximum)
        case _:
            return length


def _shortest(length: Length) -> int:
    match length:
        case Uniform(uniform=(low, _)):
            return low
        case LogNormal(minimum=minimum):
            return minimum
        case _:
            return length


def _generator(seed: int, purpose: _Draw, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, *numbers])
