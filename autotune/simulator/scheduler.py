"""SGLang's scheduler as a state machine: what runs next, how long it takes, and what comes out of it.

In: `submit` with a time, then `turn` after `turn`. Out: a `Turn` for each forward pass (or run of decode
passes), with the tokens it produced. Keeps its own clock `now_s`, which only turns and `idle_until` move;
virtual.py jumps along it, the HTTP server sleeps along it. Source: managers/scheduler.py of 0.5.23:
prefill first, at most one half-prefilled request, a latched `full`, retraction when the pool is exhausted.
Left out: overlap of scheduling and GPU (one pass of extra queueing), partial radix overlap, ranks of
attention DP that run apart (they count as one rank with their summed pool), speculation.
"""

from collections import deque
from math import inf

import numpy as np

from autotune.request import Request
from autotune.simulator.admission import Piece, PrefillAttempt, reserved_tokens
from autotune.simulator.costs import PassLoad, StepCosts, token_pairs
from autotune.simulator.flags import SchedulerFlags
from autotune.simulator.ordering import in_policy_order
from autotune.simulator.pool import KvPool
from autotune.simulator.running import RunningBatch
from autotune.simulator.sequence import Sequence
from autotune.simulator.turn import Refusal, Retraction, Turn, TurnKind

_INITIAL_RATIO = 0.7  # SGLANG_INIT_NEW_TOKEN_RATIO
_FLOOR_FACTOR = 0.14  # SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR
_DECAY_STEPS = 600  # SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS
_RETRACT_STEPS = 20  # SGLANG_RETRACT_DECODE_STEPS


