"""What requests look like: the `workload` of an SLO file, as data. Pure.

In: the keys of a workload. Out: a `Workload` whose parts do not contradict each other, or an error that says
what to give instead. `making` turns it into requests, `prompts` fills them, `workload` offers them.
"""

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, PositiveInt, model_validator

from autotune.document import Frozen
from autotune.load.lengths import Length, shortest_tokens


class Wire(StrEnum):
    """Which HTTP endpoint requests go to."""

    GENERATE = "generate"
    COMPLETIONS = "completions"
    CHAT = "chat"


class SharedPrefix(Frozen):
    """`groups` different prefixes of `tokens` tokens, taken in turn by the share `ratio` of all requests.

    So of n tokens of prompts about n * ratio * tokens / mean length can be cache hits, all but each group's
    first. With a conversation the share is that of conversations, and the prefix (a system prompt, say)
    stands before the first turn's `input_tokens`; without one it is a part of them.
    """

    groups: PositiveInt
    tokens: PositiveInt
    ratio: float = Field(default=1.0, gt=0, le=1)


class Conversation(Frozen):
    """Requests come as conversations of `turns`; a turn is sent `pause_s` after the one before has ended.

    A turn's prompt is the one before, an answer to it, and `input_tokens` new ones. That answer is made up in
    the length asked for there, so that every trial sends the same: an engine's cache can hit the prompt
    before, but not the answer to it. A dataset's conversations are sent with their own questions and answers,
    the first `turns` turns of each; on the chat endpoint as messages, else as one text.
    The simulator knows the prompts before, but no `shared_prefix` of conversations.
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
        self._check_prefix()
        return self

    def _check_prefix(self) -> None:
        if self.shared_prefix is None:
            return
        if self.input_tokens is None:
            raise ValueError("shared_prefix belongs to input_tokens; a dataset brings its own prefixes")
        shortest = shortest_tokens(self.input_tokens)
        if self.conversation is None and self.shared_prefix.tokens >= shortest:
            raise ValueError(
                f"a shared prefix of {self.shared_prefix.tokens} tokens leaves nothing of the shortest "
                f"input, {shortest} tokens (a lognormal length takes a minimum)"
            )
