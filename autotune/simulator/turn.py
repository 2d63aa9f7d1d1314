"""What the scheduler says of each move: the passes that it ran, and what came out of them. Pure data.

Also why it refuses a request, and what it did about an exhausted pool.
"""

from dataclasses import dataclass
from enum import StrEnum

from autotune.simulator.admission import Piece
from autotune.simulator.costs import PassLoad
from autotune.simulator.sequence import Sequence


class TurnKind(StrEnum):
    """What one turn did."""

    PREFILL = "prefill"
    MIXED = "mixed"
    DECODE = "decode"
    DIED = "died"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not even queued, with the HTTP status that SGLang gives it."""

    message: str
    status: int


@dataclass(frozen=True, slots=True)
class Retraction:
    """One exhausted pool: who was sent back, and the new-token ratio before and after."""

    sequences: tuple[Sequence, ...]
    tokens_gained: int
    ratio_before: float
    ratio_after: float


class Turn:
    """One prefill pass or a run of passes. `token_times_s`: when every running sequence gained one.

    `first` had their prompt completed and got a token at `ended_s`; `finished` and `aborted` have left.
    `load` is what the pass, or the first of the run, computed. `chunks` are the passes of a run that only
    goes on with one long prompt, each with its end; empty otherwise.
    """

    def __init__(
        self, kind: TurnKind, started_s: float, load: PassLoad, pieces: list[Piece] | None = None
    ) -> None:
        self.kind = kind
        self.started_s = started_s
        self.ended_s = started_s
        self.load = load
        self.pieces = pieces or []
        self.token_times_s: list[float] = []
        self.first: list[Sequence] = []
        self.finished: list[Sequence] = []
        self.aborted: list[Sequence] = []
        self.retraction: Retraction | None = None
        self.chunks: list[tuple[float, PassLoad]] = []

    @property
    def decoded(self) -> int:
        """How many sequences gained a token in every pass."""
        return self.load.sequences
