"""What a simulated load did, kept so that its times can be worked out again for other step times.

In: what `recorder.py` saw of a load. Out: its `Schedule`: which passes ran, what each computed, and between
which passes each request waited. Pure. Invariant: with the constants it was recorded with (without noise and
cold start), a schedule gives the very times of the simulation. With others it takes the same passes to run in
the same order; that is exact where only token counts decide who runs (a closed loop that is never idle), and
near it where times do.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autotune.simulator.profile import Experts, StepSeconds

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ROUNDING_S = 1e-9


@dataclass(frozen=True)
class Passes:
    """One row a prefill pass or run of decode passes; a mixed pass has new tokens and sequences.

    `attention_groups`: over how many groups the context is spread (1 unless MLA runs with attention DP).
    """

    graph_limit: int
    attention_groups: int
    new_tokens: Floats
    token_pairs: Floats
    sequences: Floats
    context_sum: Floats
    longest_context: Floats
    steps: Floats
    output_tokens: Floats

    def seconds(self, step: StepSeconds, experts: Experts | None) -> Floats:
        """Return how long each row takes, by the form of `costs.py`."""
        prefill = step.extend_fixed_s + step.extend_token_s * self.new_tokens
        prefill = np.maximum(step.extend_minimum_s, prefill + step.extend_context_s * self.token_pairs)
        base = step.decode_fixed_s + step.decode_sequence_s * (self.sequences - 1)
        base = base + step.decode_experts_s * self._covered(experts)
        decode = self.steps * base + step.decode_context_s / self.attention_groups * self._contexts
        decode += step.decode_longest_s * self._longest
        decode *= np.where(self._is_eager, step.eager_decode_ratio, 1.0)
        beside = step.mixed_context_s
        if beside is None:
            mixed = prefill + decode - step.decode_fixed_s / 2
        else:
            mixed = prefill + beside * self.context_sum
        return np.where(self._is_prefill, np.where(self._is_decode, mixed, prefill), decode)

    @cached_property
    def _is_prefill(self) -> NDArray[np.bool_]:
        return self.new_tokens > 0

    @cached_property
    def _is_decode(self) -> NDArray[np.bool_]:
        return self.sequences > 0

    @cached_property
    def _is_eager(self) -> NDArray[np.bool_]:
        return (self.sequences > self.graph_limit) & ~self._is_prefill

    @cached_property
    def _growth(self) -> Floats:
        return self.steps * (self.steps - 1) / 2

    @cached_property
    def _contexts(self) -> Floats:
        return self.steps * self.context_sum + self.sequences * self._growth

    @cached_property
    def _longest(self) -> Floats:
        return self.steps * self.longest_context + self._growth

    def _covered(self, experts: Experts | None) -> Floats | float:
        if experts is None:
            return 0.0
        missed = 1 - experts.per_token / experts.total
        return np.asarray(missed - missed**self.sequences)


@dataclass(frozen=True)
class Schedule:
    """A load's passes, and its good requests by the passes between which things happened to them.

    A request was sent `sent_offset_s` after the end of pass `sent_after` (-1: the beginning). `idle`: passes
    that waited for a request, with that request's row.
    """

    passes: Passes
    sent_after: Integers
    sent_offset_s: Floats
    first_pass: Integers
    last_pass: Integers
    input_tokens: Integers
    output_tokens: Integers
    idle: tuple[tuple[int, int], ...]
    concurrency: int | None

    def replay(self, step: StepSeconds, experts: Experts | None) -> "Served":
        """Return the times that these passes come to with these constants."""
        ends = np.cumsum(self.passes.seconds(step, experts))
        shift, since = 0.0, 0
        shifts = np.zeros(len(ends))
        for index, row in self.idle:
            shifts[since:] = shift
            before, after = ends[index - 1] + shift if index else 0.0, self.sent_after[row]
            sent = self.sent_offset_s[row] + (ends[after] + shifts[after] if after >= 0 else 0.0)
            shift += max(0.0, sent + step.request_s - before)
            since = index
        shifts[since:] = shift
        ends += shifts
        sent_s = self.sent_offset_s + np.where(self.sent_after >= 0, ends[self.sent_after], 0.0)
        return Served(self, ends, sent_s, ends[self.first_pass] - sent_s, ends[self.last_pass] - sent_s)


@dataclass(frozen=True)
class Served:
    """The times of a schedule: when each pass ended, and each request's; seconds since the load began."""

    schedule: Schedule
    ends_s: Floats
    sent_s: Floats
    ttft_s: Floats
    e2e_s: Floats

    @property
    def tpot_s(self) -> Floats:
        """Time per output token after the first, of requests with more than one."""
        gaps = self.schedule.output_tokens - 1
        return (self.e2e_s - self.ttft_s)[gaps > 0] / gaps[gaps > 0]

    @property
    def busy_s(self) -> float:
        """When the last pass ended."""
        return float(self.ends_s[-1]) if len(self.ends_s) else 0.0

    def output_rate(self, begin_s: float, end_s: float) -> float:
        """Return output tokens per second of the passes that ended in (begin, end]."""
        inside = (self.ends_s > begin_s) & (self.ends_s <= end_s)
        return float(self.schedule.passes.output_tokens[inside].sum()) / max(end_s - begin_s, ROUNDING_S)
