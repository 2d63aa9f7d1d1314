"""Scenarios on a distorted simulator: what is true differs from the profile that the twin believes in.

The truth is the same scheduler with other constants: every step-time constant and memory reserve has a factor
of its own, and terms that the twin's profile has at zero are not. Measured numbers get 5 % noise on top.
Times are those of the profile's start-up stages and of the simulated loads; a crash costs its start-up only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from autotune.engine.dialects import dialect_of
from autotune.load.workload import offer
from autotune.metrics import measure
from autotune.search.calibration.case import Case, shown_by
from autotune.search.calibration.pool import PoolFact
from autotune.search.sampler import coordinates
from autotune.search.twin import Twin, told
from autotune.simulator.assembly import open_scheduler
from autotune.simulator.profile import Profile, read_profile
from autotune.simulator.startup import Ready, StartFailure, plan_start, serving_failure
from autotune.simulator.virtual import VirtualEndpoint
from autotune.slo import Slo
from autotune.space import Candidate, Choices, SearchSpace
from tests.benchmarks.search.problem import Problem, Truth

_LEAST_RATIO = 1e-3
_R1_TUNE = {
    "chunked-prefill-size": {"int": [1024, 32768], "scale": "log", "multiple_of": 64},
    "max-running-requests": {"int": [16, 512], "scale": "log"},
    "mem-fraction-static": {"float": [0.70, 0.92], "step": 0.005},
    "schedule-conservativeness": {"float": [0.3, 1.3], "step": 0.05},
    "schedule-policy": {"choices": ["fcfs", "lpm"]},
    "enable-mixed-chunk": {"choices": [False, True]},
}
_LLAMA_TUNE = _R1_TUNE | {
    "chunked-prefill-size": {"int": [512, 32768], "scale": "log", "multiple_of": 64},
    "max-running-requests": {"int": [16, 512], "scale": "log"},
    "mem-fraction-static": {"float": [0.60, 0.96], "step": 0.005},
    "cuda-graph-max-bs-decode": {"choices": [64, 128, 256]},
}


@dataclass(frozen=True)
class Scenario:
    """`step` and `memory`: factors on the profile's constants, `added`: constants that the profile lacks."""

    name: str
    profile: str
    tune: Mapping[str, Any]
    flags: Mapping[str, Any]
    slo: Mapping[str, Any]
    step: Mapping[str, float]
    added: Mapping[str, float]
    memory: Mapping[str, float]


