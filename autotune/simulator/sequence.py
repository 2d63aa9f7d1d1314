"""One request inside the scheduler: how much of it has KV, how many tokens it has, where it was. Pure state.

A sequence alternates between waiting, being prefilled and running; each stay in the running batch is a
`Stay`, from which its token times can be cut out of the batch's step times.
"""

from dataclasses import dataclass, field

from autotune.request import Request


@dataclass(slots=True)
class Stay:
    """One stay in the running batch: a token when its prefill ended, then one for each step in between."""

    first_token_s: float
    first_step: int
    end_step: int | None = None


@dataclass(slots=True, eq=False)
class Sequence:
    """A request with its state. KV tokens are `private` (its own) plus `shared` (in the prefix cache).

    `generated` counts output tokens up to the last change of batch; `computed` the prompt and output tokens
    that have KV at that time; `cached_tokens` the prefix hit at its first admission.
    """

    request: Request
    arrived_s: float
    ignores_eos: bool = True
    generated: int = 0
    computed: int = 0
    private: int = 0
    shared: int = 0
    cached_tokens: int | None = None
    retractions: int = 0
    finished_s: float | None = None
    failure: str | None = None
    stays: list[Stay] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens that must have KV before the next token comes: the prompt and what was generated."""
        return self.request.input_tokens + self.generated

    @property
    def to_compute(self) -> int:
        """Tokens that still lack KV."""
        return self.length - self.computed

    @property
    def to_generate(self) -> int:
        """Output tokens still to come, as of its last change of batch."""
        return self.request.output_tokens - self.generated
