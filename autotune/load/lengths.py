"""How many tokens: an exact number, or a distribution that is drawn from. Pure.

In: the `input_tokens` or `output_tokens` of a workload. Out: a number for every request.
Invariant: a length depends on the workload's seed, what it is for, and the request's index alone.
"""

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, Self, TypeAlias

import numpy as np
from pydantic import Discriminator, Field, PositiveInt, StrictInt, Tag, model_validator

from autotune.document import Frozen


class Draw(IntEnum):
    """What a random stream is for; streams of different purposes never meet."""

    INPUT_TOKENS = 1
    OUTPUT_TOKENS = 2
    DATASET_ORDER = 3
    ARRIVALS = 4
    PREFIX = 5
    CONTENT = 6
    HAS_PREFIX = 7
    CONVERSATION = 8


def generator_for(seed: int, purpose: Draw, *numbers: int) -> np.random.Generator:
    """Return the random stream of one purpose; equal numbers give equal streams."""
    return np.random.default_rng([seed, purpose, *numbers])


class Uniform(Frozen):
    """Whole numbers drawn evenly from [low, high]."""

    uniform: tuple[PositiveInt, PositiveInt]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.uniform[0] > self.uniform[1]:
            raise ValueError("uniform: the low end comes first")
        return self


class LogNormal(Frozen):
    """Lengths with a long tail, cut at `minimum` and `maximum`."""

    median: PositiveInt = Field(alias="lognormal")
    sigma: float = Field(gt=0, le=3)
    maximum: PositiveInt
    minimum: PositiveInt = 1

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.minimum <= self.median <= self.maximum:
            raise ValueError("lognormal: the median lies between minimum and maximum")
        return self


class Mix(Frozen):
    """A few lengths with their shares, such as long prompts among short ones; shares add up to 1."""

    mix: Mapping[PositiveInt, Annotated[float, Field(gt=0, le=1)]] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not math.isclose(sum(self.mix.values()), 1, abs_tol=1e-6):
            raise ValueError("mix: the shares add up to 1")
        return self


def _kind_of_length(value: object) -> str:
    if isinstance(value, int):
        return "exact"
    keys = value.keys() if isinstance(value, dict) else frozenset()
    if isinstance(value, Uniform) or "uniform" in keys:
        return "uniform"
    if isinstance(value, LogNormal) or keys & {"lognormal", "median"}:
        return "lognormal"
    return "mix" if isinstance(value, Mix) or "mix" in keys else "unknown"


Length: TypeAlias = Annotated[
    Annotated[Annotated[StrictInt, Field(ge=1)], Tag("exact")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogNormal, Tag("lognormal")]
    | Annotated[Mix, Tag("mix")],
    Discriminator(
        _kind_of_length,
        custom_error_type="length",
        custom_error_message=(
            "a length is a number of tokens, {uniform: [low, high]}, "
            "{lognormal: median, sigma: 0.6, maximum: 8192} or {mix: {256: 0.9, 8192: 0.1}}"
        ),
    ),
]


def drawn_tokens(length: Length, seed: int, purpose: Draw, index: int) -> int:
    """Return the length of one request."""
    match length:
        case Uniform(uniform=(low, high)):
            return int(generator_for(seed, purpose, index).integers(low, high, endpoint=True))
        case LogNormal():
            normal = generator_for(seed, purpose, index).standard_normal()
            drawn = length.median * math.exp(length.sigma * normal)
            return min(max(round(drawn), length.minimum), length.maximum)
        case Mix(mix=mix):
            ends = np.cumsum(list(mix.values()))
            place = np.searchsorted(ends, generator_for(seed, purpose, index).random(), side="right")
            return list(mix)[min(int(place), len(mix) - 1)]
        case _:
            return length


def shortest_tokens(length: Length) -> int:
    """Return the least that can be drawn."""
    match length:
        case Uniform(uniform=(low, _)):
            return low
        case LogNormal(minimum=minimum):
            return minimum
        case Mix(mix=mix):
            return min(mix)
        case _:
            return length