_SHARED = Scenario(
    name="shared prefix",
    profile="llama-8b-1xh100",
    tune=_LLAMA_TUNE | {"schedule-policy": {"choices": ["fcfs", "lpm", "dfs-weight"]}},
    flags={"max-total-tokens": 120_000},
    slo={
        "workload": {
            "input_tokens": {"uniform": [4200, 5000]},
            "output_tokens": {"uniform": [60, 200]},
            "shared_prefix": {"groups": 24, "tokens": 4000},
            "seed": 7,
        },
        "load": [{"concurrency": 96, "requests": 200}],
        "ceilings": ["ttft p95 < 9s at concurrency 96", "tpot p95 < 60ms at concurrency 96"],
        "objective": "maximise output_throughput at concurrency 96",
    },
    step={
        "extend_token_s": 1.4,
        "extend_context_s": 1.3,
        "decode_fixed_s": 1.3,
        "decode_sequence_s": 1.4,
        "decode_context_s": 0.8,
        "eager_decode_ratio": 1.3,
    },
    added={"extend_fixed_s": 0.01},
    memory={"fixed_reserve_gib": 2.0, "chunk_reserve_gib": 3.0, "graph_reserve_gib": 2.0},
)
_SIXTEEN_GPUS = Scenario(
    name="DP attention",
    profile="deepseek-r1-2x8h100",
    tune={
        "attn-dp-size": {"choices": [1, 2, 4, 8, 16]},
        "chunked-prefill-size": {"int": [2048, 32768], "scale": "log", "multiple_of": 256},
        "max-running-requests": {"int": [32, 1024], "scale": "log"},
        "mem-fraction-static": {"float": [0.70, 0.95], "step": 0.005},
        "cuda-graph-max-bs-decode": {"choices": [16, 64, 160]},
        "schedule-conservativeness": {"float": [0.3, 3.0], "step": 0.1},
    },
    flags={"tp-size": 16, "ep-size": 16},
    slo={
        "workload": {
            "input_tokens": {"uniform": [2000, 4000]},
            "output_tokens": {"uniform": [200, 600]},
            "seed": 7,
        },
        "load": [{"concurrency": 256, "requests": 400}],
        "ceilings": ["ttft p95 < 260s at concurrency 256", "tpot p95 < 900ms at concurrency 256"],
        "objective": "maximise output_throughput at concurrency 256",
    },
    step={
        "extend_token_s": 0.8,
        "extend_context_s": 1.5,
        "decode_fixed_s": 1.2,
        "decode_experts_s": 1.5,
        "decode_sequence_s": 0.7,
        "decode_context_s": 3.0,
        "request_s": 0.8,
    },
    added={"extend_fixed_s": 0.1},
    memory={"fixed_reserve_gib": 1.2, "chunk_reserve_gib": 1.3, "graph_reserve_gib": 2.0},
)
SCENARIOS = (
    Scenario(
        name="chunk/TTFT",
        profile="deepseek-r1-2x8h100",
        tune=_R1_TUNE,
        flags={"tp-size": 16},
        slo={
            "workload": {"input_tokens": {"uniform": [512, 1536]}, "output_tokens": 192, "seed": 7},
            "load": [{"concurrency": 50, "requests": 200}],
            "ceilings": ["ttft p95 < 19s at concurrency 50", "tpot p95 < 125ms at concurrency 50"],
            "objective": "maximise output_throughput at concurrency 50",
        },
        step={
            "extend_token_s": 1.25,
            "extend_context_s": 1.5,
            "decode_fixed_s": 0.85,
            "decode_experts_s": 1.3,
            "decode_sequence_s": 1.4,
            "request_s": 0.8,
        },
        added={"extend_fixed_s": 0.12},
        memory={"fixed_reserve_gib": 1.2, "chunk_reserve_gib": 1.2, "graph_reserve_gib": 1.1},
    ),
    Scenario(
        name="KV-bound",
        profile="llama-8b-1xh100",
        tune=_LLAMA_TUNE,
        flags={},
        slo={
            "workload": {
                "input_tokens": {"uniform": [2000, 4000]},
                "output_tokens": {"uniform": [1000, 2000]},
                "seed": 7,
            },
            "load": [{"concurrency": 128, "requests": 200}],
            "ceilings": ["ttft p95 < 75s at concurrency 128", "tpot p95 < 26ms at concurrency 128"],
            "objective": "maximise output_throughput at concurrency 128",
        },
        step={
            "extend_token_s": 0.75,
            "extend_context_s": 1.4,
            "decode_fixed_s": 1.3,
            "decode_sequence_s": 1.6,
            "decode_context_s": 0.8,
            "eager_decode_ratio": 1.3,
        },
        added={},
        memory={"fixed_reserve_gib": 2.5, "chunk_reserve_gib": 4.0, "graph_reserve_gib": 2.0},
    ),
    Scenario(
        name="OOM edge",
        profile="llama-8b-1xh100",
        tune=_LLAMA_TUNE,
        flags={},
        slo={
            "workload": {"input_tokens": {"uniform": [6000, 10000]}, "output_tokens": 300, "seed": 7},
            "load": [{"concurrency": 64, "requests": 192}],
            "ceilings": ["ttft p95 < 36s at concurrency 64", "tpot p95 < 72ms at concurrency 64"],
            "objective": "maximise output_throughput at concurrency 64",
        },
        step={
            "extend_token_s": 1.2,
            "extend_context_s": 0.6,
            "decode_fixed_s": 0.8,
            "decode_sequence_s": 1.5,
            "decode_context_s": 1.2,
            "eager_decode_ratio": 1.4,
        },
        added={"extend_fixed_s": 0.02},
        memory={"fixed_reserve_gib": 3.0, "chunk_reserve_gib": 6.0, "graph_reserve_gib": 3.0},
    ),
    _SHARED,
    _SIXTEEN_GPUS,
)


def space_of(scenario: Scenario) -> SearchSpace:
    """Return the scenario's search space."""
    return SearchSpace.model_validate(
        {
            "version": "0.5.23",
            "model": read_profile(scenario.profile).model,
            "launcher": "process",
            "profile": scenario.profile,
            "flags": dict(scenario.flags),
            "tune": dict(scenario.tune),
        }
    )


