"""What is measured: load points in a row, each with its workload and the sweep it belongs to. Pure.

In: a workload and levels. Out: `BenchPoint`s. `article` is the protocol of a report on DeepSeek-R1 under
SGLang on two nodes of eight H100s (README): time to the first token by prompt length for one user, 10 to 100
users with prompts of 1024 tokens, one user's tokens per second, and the throughput under 500 users.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from autotune.load.arrivals import LoadPoint
from autotune.load.workload import Workload


class Sweep(StrEnum):
    """Which question a point belongs to."""

    LENGTH = "prompt length"
    CONCURRENCY = "concurrency"
    RATE = "rate"
    STEPS = "steps"
    SINGLE = "single stream"
    SATURATION = "saturation"
    SEARCH = "search"


LENGTHS = (16, 256, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
ARTICLE_CONCURRENCIES = (10, 20, 30, 40, 50, 100)
ARTICLE_SATURATION = 500
ARTICLE_INPUT_TOKENS = 1024
_WAVES = 3
_SINGLE_REQUESTS = 5
_LENGTH_OUTPUT_TOKENS = 8


@dataclass(frozen=True)
class BenchPoint:
    """One load point; `x` is its place on its sweep's axis: tokens, requests in flight, or requests/s.

    `ceilings`: those of this point alone, without its load (`ttft p95 < 10s`).
    """

    sweep: Sweep
    x: float
    workload: Workload
    load: LoadPoint
    ceilings: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How it is called in the table: the load, and what of it varies."""
        if self.sweep is Sweep.LENGTH:
            return f"{self.x:g} tokens"
        if self.load.steps is not None:
            return " ".join(["rates", *(f"{step:g}" for step in self.load.steps)])
        return self.load.label


@dataclass(frozen=True)
class Amount:
    """How much is measured at a point: so many requests or seconds; by default three waves of requests.

    Never fewer requests than are to be in flight, which would be another point. `ramp_s`: the first requests
    of a closed loop are spread over that time.
    """

    requests: int | None = None
    duration_s: float | None = None
    ramp_s: float | None = None

    def at(self, concurrency: int) -> dict[str, float | int]:
        """Return the keys of a closed loop's load point."""
        ramp: dict[str, float | int] = {} if self.ramp_s is None else {"ramp_s": self.ramp_s}
        if self.duration_s is not None:
            return {"duration_s": self.duration_s, **ramp}
        asked = self.requests or max(_WAVES * concurrency, _SINGLE_REQUESTS)
        return {"requests": max(asked, concurrency), **ramp}


def concurrency_ladder(
    workload: Workload, levels: Iterable[int], amount: Amount, sweep: Sweep = Sweep.CONCURRENCY
) -> list[BenchPoint]:
    """Return one closed loop for each level."""
    return [
        BenchPoint(
            sweep, level, workload, LoadPoint.model_validate({"concurrency": level, **amount.at(level)})
        )
        for level in levels
    ]


def rate_ladder(
    workload: Workload, rates: Iterable[float], amount: Amount, arrivals: dict[str, object]
) -> list[BenchPoint]:
    """Return one open loop for each rate; by default a minute of it, at least twenty requests."""
    return [BenchPoint(Sweep.RATE, rate, workload, rate_point(rate, amount, arrivals)) for rate in rates]


def climb(
    workload: Workload, steps: Sequence[float], amount: Amount, arrivals: dict[str, object]
) -> BenchPoint:
    """Return one open loop whose rate climbs by steps; by default a minute of their mean."""
    mean_rps = sum(steps) / len(steps)
    load = rate_point(mean_rps, amount, arrivals).model_copy(
        update={"steps": tuple(steps), "rate": max(steps)}
    )
    return BenchPoint(Sweep.STEPS, max(steps), workload, LoadPoint.model_validate(load.model_dump()))


def rate_point(rate: float, amount: Amount, arrivals: dict[str, object]) -> LoadPoint:
    """Return an open loop at a rate."""
    length: dict[str, object] = {"requests": amount.requests or max(round(60 * rate), 20)}
    if amount.duration_s is not None:
        length = {"duration_s": amount.duration_s}
    return LoadPoint.model_validate({"rate": rate, **length, **arrivals})


def length_sweep(workload: Workload, lengths: Iterable[int], amount: Amount) -> list[BenchPoint]:
    """Return one closed loop of a single user for each prompt length, with short answers."""
    short = {"output_tokens": _LENGTH_OUTPUT_TOKENS, "shared_prefix": None, "conversation": None}
    load = LoadPoint.model_validate({"concurrency": 1, "warm_up": 1, **replace(amount, ramp_s=None).at(1)})
    return [
        BenchPoint(Sweep.LENGTH, tokens, workload.model_copy(update={**short, "input_tokens": tokens}), load)
        for tokens in lengths
    ]


def article(workload: Workload, amount: Amount = Amount()) -> list[BenchPoint]:
    """Return the report's protocol; of the workload only its output length, endpoint and seed count."""
    asked = workload.model_copy(update={"input_tokens": ARTICLE_INPUT_TOKENS})
    single = concurrency_ladder(asked, [1], amount, Sweep.SINGLE)
    saturation = (
        amount if amount.requests or amount.duration_s else replace(amount, requests=2 * ARTICLE_SATURATION)
    )
    return [
        *length_sweep(asked, LENGTHS, amount),
        *single,
        *concurrency_ladder(asked, ARTICLE_CONCURRENCIES, amount),
        *concurrency_ladder(asked, [ARTICLE_SATURATION], saturation, Sweep.SATURATION),
    ]


def fitting(points: Sequence[BenchPoint], context_tokens: int | None) -> tuple[list[BenchPoint], list[str]]:
    """Return the points whose prompts fit the model's context, and a line about each that does not."""
    if context_tokens is None:
        return list(points), []
    kept, told = [], []
    for point in points:
        asked, answered = point.workload.input_tokens, point.workload.output_tokens
        if isinstance(asked, int) and isinstance(answered, int) and asked + answered > context_tokens:
            told.append(
                f"{point.sweep} {point.label}: left out, {asked} + {answered} tokens do not fit "
                f"the context of {context_tokens}"
            )
        else:
            kept.append(point)
    return kept, told
