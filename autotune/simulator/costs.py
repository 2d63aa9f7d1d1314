"""How long a forward pass takes: the linear form of the profile's constants, times seeded noise.

In: what is in a pass. Out: seconds. Pure but for its random generator.

    prefill = max(minimum, fixed + token * sum(new) + context * sum(new * (before + new / 2)))
    decode  = fixed + experts * (cov(B) - cov(1)) + sequence * (B - 1)
              + context * sum(ctx) + longest * max(ctx)
    cov(B)  = 1 - (1 - experts per token / experts)^B        the share of experts that B sequences touch
    mixed   = prefill + decode - fixed / 2, or prefill + mixed_context * sum(ctx) where that was measured

Under attention DP each of its groups reads the context of its own sequences only, where every card would read
all of it otherwise (MLA): `sum(ctx)` is then that of one group, the groups being taken to be even.

The form interpolates measured step times within a few per cent; it does not extrapolate across workloads.
It leaves out padding to captured graph sizes and the overlap of scheduling with the forward pass.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.simulator.profile import Experts, Profile, StepSeconds

_BLOCK = 1024
_LEAST_FACTOR = 0.5
_COUNT = np.arange(4096.0)


class PrefillLoad(NamedTuple):
    """What a prefill pass computes: new tokens, and token pairs (each new token with what is before it)."""

    new_tokens: int
    token_pairs: float

    @classmethod
    def of(cls, pieces: Iterable[tuple[int, int]]) -> "PrefillLoad":
        """Return the load of pieces given as (tokens before, new tokens)."""
        tokens, pairs = 0, 0.0
        for before, new in pieces:
            tokens += new
            pairs += new * (before + new / 2)
        return cls(tokens, pairs)


class DecodeLoad(NamedTuple):
    """What a decode pass computes: sequences, their summed context and the longest one."""

    sequences: int
    context_sum: int
    longest_context: int


class StepCosts:
    """Seconds per pass for one launch. The same seed gives the same noise in the same order of passes."""

    def __init__(
        self, profile: Profile, *, decode_graph_max_batch: int, seed: int, attention_groups: int = 1
    ) -> None:
        self._step = with_groups(profile, attention_groups)
        self._experts = profile.experts
        self._graph_limit = decode_graph_max_batch
        self._generator = np.random.default_rng(seed)
        self._launch_factor = 1 + profile.step.launch_noise_ratio * self._generator.standard_normal()
        self._factors, self._used = np.empty(0), 0
        self._is_exact = profile.step.noise_ratio == 0 and self._launch_factor == 1
        self._cold_s = profile.step.cold_start_s
        self._bases: dict[int, float] = {}

    def prefill_s(self, load: PrefillLoad) -> float:
        """Return the duration of one prefill pass and use up its noise."""
        return self._extend_s(load) * self._take_factor()

    def mixed_s(self, prefill: PrefillLoad, decode: DecodeLoad) -> float:
        """Return the duration of one pass that prefills and decodes."""
        if self._step.mixed_context_s is None:
            decode_s = self._decode_base_s(decode.sequences) - self._step.decode_fixed_s / 2
            decode_s += self._step.decode_context_s * decode.context_sum
            decode_s += self._step.decode_longest_s * decode.longest_context
        else:
            decode_s = self._step.mixed_context_s * decode.context_sum
        return (self._extend_s(prefill) + decode_s) * self._take_factor()

    def decode_s(self, load: DecodeLoad, steps: int) -> NDArray[np.float64]:
        """Return the durations of the next `steps` decode passes; `use_decodes` says how many were run."""
        step, (sequences, context_sum, longest_context) = self._step, load
        growth = _COUNT[:steps] if steps <= len(_COUNT) else np.arange(float(steps))
        durations = growth * sequences
        durations += context_sum
        durations *= step.decode_context_s
        durations += self._decode_base_s(sequences)
        if step.decode_longest_s:
            durations += step.decode_longest_s * (longest_context + growth)
        if sequences > self._graph_limit:
            durations *= step.eager_decode_ratio
        return durations if self._is_exact else durations * self._peek_factors(steps)

    def one_decode_s(self, load: DecodeLoad) -> float:
        """Return the first of `decode_s`, by the same operations."""
        step, (sequences, context_sum, longest_context) = self._step, load
        seconds = self._decode_base_s(sequences) + step.decode_context_s * context_sum
        seconds += step.decode_longest_s * longest_context
        if sequences > self._graph_limit:
            seconds *= step.eager_decode_ratio
        return seconds if self._is_exact else seconds * self._peek_factor()

    def use_decodes(self, steps: int) -> None:
        """Use up the noise of `steps` decode passes."""
        if not self._is_exact:
            self._used += steps

    def _extend_s(self, load: PrefillLoad) -> float:
        step = self._step
        seconds = step.extend_fixed_s + step.extend_token_s * load.new_tokens
        seconds = max(step.extend_minimum_s, seconds + step.extend_context_s * load.token_pairs)
        if self._cold_s:
            seconds, self._cold_s = seconds + self._cold_s, 0.0
        return seconds

    def _decode_base_s(self, sequences: int) -> float:
        base_s = self._bases.get(sequences)
        if base_s is None:
            base_s = self._bases[sequences] = self._new_base_s(sequences)
        return base_s

    def _new_base_s(self, sequences: int) -> float:
        step = self._step
        covered = _covered(self._experts, sequences) - _covered(self._experts, 1)
        return (
            step.decode_fixed_s + step.decode_experts_s * covered + step.decode_sequence_s * (sequences - 1)
        )

    def _take_factor(self) -> float:
        if self._is_exact:
            return 1.0
        factor = self._peek_factor()
        self._used += 1
        return factor

    def _peek_factor(self) -> float:
        if self._used == len(self._factors):
            self._peek_factors(1)
        return self._factors.item(self._used)

    def _peek_factors(self, count: int) -> NDArray[np.float64]:
        missing = self._used + count - len(self._factors)
        if missing > 0:
            drawn = self._generator.standard_normal(max(missing, _BLOCK))
            fresh = self._launch_factor * np.maximum(1 + self._step.noise_ratio * drawn, _LEAST_FACTOR)
            self._factors = np.concatenate((self._factors[self._used :], fresh))
            self._used = 0
        return self._factors[self._used : self._used + count]


def with_groups(profile: Profile, attention_groups: int) -> StepSeconds:
    """Return the constants under attention DP; only MLA's context is read by every card without it."""
    step = profile.step
    if attention_groups == 1 or not profile.memory.is_mla:
        return step
    return step.model_copy(update={"decode_context_s": step.decode_context_s / attention_groups})


def _covered(experts: Experts | None, sequences: int) -> float:
    if experts is None:
        return 0.0
    return float(1 - (1 - experts.per_token / experts.total) ** sequences)