def problem_of(scenario: Scenario) -> Problem:
    """Return the scenario as a problem; its twin believes in the undistorted profile."""
    believed = read_profile(scenario.profile)
    space = space_of(scenario)
    slo, actual = Slo.model_validate(scenario.slo), distorted(believed, scenario)

    @cache
    def truth(candidate: Candidate) -> Truth:
        return _launched(actual, space, slo, candidate)

    def twin(off: float) -> Twin:
        return Twin(_off_by(believed, off), space, slo)

    defaults = dialect_of(space.engine).known_defaults(space, {})
    outside = {
        name: tunable.choices[-1]
        for name, tunable in space.tune.items()
        if isinstance(tunable, Choices) and not tunable.contains(defaults[name])
    }
    baseline = Candidate.of({**coordinates(space, defaults), **outside})
    return Problem(scenario.name, space, slo, truth, baseline, candidates=300, prior=twin)


def _off_by(profile: Profile, factor: float) -> Profile:
    """Return the profile with every step-time constant and every memory reserve times a factor."""
    scaled = {
        name: value * factor
        for name, value in profile.step
        if name.endswith("_s") and value is not None and name != "cold_start_s"
    }
    reserves = {name: value * factor for name, value in profile.memory if name.endswith("_reserve_gib")}
    return profile.model_copy(
        update={
            "step": profile.step.model_copy(update=scaled),
            "memory": profile.memory.model_copy(update=reserves),
        }
    )


def distorted(believed: Profile, scenario: Scenario) -> Profile:
    """Return what is true of a scenario, without noise."""
    step, memory = believed.step, believed.memory
    quiet = {"noise_ratio": 0.0, "launch_noise_ratio": 0.0, "cold_start_s": 0.0}
    scaled = {name: getattr(step, name) * factor for name, factor in scenario.step.items()}
    reserves = {name: getattr(memory, name) * factor for name, factor in scenario.memory.items()}
    return believed.model_copy(
        update={
            "step": step.model_copy(update=quiet | scaled | dict(scenario.added)),
            "memory": memory.model_copy(update=reserves),
            "start_up": believed.start_up.model_copy(update={"noise_ratio": 0.0}),
        }
    )


def _launched(profile: Profile, space: SearchSpace, slo: Slo, candidate: Candidate) -> Truth:
    argv = dialect_of(space.engine).argv(space, candidate, rank=0, port=30000, rendezvous_port=20000)
    start = plan_start(profile, argv, seed=0)
    seconds = sum(run.seconds for run in start.stages)
    match start.outcome:
        case StartFailure() as failure:
            return Truth(None, {}, seconds + profile.start_up.death_s, failure.kind)
        case Ready() as ready:
            return _loaded(profile, slo, ready, seconds, argv)


def _loaded(profile: Profile, slo: Slo, ready: Ready, start_s: float, argv: tuple[str, ...]) -> Truth:
    scheduler = open_scheduler(profile, ready, seed=0)
    endpoint = VirtualEndpoint(scheduler, request_s=profile.step.request_s, joins_chunks=True)
    measurements, cases = {}, []
    for point in slo.load:
        scheduler.flush_cache()
        load = offer(slo.workload, point, salt=0)
        result = endpoint.run(load)
        if scheduler.is_dead:
            kind = serving_failure(profile, ready.capacity, 0).kind
            return Truth(None, {}, start_s + scheduler.now_s + profile.start_up.death_s, kind)
        measured = measurements[point.label] = measure(result.records, concurrency=point.concurrency)
        cases.append(Case(point.label, None, argv, load, shown_by(measured.summary())))
    values, violations = told(slo, measurements)
    excess = {key: float(np.log(max(1 + each, _LEAST_RATIO))) for key, each in violations.items()}
    spent_s = start_s + scheduler.now_s + profile.start_up.stop_s
    return Truth(
        None if values is None else values[0],
        excess,
        spent_s,
        samples={
            ceiling.text: measurements[ceiling.quantity.load].samples(ceiling.quantity.metric)
            for ceiling in slo.ceilings
        },
        cases=tuple(cases),
        pool=PoolFact(argv, tokens=ready.capacity.pool_tokens),
    )
