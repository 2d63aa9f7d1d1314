"""Prompts: the token ids or the text of a request, made when they are needed and where they are needed.

In: an `OfferedLoad` without prompts, and its workload. Out: the same load with prompts, made one by one.
Reads a tokenizer. Invariant: a prompt depends on the workload's seed, the load's salt and the request's
index alone, so that any process makes the same one, and none has to make those of another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import overload

from autotune.load.lengths import Draw, generator_for
from autotune.load.making import prefix_tokens, shared_group
from autotune.load.shape import Wire, Workload
from autotune.load.text import text_maker
from autotune.request import OfferedLoad, Request

_SPECIAL_IDS_BELOW = 512
_SPECIAL_IDS_ABOVE = 2048
_WORD_DRAWS = 2**30


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


def with_prompts(offered: OfferedLoad, workload: Workload, *, vocabulary_size: int) -> OfferedLoad:
    """Return the same load with a prompt, lazily, for every request that has neither ids nor a text.

    A request's prompt depends on the workload's seed, the load's salt and the request's index; requests of
    one prefix group share their first `prefix_tokens` tokens.
    """
    requests = offered.requests
    make = _Prompted(offered, workload, vocabulary_size)
    return replace(offered, requests=LazyRequests(len(requests), make))


@dataclass(frozen=True)
class _Prompted:
    """Makes the request of a place with its prompt; another process gets what that is made of."""

    offered: OfferedLoad
    workload: Workload
    vocabulary_size: int

    def __call__(self, place: int) -> Request:
        return self._add(self.offered.requests[place])

    def __reduce__(self) -> tuple[type["_Prompted"], tuple[OfferedLoad, Workload, int]]:
        return _Prompted, (self.offered, self.workload, self.vocabulary_size)

    @cached_property
    def _add(self) -> Callable[[Request], Request]:
        return prompter(self.offered, self.workload, vocabulary_size=self.vocabulary_size)


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

    def said(count: int, conversation: int) -> tuple[int, ...]:
        # A longer draw must begin like a shorter one: numpy promises it for `random`, not for `integers`.
        generator = generator_for(workload.seed, Draw.CONVERSATION, offered.salt, conversation)
        return tuple((low + (high - low) * generator.random(count)).astype(int).tolist())

    prefix = lru_cache(maxsize=None)(partial(drawn, prefix_tokens(workload), Draw.PREFIX))

    def numbers(request: Request) -> tuple[int, ...]:
        turns = 0 if workload.conversation is None else workload.conversation.turns
        number = request.index // turns if turns else request.index
        group = shared_group(workload, number)
        head = () if group is None else prefix(group)
        rest = request.input_tokens - len(head)
        return (*head, *(said(rest, number) if turns else drawn(rest, Draw.CONTENT, number)))

    return numbers
