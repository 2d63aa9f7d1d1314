"""Requests without random prompts: their lengths, what they share, and texts of a dataset.

In: a `Workload`. Out: a function that makes the request of an index. Reads a dataset and, to count its texts,
a tokenizer. Invariant: a request depends on the workload (its seed) and its index alone.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import accumulate

from autotune.load.dataset import Turn, read_dataset
from autotune.load.lengths import Draw, Length, drawn_tokens, generator_for
from autotune.load.shape import Wire, Workload
from autotune.load.text import text_maker
from autotune.request import Request

_BETWEEN = "\n\n"

CHARACTERS_PER_TOKEN = 4
"""Estimate of a text prompt's length before an engine has counted it (English, byte-pair vocabularies)."""


@dataclass(frozen=True)
class Maker:
    """Makes the request of an index. `mean_turns`: requests per conversation, 1 without conversations."""

    make: Callable[[int], Request]
    mean_turns: float = 1.0


def request_maker(workload: Workload, *, from_the_end: bool = False) -> Maker:
    """Return what makes a workload's requests; `from_the_end`: a dataset's lines in reverse order.

    Raises:
        ConfigError: the dataset or the tokenizer cannot be read.
    """
    conversation = workload.conversation
    if workload.input_tokens is not None:
        if conversation is None:
            return Maker(partial(_random_request, workload, workload.input_tokens))
        return Maker(partial(_turn, workload, workload.input_tokens), conversation.turns)
    if workload.dataset is None:
        raise AssertionError("a workload has input_tokens or a dataset")
    talks = read_dataset(workload.dataset)
    order = generator_for(workload.seed, Draw.DATASET_ORDER).permutation(len(talks))
    if from_the_end:
        order = order[::-1]
    most = 1 if conversation is None else conversation.turns
    lines = _Lines(workload, tuple(talks[position].turns[:most] for position in order.tolist()))
    return Maker(partial(_dataset_request, lines), lines.ends[-1] / len(lines.talks))


def shared_group(workload: Workload, number: int) -> int | None:
    """Return the group whose prefix a request or, with conversations, a conversation begins with."""
    shared = workload.shared_prefix
    if shared is None:
        return None
    has_prefix = (
        shared.ratio == 1 or generator_for(workload.seed, Draw.HAS_PREFIX, number).random() < shared.ratio
    )
    return number % shared.groups if has_prefix else None


def _random_request(workload: Workload, input_tokens: Length, index: int) -> Request:
    group = shared_group(workload, index)
    return Request(
        index=index,
        input_tokens=drawn_tokens(input_tokens, workload.seed, Draw.INPUT_TOKENS, index),
        output_tokens=drawn_tokens(workload.output_tokens, workload.seed, Draw.OUTPUT_TOKENS, index),
        prefix_group=group,
        prefix_tokens=0 if group is None else prefix_tokens(workload),
    )


def prefix_tokens(workload: Workload) -> int:
    """Return the length of a shared prefix, 0 where there is none."""
    return 0 if workload.shared_prefix is None else workload.shared_prefix.tokens


def _turn(workload: Workload, input_tokens: Length, index: int) -> Request:
    """Return one turn of a made-up conversation."""
    if workload.conversation is None:
        raise AssertionError("a turn belongs to a conversation")
    conversation, turn = divmod(index, workload.conversation.turns)
    said = range(index - turn, index + 1)
    asked = [drawn_tokens(input_tokens, workload.seed, Draw.INPUT_TOKENS, each) for each in said]
    answers = [drawn_tokens(workload.output_tokens, workload.seed, Draw.OUTPUT_TOKENS, each) for each in said]
    opening = 0 if shared_group(workload, conversation) is None else prefix_tokens(workload)
    prompt_tokens = opening + sum(asked) + sum(answers[:-1])
    return _as_turn(Request(index, prompt_tokens, answers[-1]), workload, turn, conversation)


def _as_turn(request: Request, workload: Workload, turn: int, conversation: int) -> Request:
    """Return a request as a turn; its whole prompt counts as a prefix: the next turn's begins with it."""
    pause_s = 0.0 if workload.conversation is None else workload.conversation.pause_s
    return replace(
        request,
        prefix_group=conversation,
        prefix_tokens=request.input_tokens,
        after=request.index - 1 if turn else None,
        pause_s=pause_s if turn else 0.0,
    )


@dataclass(frozen=True, eq=False)
class _Lines:
    """A dataset's talks in the order in which they are sent; a turn is counted when it is first looked at."""

    workload: Workload
    talks: tuple[tuple[Turn, ...], ...]
    _known: dict[tuple[int, int], "_Asked"] = field(default_factory=dict, repr=False)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """How many requests there are up to the end of each talk."""
        return tuple(accumulate(map(len, self.talks)))

    def place(self, index: int) -> tuple[int, int]:
        """Return which talk a request belongs to, and which turn of it; they repeat after a full pass."""
        number = index % self.ends[-1]
        talk = bisect_right(self.ends, number)
        return talk, number - (self.ends[talk] - len(self.talks[talk]))

    def asked(self, talk: int, turn: int) -> "_Asked":
        """Return what a turn says and how long it and its answer are."""
        if (talk, turn) not in self._known:
            self._known[talk, turn] = self._counted(self.talks[talk][: turn + 1])
        return self._known[talk, turn]

    def _counted(self, turns: Sequence[Turn]) -> "_Asked":
        """Count all that was said so far: as messages for chat, else as one text."""
        is_chat = self.workload.endpoint is Wire.CHAT
        texts = _said(turns) if is_chat else (_BETWEEN.join(_said(turns)),)
        answer = turns[-1].answer
        return _Asked(
            texts,
            sum(self._tokens(text, special=not is_chat) for text in texts),
            turns[-1].output_tokens if answer is None else self._tokens(answer, special=False),
        )

    def _tokens(self, text: str, *, special: bool) -> int:
        """Return a text's length, estimated without a tokenizer."""
        if self.workload.tokenizer is None:
            return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
        return text_maker(self.workload.tokenizer).count(text, special=special)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The texts of a turn and before, their tokens, and those of its answer where the dataset tells."""

    texts: tuple[str, ...]
    input_tokens: int
    output_tokens: int | None


def _dataset_request(lines: _Lines, index: int) -> Request:
    """Return a turn of a talk, with all that was said before it."""
    workload = lines.workload
    talk, turn = lines.place(index)
    asked = lines.asked(talk, turn)
    drawn = drawn_tokens(workload.output_tokens, workload.seed, Draw.OUTPUT_TOKENS, index)
    output_tokens = asked.output_tokens or drawn
    request = Request(index, asked.input_tokens, output_tokens, text=asked.texts[-1], said=asked.texts[:-1])
    return request if workload.conversation is None else _as_turn(request, workload, turn, talk)


def _said(turns: Sequence[Turn]) -> tuple[str, ...]:
    """Return questions and answers in turn, up to the last question."""
    before = (text for turn in turns[:-1] for text in (turn.prompt, turn.answer or ""))
    return (*before, turns[-1].prompt)
