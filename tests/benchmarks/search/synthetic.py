"""The synthetic function: six flags whose optimum lies against both the TTFT and the crash boundary."""

import math
from functools import cache

from autotune.failure import FailureKind
from autotune.slo import Slo
from autotune.space import Candidate, FlagValue, SearchSpace
from tests.benchmarks.search.problem import Problem, Truth

_POLICY = {"lpm": (1.0, 1.0), "fcfs": (0.985, 0.97), "lof": (0.96, 1.35), "random": (0.97, 1.2)}
_BACKEND = {"fa3": (1.0, 1.0), "flashinfer": (0.97, 1.05), "triton": (0.90, 1.15)}
_TTFT_LIMIT_S = 13.5
_LAUNCH_S, _CRASH_S = 900.0, 400.0

SPACE = SearchSpace.model_validate(
    {
        "version": "0.5.23",
        "model": "synthetic",
        "launcher": "simulated",
        "tune": {
            "chunked-prefill-size": {"int": [512, 16384], "scale": "log"},
            "max-running-requests": {"int": [8, 512], "scale": "log"},
            "mem-fraction-static": {"float": [0.60, 0.96]},
            "schedule-conservativeness": {"float": [0.3, 1.5]},
            "schedule-policy": {"choices": list(_POLICY)},
            "attention-backend": {"choices": list(_BACKEND)},
        },
    }
)
_CEILING = f"ttft mean < {_TTFT_LIMIT_S}s at concurrency 50"
SLO = Slo.model_validate(
    {
        "workload": {"input_tokens": 1000, "output_tokens": 200},
        "load": [{"concurrency": 50, "requests": 200}],
        "ceilings": [_CEILING],
        "objective": "maximise output_throughput at concurrency 50",
    }
)
"""Nothing is simulated by it: a launch's numbers are judged as a study's would be."""
_BASELINE: dict[str, FlagValue] = {
    "chunked-prefill-size": 8192,
    "max-running-requests": 78,
    "mem-fraction-static": 0.80,
    "schedule-conservativeness": 1.0,
    "schedule-policy": "fcfs",
    "attention-backend": "flashinfer",
}


@cache
def truth(candidate: Candidate) -> Truth:
    flags = candidate.to_dict()
    chunk, running, fraction, caution = (
        float(str(flags[name]))
        for name in (
            "chunked-prefill-size",
            "max-running-requests",
            "mem-fraction-static",
            "schedule-conservativeness",
        )
    )
    policy, backend = _POLICY[str(flags["schedule-policy"])], _BACKEND[str(flags["attention-backend"])]
    x = math.log2(chunk)
    if fraction + 0.016 * 2 ** (x - 11) + 0.006 * running / 64 > 0.955:
        return Truth(None, {}, _CRASH_S, FailureKind.OUT_OF_MEMORY_CAPTURE)
    fits = 20 + 420 * max(0.0, fraction - 0.55) / 0.4
    batch, over = min(running, fits), max(0.0, math.log2(running / fits))
    value = 1300 * batch / (batch + 25) * policy[0] * backend[0]
    value *= 1 - 0.025 * (x - 12.2) ** 2 / (1 + 0.25 * abs(x - 12.2))
    value *= 1 - 0.08 * over * max(0.0, 1.1 - caution) - 0.05 * (caution - 0.75) ** 2
    ttft_s = 1.5 + 4 * (70 / max(8.0, batch)) ** 0.8 + 1.2 * max(0.0, 11 - x)
    ttft_s += 4.2 * (batch / 200) ** 1.5 * (1 + 0.15 * (x - 12))
    return Truth(value, {_CEILING: math.log(ttft_s * policy[1] * backend[1] / _TTFT_LIMIT_S)}, _LAUNCH_S)


def problem() -> Problem:
    return Problem("synthetic", SPACE, SLO, truth, Candidate.of(_BASELINE), candidates=20_000)
