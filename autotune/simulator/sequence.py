"""One request inside the scheduler: how much of it has KV, how many tokens it has, where it was. Pure state.

A sequence alternates between waiting, being prefilled and running; each stay in the running batch is a
`Stay`, from which its token times can be cut out of the batch's step times.
"""

from autotune.request import Request


class Stay:
    """One stay in the running batch: a token when its prefill ended, then one for each step in between."""

    def __init__(self, first_token_s: float, first_step: int) -> None:
        self.first_token_s = first_token_s
        self.first_step = first_step
        self.end_step: int | None = None


class Sequence:
    """A request with its state. KV tokens are `private` (its own) plus `shared` (in the prefix cache).

    `generated` counts output tokens up to the last change of batch; `computed` the prompt and output tokens
    that have KV at that time; `cached_tokens` the prefix hit at its first admission.
    """

    def __init__(self, request: Request, arrived_s: float, *, ignores_eos: bool = True) -> None:
        self.request = request
        self.input_tokens = request.input_tokens
        self.output_tokens = request.output_tokens
        self.prefix_group = request.prefix_group
        self.prefix_tokens = request.prefix_tokens
        self.arrived_s = arrived_s
        self.ignores_eos = ignores_eos
        self.generated = 0
        self.computed = 0
        self.private = 0
        self.shared = 0
        self.cached_tokens: int | None = None
        self.retractions = 0
        self.failure: str | None = None
        self.stays: list[Stay] = []

    @property
    def length(self) -> int:
        """Tokens that must have KV before the next token comes: the prompt and what was generated."""
        return self.input_tokens + self.generated

    @property
    def to_compute(self) -> int:
        """Tokens that still lack KV."""
        return self.input_tokens + self.generated - self.computed

    @property
    def to_generate(self) -> int:
        """Output tokens still to come, as of its last change of batch."""
        return self.output_tokens - self.generated