class Scheduler:
    """The scheduler of one launch; see the module.

    `prefill_room_tokens`: a prefill pass of more new tokens runs out of GPU memory and kills the engine.
    """

    def __init__(
        self,
        *,
        flags: SchedulerFlags,
        costs: StepCosts,
        pool_tokens: int,
        running_limit: int,
        reserves_ignored_eos: bool = False,
        prefill_room_tokens: float = inf,
        seed: int = 0,
    ) -> None:
        self.flags = flags
        self.pool = KvPool(pool_tokens, caches=flags.radix_cache)
        self.running = RunningBatch()
        self.waiting: deque[Sequence] = deque()
        self.chunked: Sequence | None = None
        self.now_s = 0.0
        self.running_limit = running_limit
        self.is_dead = False
        self._costs = costs
        self._reserves_all = reserves_ignored_eos
        self._prefill_room_tokens = prefill_room_tokens
        self._generator = np.random.default_rng(seed)
        self._full = False
        self._initial_ratio = min(_INITIAL_RATIO * flags.conservativeness, 1.0)
        self._floor_ratio = self._initial_ratio * _FLOOR_FACTOR
        self._decay = (self._initial_ratio - self._floor_ratio) / _DECAY_STEPS
        self.ratio = self._initial_ratio
        self._decodes_owed = 0

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do until a request comes."""
        return not self.running.size and self.chunked is None and not self.waiting

    @property
    def longest_request_tokens(self) -> int:
        """The most tokens a request may have, prompt and output, to be served at all."""
        return min(self.flags.context_tokens - 1, self.pool.capacity - self.flags.page_tokens - 2)

    def refusal(self, request: Request) -> Refusal | None:
        """Return why a request cannot be queued now, None if it can."""
        prompt, total = request.input_tokens, request.input_tokens + request.output_tokens
        context = self.flags.context_tokens
        if prompt >= context:
            text = (
                f"The input ({prompt} tokens) is longer than the model's context length ({context} tokens)."
            )
            return Refusal(text, 400)
        if total > self.longest_request_tokens:
            text = (
                f"Requested token count exceeds the model's maximum context length of {context} tokens or the"
                f" KV pool of {self.pool.capacity} tokens. You requested a total of {total} tokens: {prompt}"
                f" tokens from the input messages and {request.output_tokens} tokens for the completion."
            )
            return Refusal(text, 400)
        limit = self.flags.max_queued_requests
        if limit is not None and len(self.waiting) >= limit:
            return Refusal("The request queue is full.", 503)
        return None

    def submit(self, sequence: Sequence) -> None:
        """Queue a request that was not refused."""
        self.waiting.append(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Drop a request wherever it is, and free what it holds."""
        if sequence in self.running:
            self.running.leave(sequence)
        elif sequence is self.chunked:
            self.chunked = None
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._full = False
        self.pool.give_back(sequence)

    def flush_cache(self) -> bool:
        """Empty the prefix cache; return False, having done nothing, unless idle."""
        if self.is_idle:
            self.pool.flush()
        return self.is_idle

    def idle_until(self, now_s: float) -> None:
        """Move the clock over time in which there was nothing to do."""
        self.now_s = max(self.now_s, now_s)
        self.ratio = self._initial_ratio

    def turn(
        self, *, until_s: float = inf, most_steps: int | None = None, joins_chunks: bool = False
    ) -> Turn:
        """Run the next prefill pass, or decode passes up to the first event; must not be idle.

        Decode passes stop with the first that ends at or after `until_s`, so that an arrival then is seen
        when it would have been, and after `most_steps`. With `joins_chunks`, passes that each compute a whole
        chunk of the same long prompt, which nobody can join or leave, are one turn. The result does not
        depend on how a run is cut.
        """
        if joins_chunks and self.chunked is not None:
            chunk_tokens, passes = self._whole_chunks(self.chunked)
            if passes > 1:
                return self._prefill_chunks(self.chunked, chunk_tokens, passes)
        attempt = self._form_prefill()
        if attempt is not None and attempt.pieces:
            return self._prefill(attempt)
        if self.running.size:
            return self._decode(until_s, most_steps)
        raise AssertionError("a request that fits the pool was not admitted to an empty engine")

    # --- prefill

    def _form_prefill(self) -> PrefillAttempt | None:
        if self._decodes_owed > 0 and self._owes_decodes():
            return None
        if self.chunked is None and (self._full or not self.waiting):
            return None
        slots = self.running_limit - self.running.size
        if slots <= 0 and self.chunked is None:
            self._full = True
            return None
        attempt = PrefillAttempt(
            flags=self.flags,
            pool=self.pool,
            running=self.running,
            ratio=self.ratio,
            reserves_all=self._reserves_all,
        )
        if self.chunked is not None and not attempt.go_on_with(self.chunked):
            self.chunked = None
        if self.waiting and (self.chunked is None or self.flags.policy == "random"):
            self._admit_waiting(attempt, slots)
        attempt.commit()
        return attempt

    def _owes_decodes(self) -> bool:
        return self.running.size >= max(1, self.flags.prefill_decode_interval_min_bs)

    def _admit_waiting(self, attempt: PrefillAttempt, slots: int) -> None:
        ordered = in_policy_order(self.flags.policy, self.waiting, self.pool, self.now_s, self._generator)
        admitted: set[Sequence] = set()
        most = self.flags.prefill_max_requests or slots
        for sequence in ordered:
            if self.chunked is not None or attempt.is_exhausted:
                break
            if len(attempt.pieces) >= slots:
                self._full = True
                break
            if len(attempt.pieces) >= most:
                break
            if not attempt.admit(sequence):
                if attempt.lacks_tokens:
                    self._full = bool(attempt.pieces) or bool(self.running.size)
                break
            admitted.add(sequence)
            if sequence.to_compute:
                self.chunked = sequence
            if attempt.is_out_of_tokens:
                self._full = True
                break
        self._forget_waiting(admitted)

    def _forget_waiting(self, admitted: set[Sequence]) -> None:
        while self.waiting and self.waiting[0] in admitted:
            admitted.remove(self.waiting.popleft())
        if admitted:
            self.waiting = deque(each for each in self.waiting if each not in admitted)

    def _prefill(self, attempt: PrefillAttempt) -> Turn:
        if attempt.new_tokens > self._prefill_room_tokens:
            return self._die(attempt.pieces)
        self._decodes_owed = self.flags.prefill_decode_interval
        load = self._load(attempt.new_tokens, attempt.token_pairs, mixes=self._mixes_decodes())
        turn = Turn(TurnKind.PREFILL, self.now_s, load, attempt.pieces)
        self.now_s += self._costs.prefill_s(load)
        turn.ended_s = self.now_s
        if load.sequences:
            turn.kind, turn.token_times_s = TurnKind.MIXED, [self.now_s]
            self._grow(1)
            turn.finished = self._retire(self.running.take_complete())
        for piece in attempt.pieces:
            self._end_piece(piece, turn)
        return turn

    def _mixes_decodes(self) -> bool:
        return self.flags.mixed_chunk and 0 < self.running.size <= self.pool.available

    def _end_piece(self, piece: Piece, turn: Turn) -> None:
        sequence = piece.sequence
        if sequence.computed >= sequence.prefix_tokens:
            self.pool.share_prefix(sequence)
        if piece.completes:
            turn.first.append(sequence)
            self.running.join(sequence, self.now_s)
            if sequence.to_generate == 0:
                self.running.leave(sequence)
                turn.finished += self._retire([sequence])

    def _die(self, pieces: list[Piece]) -> Turn:
        self.is_dead = True
        return Turn(TurnKind.DIED, self.now_s, PassLoad(0, 0.0, 0, 0, 0), pieces)

    # --- a run of chunks

    def _whole_chunks(self, chunked: Sequence) -> tuple[int, int]:
        """Return the size of the next chunks, and how many passes do nothing but compute one of them each.

        That ends before the prompt or its shared prefix is complete, a running sequence has all its tokens,
        or the pool (a token early, for the rounding of what is reserved) has no room for a whole chunk.
        """
        flags, running = self.flags, self.running
        mixed_in = running.size if flags.mixed_chunk else 0
        chunk = (flags.chunk_tokens or 0) - mixed_in
        owes = self._decodes_owed or flags.prefill_decode_interval
        if not 0 < chunk <= self._prefill_room_tokens or owes or flags.policy == "random":
            return 0, 0
        to_prefix = chunked.prefix_tokens - chunked.computed
        tokens = min(chunked.to_compute, to_prefix) if to_prefix > 0 else chunked.to_compute
        if tokens <= 2 * chunk:
            return chunk, 1
        reserved = mixed_in + reserved_tokens(running, self.ratio, reserves_all=self._reserves_all)
        room = int(self.pool.available - reserved) - 1
        passes = min((tokens - 1) // chunk, (room + mixed_in) // (chunk + mixed_in))
        return chunk, min(passes, running.steps_to_first_end() - 1) if mixed_in else passes

    def _prefill_chunks(self, chunked: Sequence, chunk: int, passes: int) -> Turn:
        loads = [
            self._load(
                chunk,
                token_pairs(chunked.computed + number * chunk, chunk),
                mixes=self.flags.mixed_chunk,
                steps=number,
            )
            for number in range(passes)
        ]
        turn = Turn(TurnKind.PREFILL, self.now_s, loads[0])
        for load in loads:
            self.now_s += self._costs.prefill_s(load)
            turn.chunks.append((self.now_s, load))
        chunked.computed += passes * chunk
        self.pool.take(chunked, passes * chunk)
        if turn.load.sequences:
            turn.kind = TurnKind.MIXED
            turn.token_times_s = [ended_s for ended_s, _ in turn.chunks]
            self._grow(passes)
        turn.ended_s = self.now_s
        return turn

    # --- decode

    def _decode(self, until_s: float, most_steps: int | None) -> Turn:
        started_s, running = self.now_s, self.running
        retraction: Retraction | None = None
        aborted: list[Sequence] = []
        if running.size > self.pool.available:
            retraction, aborted = self._make_room()
        load = self._load(0, 0.0, mixes=True)
        turn = Turn(TurnKind.DECODE, started_s, load)
        turn.retraction, turn.aborted = retraction, aborted
        if not running.size:
            return turn
        turn.token_times_s = self._costs.decode_ends_s(
            load, now_s=started_s, most_steps=self._steps_without_event(most_steps), until_s=until_s
        )
        turn.ended_s = self.now_s = turn.token_times_s[-1]
        steps = len(turn.token_times_s)
        self._grow(steps)
        if retraction is None:
            self.ratio = max(self.ratio - steps * self._decay, self._floor_ratio)
        self._decodes_owed = max(0, self._decodes_owed - steps)
        turn.finished = self._retire(running.take_complete())
        return turn

    def _steps_without_event(self, most_steps: int | None) -> int:
        steps = min(self.running.steps_to_first_end(), self.pool.available // self.running.size)
        if self._decodes_owed > 0 and self._owes_decodes():
            steps = min(steps, self._decodes_owed)
        elif (self.waiting and not self._full) or self.chunked is not None:
            steps = 1
        return steps if most_steps is None else min(steps, most_steps)

    def _load(self, new_tokens: int, token_pairs: float, *, mixes: bool, steps: int = 0) -> PassLoad:
        """Return what a pass computes, with the running sequences if it `mixes` them in.

        These have gained a token in each of `steps` passes before it, in which nobody came or went.
        """
        running = self.running
        if not (mixes and running.size):
            return PassLoad(new_tokens, token_pairs, 0, 0, 0)
        return PassLoad(
            new_tokens,
            token_pairs,
            running.size,
            running.context_sum + steps * running.size,
            running.longest_context + steps,
        )

    def _grow(self, steps: int) -> None:
        self.pool.take_unowned(self.running.advance(steps))

    def _retire(self, complete: list[Sequence]) -> list[Sequence]:
        """Let go of sequences that have all their tokens, and return them."""
        for sequence in complete:
            self.pool.retire(sequence)
        if complete:
            self._full = False
            if self.is_idle:
                self.ratio = self._initial_ratio
        return complete

    # --- an exhausted pool

    def _make_room(self) -> tuple[Retraction, list[Sequence]]:
        """Retract until one more step fits; the last one left is aborted, as SGLang does."""
        before, ratio_before = self.pool.available, self.ratio
        retracted: list[Sequence] = []
        while len(self.running) > 1 and (not retracted or len(self.running) > self.pool.available):
            retracted.append(self._retract(self.running.weakest()))
        aborted = []
        if len(self.running) > self.pool.available:
            (last,) = self.running
            self.running.leave(last)
            self.pool.give_back(last)
            last.failure = f"retract_decode: aborted last request {last.request.index} due to OOM"
            aborted.append(last)
        self._full = False
        self.ratio = self._ratio_of_survivors()
        gained = self.pool.available - before
        return Retraction(tuple(retracted), gained, ratio_before, self.ratio), aborted

    def _retract(self, sequence: Sequence) -> Sequence:
        self.running.leave(sequence)
        self.pool.give_back(sequence)
        sequence.computed = 0
        sequence.retractions += 1
        self.waiting.append(sequence)
        return sequence

    def _ratio_of_survivors(self) -> float:
        generated = sum(self.running.generated(each) for each in self.running)
        most = sum(each.output_tokens for each in self.running)
        return min(1.0, (generated + _RETRACT_STEPS * len(self.running)) / (most + 1))
