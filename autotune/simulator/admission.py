"""One attempt to form a prefill batch: SGLang's token arithmetic for who may join, and how much of them.

In: the pool, the running batch, the new-token ratio, the flags. Out: pieces of prompts. Holds the budgets of
one attempt only. Source: PrefillAdder in managers/schedule_policy.py of SGLang 0.5.23.
"""

from autotune.simulator.costs import token_pairs
from autotune.simulator.flags import SchedulerFlags
from autotune.simulator.pool import KvPool
from autotune.simulator.running import RunningBatch
from autotune.simulator.sequence import Sequence

CLIPPED_NEW_TOKENS = 4096  # SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION
_UNLIMITED = 1 << 60


class Piece:
    """Part of a prompt that one prefill pass computes."""

    def __init__(self, sequence: Sequence, before: int, new: int, *, completes: bool) -> None:
        self.sequence = sequence
        self.before = before
        self.new = new
        self.completes = completes


class PrefillAttempt:
    """The budgets of one attempt; `pieces` is what it has admitted so far, `commit` takes their tokens.

    Until then nothing is evicted, so that no admission costs a later one its cached prefix. `new_tokens` and
    `token_pairs` are what the pieces come to. `lacks_tokens`: somebody was turned away for want of tokens.
    """

    def __init__(
        self, *, flags: SchedulerFlags, pool: KvPool, running: RunningBatch, ratio: float, reserves_all: bool
    ) -> None:
        mixed_in = running.size if flags.mixed_chunk else 0
        chunk = _UNLIMITED if flags.chunk_tokens is None else flags.chunk_tokens
        self.pieces: list[Piece] = []
        self.new_tokens = 0
        self.token_pairs = 0.0
        self.lacks_tokens = False
        self._pool = pool
        self._page = flags.page_tokens
        self._chunk_left = chunk - mixed_in
        self._input_left = flags.max_prefill_tokens - mixed_in
        self._current_offset = mixed_in
        self._total_offset = mixed_in + reserved_tokens(running, ratio, reserves_all=reserves_all)

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
        for piece in self.pieces:
            self._pool.take(piece.sequence, piece.new)

    def go_on_with(self, chunked: Sequence) -> bool:
        """Serve the half-prefilled sequence first; return whether it stays half-prefilled."""
        available, chunk_left, left = self._pool.available, self._chunk_left, chunked.to_compute
        reservable = min(chunk_left, available - self._total_offset)
        room = min(available, int(reservable) if reservable > 0 else max(chunk_left, 0))
        new = min(left, room)
        if new > 0:
            self._add(chunked, new, chunked.to_generate)
        return new < left

    def admit(self, sequence: Sequence) -> bool:
        """Try to add a waiting sequence, whole or its first chunk; what fails leaves no trace."""
        hit = self._pool.lock(sequence)
        new = self._part(sequence.length - hit, sequence.to_generate)
        if not new:
            self._pool.unlock(sequence)
            return False
        sequence.computed = hit
        if sequence.cached_tokens is None:
            sequence.cached_tokens = hit
        self._add(sequence, new, sequence.to_generate)
        return True

    def _part(self, extend: int, to_generate: int) -> int:
        """Return how many of the `extend` tokens that a sequence lacks can join, 0 if none can.

        A first chunk is of whole pages.
        """
        need = extend + min(to_generate, CLIPPED_NEW_TOKENS) + self._page
        if need >= self._pool.available - self._total_offset:
            self.lacks_tokens = True
            return 0
        charged = self._whole_pages(extend)
        if charged > self._input_left and self.pieces:
            return 0
        if charged <= self._chunk_left:
            return extend
        return max(0, self._chunk_left // self._page * self._page)

    def _whole_pages(self, tokens: int) -> int:
        return -(-tokens // self._page) * self._page

    def _add(self, sequence: Sequence, new: int, to_generate: int) -> None:
        before, charged, page = sequence.computed, self._whole_pages(new), self._page
        sequence.computed = before + new
        completes = sequence.to_compute == 0
        self.pieces.append(Piece(sequence, before, new, completes=completes))
        self.new_tokens += new
        self.token_pairs += token_pairs(before, new)
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
