"""What the scheduler says of each move: the passes that it ran, and what came out of them. Pure data.

Also why it refuses a request, and what it did about an exhausted pool.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autotune.simulator.admission import Piece
from autotune.simulator.costs import DecodeLoad, PrefillLoad
from autotune.simulator.sequence import Sequence

NO_TIMES: NDArray[np.float64] = np.empty(0)
NO_TIMES.flags.writeable = False
Sequences: TypeAlias = list[Sequence] | tuple[()]
ChunkPass: TypeAlias = tuple[float, PrefillLoad, DecodeLoad | None]


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


@dataclass(slots=True)
class Turn:
    """One prefill pass or a run of passes. `token_times_s`: when every running sequence gained one.

    `first` had their prompt completed and got a token at `ended_s`; `finished` and `aborted` have left.
    The loads are what the pass, or the first of the run, computed. `chunks` are the passes of a run that only
    goes on with one long prompt, each with its end; empty otherwise.
    """

    kind: TurnKind
    started_s: float
    ended_s: float
    token_times_s: NDArray[np.float64] = field(default_factory=lambda: NO_TIMES)
    pieces: tuple[Piece, ...] = ()
    first: Sequences = ()
    finished: Sequences = ()
    aborted: Sequences = ()
    retraction: Retraction | None = None
    decoded: int = 0
    prefill_load: PrefillLoad | None = None
    decode_load: DecodeLoad | None = None
    chunks: tuple[ChunkPass, ...] = ()
