"""Decode steps as engines logged them, put together so that thousands of lines say no more than they know.

In: the `DecodeStep`s of one launch's log. Out: a few `StepGroup`s, and what constants make of such steps.
Pure. A group is the steps of nearly as many requests: one of them, the median, stands for all, and their
spread is its noise. Invariant: all groups of a launch together weigh as much as one metric of one load, and
less the more loads were measured on it: where records tell a launch's steps, its log has little to add. What
that is worth is in tests/benchmarks/log_lines.py.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from autotune.engine.dialect import DecodeStep
from autotune.simulator.profile import Experts, StepSeconds
from autotune.simulator.replay import Passes

Vector = NDArray[np.float64]

_LEVELS_PER_OCTAVE = 2
_AS_DEVIATION = 1.4826
"""A median absolute deviation times this is a standard deviation, if errors are normal."""
_ALWAYS_A_GRAPH = 2**31


@dataclass(frozen=True)
class StepGroup:
    """Steps of one launch. `step`: the median one; `spread`: standard deviation of the logarithm of seconds.

    `lines`: how many of them there are.
    """

    trial: int
    step: DecodeStep
    spread: float
    lines: int


def grouped(trial: int, steps: Iterable[DecodeStep]) -> tuple[StepGroup, ...]:
    """Return a group for each level of running requests, with and without a graph."""
    levels: defaultdict[tuple[int, bool], list[DecodeStep]] = defaultdict(list)
    for step in steps:
        levels[round(_LEVELS_PER_OCTAVE * math.log2(step.running)), step.has_graph].append(step)
    return tuple(_group(trial, levels[level]) for level in sorted(levels))


def _group(trial: int, steps: Sequence[DecodeStep]) -> StepGroup:
    middle = sorted(steps, key=lambda step: step.seconds)[len(steps) // 2]
    off = [abs(math.log(step.seconds / middle.seconds)) for step in steps]
    return StepGroup(trial, middle, _AS_DEVIATION * median(off), len(steps))


class LoggedSteps:
    """All groups as arrays: how far off constants are from what the engines logged.

    `loads`: the launches' numbers, one for each load that was measured on them; `least_noise`: the least
    standard deviation of a logarithm.
    """

    def __init__(
        self, groups: Sequence[StepGroup], *, loads: Iterable[int | None] = (), least_noise: float
    ) -> None:
        of_launch, measured = Counter(group.trial for group in groups), Counter(loads)
        shares = [of_launch[group.trial] * max(1, measured[group.trial]) for group in groups]
        noises = np.maximum([group.spread for group in groups], least_noise)
        self._scale = np.array(shares) ** -0.5 / noises
        self._logs = np.log([group.step.seconds for group in groups])
        self._is_eager = np.array([not group.step.has_graph for group in groups], dtype=bool)
        self._passes = _passes([group.step for group in groups])

    def residuals(self, step: StepSeconds, experts: Experts | None) -> Vector:
        """Return the logarithms of expected over logged seconds."""
        seconds = self._passes.seconds(step, experts)
        seconds = seconds * np.where(self._is_eager, step.eager_decode_ratio, 1.0)
        return np.asarray(np.log(seconds) - self._logs)

    def losses(self, step: StepSeconds, experts: Experts | None) -> Vector:
        """Return the residuals in units of their noise, weighted."""
        return self._scale * self.residuals(step, experts)


def _passes(steps: Sequence[DecodeStep]) -> Passes:
    """Return one decode pass a step; no log tells the longest context, so they are taken to be even."""
    running = np.array([step.running for step in steps], dtype=np.float64)
    tokens = np.array([step.tokens for step in steps], dtype=np.float64)
    nothing, one = np.zeros(len(steps)), np.ones(len(steps))
    return Passes(
        graph_limit=_ALWAYS_A_GRAPH,
        attention_groups=1,
        new_tokens=nothing,
        token_pairs=nothing,
        sequences=running,
        context_sum=tokens,
        longest_context=tokens / np.maximum(running, 1),
        steps=one,
        output_tokens=running,
    )
