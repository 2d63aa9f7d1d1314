"""The running batch: sequences that each gain one token per step, whether decoded or mixed into a prefill.

In: joins, leaves and steps. Out: who finishes when, and the sums that admission and step times need. Pure
state. Invariant: between joins and leaves nothing is stored per step, so advancing by k steps is one move.
"""

import heapq
from collections.abc import Iterator

from autotune.simulator.sequence import Sequence, Stay


class RunningBatch:
    """Sequences with the step at which each joined and will end; `step` counts token steps since launch.

    `size` is how many there are.
    """

    def __init__(self) -> None:
        self.size = 0
        self.step = 0
        self.context_sum = 0
        self._members: dict[Sequence, int] = {}
        self._ends: list[tuple[int, int, Sequence]] = []
        self._joins = 0
        self._early_leaves = 0
        self._longest_offset: int | None = None
        self._end_sum = 0
        self._longest_output_tokens = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._members)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._members

    def join(self, sequence: Sequence, now_s: float) -> None:
        """Add a sequence whose prompt is complete and whose next token came out at `now_s`."""
        step = self.step
        sequence.generated += 1
        sequence.stays.append(Stay(now_s, step))
        end, length = step + sequence.to_generate, sequence.length
        self._members[sequence] = step
        self.size += 1
        self._end_sum += end
        self._longest_output_tokens = max(self._longest_output_tokens, sequence.output_tokens)
        self._joins += 1
        heapq.heappush(self._ends, (end, self._joins, sequence))
        self.context_sum += length
        if self._longest_offset is not None and length - step > self._longest_offset:
            self._longest_offset = length - step

    def leave(self, sequence: Sequence) -> None:
        """Remove a sequence before its end and bring its own counts up to date."""
        self._early_leaves += 1
        self._remove(sequence)

    def _remove(self, sequence: Sequence) -> None:
        joined = self._members.pop(sequence)
        self.size -= 1
        self._end_sum -= joined + sequence.to_generate
        gained = self.step - joined
        sequence.generated += gained
        sequence.computed += gained
        sequence.private += gained
        sequence.stays[-1].end_step = self.step
        length = sequence.length
        self.context_sum -= length
        if self._longest_offset == length - self.step or not self.size:
            self._longest_offset = None

    def advance(self, steps: int) -> int:
        """Let every sequence gain `steps` tokens, and return how many these are together."""
        gained = steps * self.size
        self.step += steps
        self.context_sum += gained
        return gained

    def steps_to_first_end(self) -> int:
        """Return after how many steps the next sequence is complete; the batch must not be empty."""
        while self._is_stale(self._ends[0]):
            heapq.heappop(self._ends)
        return self._ends[0][0] - self.step

    def take_complete(self) -> list[Sequence]:
        """Remove and return the sequences that have all their tokens, in the order they joined."""
        if not self._ends or self._ends[0][0] > self.step:
            return []
        complete: list[Sequence] = []
        while self._ends and self._ends[0][0] <= self.step:
            entry = heapq.heappop(self._ends)
            if not self._is_stale(entry):
                self._remove(entry[2])
                complete.append(entry[2])
        return complete

    def generated(self, sequence: Sequence) -> int:
        """Return how many output tokens a member has now."""
        return sequence.generated + self.step - self._members[sequence]

    def remaining(self, sequence: Sequence) -> int:
        """Return how many output tokens a member still lacks."""
        return sequence.output_tokens - self.generated(sequence)

    def remaining_sum(self, most: int) -> int:
        """Return how many output tokens all members still lack, at most `most` counted for each."""
        if self._longest_output_tokens <= most:
            return self._end_sum - self.step * self.size
        return sum(min(self.remaining(each), most) for each in self)

    @property
    def longest_context(self) -> int:
        """The longest member's prompt and output; 0 if there is none."""
        if not self.size:
            return 0
        if self._longest_offset is None:
            self._longest_offset = max(each.length - joined for each, joined in self._members.items())
        return self._longest_offset + self.step

    def weakest(self) -> Sequence:
        """Return whom retraction takes first: least output, then longest prompt (schedule_batch.py)."""
        return min(self, key=lambda each: (self.generated(each), -each.input_tokens))

    def _is_stale(self, entry: tuple[int, int, Sequence]) -> bool:
        if not self._early_leaves:
            return False
        end, _, sequence = entry
        joined = self._members.get(sequence)
        return joined is None or joined + sequence.to_generate != end
