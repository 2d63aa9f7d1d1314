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

import numpy as np

from autotune.simulator.profile import Experts, Profile, StepSeconds

_BLOCK = 1024
_LEAST_FACTOR = 0.5


class PassLoad:
    """What one pass computes; a mixed pass prefills and decodes.

    Of prompts: new tokens, and token pairs (each new token with what is before it). Of running sequences: how
    many gain a token, their summed context and the longest one.
    """

    def __init__(
        self, new_tokens: int, token_pairs: float, sequences: int, context_sum: int, longest_context: int
    ) -> None:
        self.new_tokens = new_tokens
        self.token_pairs = token_pairs
        self.sequences = sequences
        self.context_sum = context_sum
        self.longest_context = longest_context


def token_pairs(before: int, new: int) -> float:
    """Return the pairs of so many new tokens, each with what is before it."""
    return new * (before + new / 2)


class StepCosts:
    """Seconds per pass for one launch. The same seed gives the same noise in the same order of passes."""

    def __init__(
        self, profile: Profile, *, decode_graph_max_batch: int, seed: int, attention_groups: int = 1
    ) -> None:
        step = with_groups(profile, attention_groups)
        self._step = step
        self._extend = step.extend_fixed_s, step.extend_token_s, step.extend_context_s
        self._experts = profile.experts
        self._graph_limit = decode_graph_max_batch
        self._generator = np.random.default_rng(seed)
        self._launch_factor = 1 + step.launch_noise_ratio * float(self._generator.standard_normal())
        self._factors: list[float] = []
        self._used = 0
        self._is_exact = step.noise_ratio == 0 and self._launch_factor == 1
        self._cold_s = step.cold_start_s
        self._bases: dict[int, float] = {}

    def prefill_s(self, load: PassLoad) -> float:
        """Return the duration of the next pass, which prefills and, if the load has sequences, decodes."""
        seconds = self._extend_s(load)
        if load.sequences:
            seconds += self._mixed_in_s(load)
        return seconds if self._is_exact else seconds * self._next_factor()

    def decode_ends_s(self, load: PassLoad, *, now_s: float, most_steps: int, until_s: float) -> list[float]:
        """Return when each of the next decode passes ends, up to the first that ends at or after `until_s`.

        `load` is that of the first. The clock is added up pass by pass, so that the times do not depend on
        how a run of passes is cut.
        """
        sequences, context, longest = load.sequences, load.context_sum, load.longest_context
        base_s = self._decode_base_s(sequences)
        context_s, longest_s = self._step.decode_context_s, self._step.decode_longest_s
        ratio = self._step.eager_decode_ratio if sequences > self._graph_limit else 1.0
        is_exact, ends_s = self._is_exact, list[float]()
        for _ in range(most_steps):
            seconds = (base_s + context_s * context + longest_s * longest) * ratio
            now_s += seconds if is_exact else seconds * self._next_factor()
            ends_s.append(now_s)
            if now_s >= until_s:
                break
            context += sequences
            longest += 1
        return ends_s

    def _extend_s(self, load: PassLoad) -> float:
        fixed_s, token_s, context_s = self._extend
        seconds = fixed_s + token_s * load.new_tokens + context_s * load.token_pairs
        seconds = max(self._step.extend_minimum_s, seconds)
        if self._cold_s:
            seconds, self._cold_s = seconds + self._cold_s, 0.0
        return seconds

    def _mixed_in_s(self, load: PassLoad) -> float:
        """Return what the decoding of running sequences adds to a prefill pass."""
        step = self._step
        if step.mixed_context_s is not None:
            return step.mixed_context_s * load.context_sum
        seconds = self._decode_base_s(load.sequences) - step.decode_fixed_s / 2
        seconds += step.decode_context_s * load.context_sum
        return seconds + step.decode_longest_s * load.longest_context

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

    def _next_factor(self) -> float:
        """Use up the noise of one pass."""
        if self._used == len(self._factors):
            drawn = self._generator.standard_normal(_BLOCK)
            fresh = self._launch_factor * np.maximum(1 + self._step.noise_ratio * drawn, _LEAST_FACTOR)
            self._factors, self._used = fresh.tolist(), 0
        self._used += 1
        return self._factors[self._used - 1]


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
