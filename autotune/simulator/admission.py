"""One attempt to form a prefill batch: SGLang's token arithmetic for who may join, and how much of them.

In: the pool, the running batch, the new-token ratio, the flags. Out: pieces of prompts. Holds the budgets of
one attempt only. Source: PrefillAdder in managers/schedule_policy.py of SGLang 0.5.23.
"""

from enum import Enum, auto
from typing import NamedTuple

from autotune.simulator.costs import PrefillLoad
from autotune.simulator.flags import SchedulerFlags
from autotune.simulator.pool import KvPool
from autotune.simulator.running import RunningBatch
from autotune.simulator.sequence import Sequence

CLIPPED_NEW_TOKENS = 4096  # SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION
_UNLIMITED = 1 << 60


class Piece(NamedTuple):
    """Part of a prompt that one prefill pass computes."""

    sequence: Sequence
    before: int
    new: int
    completes: bool


class Admitted(Enum):
    """What became of one waiting sequence."""

    WHOLE = auto()
    CHUNKED = auto()
    NO_TOKENS = auto()
    NO_BUDGET = auto()

    @property
    def is_in(self) -> bool:
        """Whether it joins the pass."""
        return self is Admitted.WHOLE or self is Admitted.CHUNKED


class PrefillAttempt:
    """The budgets of one attempt; `pieces` is what it has admitted so far, `commit` takes their tokens.

    Until then nothing is evicted, so that no admission costs a later one its cached prefix. `load` is what
    the pieces come to.
    """

    __slots__ = (
        "_chunk_left",
        "_current_offset",
        "_input_left",
        "_new_tokens",
        "_page",
        "_pool",
        "_token_pairs",
        "_total_offset",
        "pieces",
    )

    def __init__(
        self, *, flags: SchedulerFlags, pool: KvPool, running: RunningBatch, ratio: float, reserves_all: bool
    ) -> None:
        mixed_in = running.size if flags.mixed_chunk else 0
        chunk = _UNLIMITED if flags.chunk_tokens is None else flags.chunk_tokens
        self.pieces: list[Piece] = []
        self._new_tokens = 0
        self._token_pairs = 0.0
        self._pool = pool
        self._page = flags.page_tokens
        self._chunk_left = chunk - mixed_in
        self._input_left = flags.max_prefill_tokens - mixed_in
        self._current_offset = mixed_in
        self._total_offset = mixed_in + reserved_tokens(running, ratio, reserves_all=reserves_all)

    @property
    def load(self) -> PrefillLoad:
        """What the pass computes."""
        return PrefillLoad(self._new_tokens, self._token_pairs)

    @property
    def is_exhausted(self) -> bool:
        """Whether the chunk or the prefill token limit is used up."""
        return self._chunk_left <= 0 or self._input_left <= 0

    @property
    def is_out_of_tokens(self) -> bool:
        """Whether nothing more can be reserved or allocated."""
        available = self._pool.available
        return available <= self._total_offset or available <= self._current_offset

    def commit(self) -> None:
        """Take the admitted tokens out of the pool."""
        take = self._pool.take
        for sequence, _, new, _ in self.pieces:
            take(sequence, new)

    def go_on_with(self, chunked: Sequence) -> bool:
        """Serve the half-prefilled sequence first; return whether it stays half-prefilled."""
        available, chunk_left, left = self._pool.available, self._chunk_left, chunked.to_compute
        room = min(chunk_left, available - self._total_offset)
        new = min(left, int(room) if room > 0 else max(chunk_left, 0), available)
        if new > 0:
            self._add(chunked, new, chunked.to_generate)
        return new < left

    def admit(self, sequence: Sequence) -> Admitted:
        """Try to add a waiting sequence, whole or its first chunk; whatever fails leaves no trace."""
        hit = self._pool.lock(sequence)
        extend, to_generate = sequence.length - hit, sequence.to_generate
        new = self._part(extend, to_generate)
        if isinstance(new, Admitted):
            self._pool.unlock(sequence)
            return new
        sequence.computed = hit
        if sequence.cached_tokens is None:
            sequence.cached_tokens = hit
        self._add(sequence, new, to_generate)
        return Admitted.WHOLE if new == extend else Admitted.CHUNKED

    def _part(self, extend: int, to_generate: int) -> int | Admitted:
        """Return how many of the `extend` tokens that a sequence lacks can join, or why none can.

        A first chunk is of whole pages.
        """
        need = extend + min(to_generate, CLIPPED_NEW_TOKENS) + self._page
        if need >= self._pool.available - self._total_offset:
            return Admitted.NO_TOKENS
        charged = self._whole_pages(extend)
        if charged > self._input_left and self.pieces:
            return Admitted.NO_BUDGET
        if charged <= self._chunk_left:
            return extend
        first = self._chunk_left // self._page * self._page
        return first if first > 0 else Admitted.NO_BUDGET

    def _whole_pages(self, tokens: int) -> int:
        return -(-tokens // self._page) * self._page

    def _add(self, sequence: Sequence, new: int, to_generate: int) -> None:
        before, charged, page = sequence.computed, self._whole_pages(new), self._page
        sequence.computed = before + new
        completes = sequence.computed == sequence.length
        self.pieces.append(Piece(sequence, before, new, completes))
        self._new_tokens += new
        self._token_pairs += new * (before + new / 2)
        self._current_offset += charged + page
        reserve = min(to_generate, CLIPPED_NEW_TOKENS) if completes else 0
        self._total_offset += charged + reserve + page
        self._input_left -= charged
        self._chunk_left -= charged


def reserved_tokens(running: RunningBatch, ratio: float, *, reserves_all: bool) -> float:
    """Return what running sequences may still write: a share of it, or all of it where they ignore eos."""
    if not reserves_all:
        return ratio * running.remaining_sum(CLIPPED_NEW_TOKENS)
    return sum(
        min(running.remaining(each), CLIPPED_NEW_TOKENS) * (1.0 if each.ignores_eos else ratio)
        for each in running
    )
