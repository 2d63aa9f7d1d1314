"""Profiles: one model on one kind of hardware as measured numbers, read from YAML with their provenance.

In: `profiles/<name>.yaml` (package data) or a path to such a file. Out: a frozen `Profile`. Reads the disk.
Nothing about speed or memory is derived from the name of a GPU: every number was measured, fitted or says
in `provenance` that it is assumed.
"""

from pathlib import Path

from pydantic import Field

from autotune.document import Frozen, read_document
from autotune.errors import ConfigError, Problem, did_you_mean

_FOLDER = Path(__file__).parent / "profiles"


class Provenance(Frozen):
    """Where the numbers come from: who measured what, when, on what, and which parts are assumptions."""

    measured_by: str
    engine_version: str
    hardware: str
    date: str
    source: str
    assumed: str


class FittedLoad(Frozen):
    """One load point of a launch that a profile was fitted to: the fit's ratios to it, less 1."""

    load: str
    output_throughput: float | None = None
    ttft_p95: float | None = None
    tpot_mean: float | None = None


class Fit(Frozen):
    """How well a calibrated profile explains what it was fitted to.

    `noise_ratio`: the usual size of what is left; `deviations`: standard errors of the constants, relative
    (of `extend_fixed_s`: in units of 1024 times `extend_token_s`), 0.7 where nothing was learnt.
    `log_lines`: how many lines of the engines' logs were used; `decode_step`: the usual size of the fit's
    ratio to the decode steps that they tell, less 1.
    """

    study: str
    loads: tuple[FittedLoad, ...]
    noise_ratio: float
    deviations: dict[str, float]
    log_lines: int = 0
    decode_step: float | None = None


class Experts(Frozen):
    """Routed experts of a mixture-of-experts model: how many there are and how many a token visits."""

    total: int = Field(gt=0)
    per_token: int = Field(gt=0)


class StepSeconds(Frozen):
    """Constants of one forward pass, in seconds; the form is explained in costs.py.

    `request_s`: tokenizer, HTTP and first scheduling of a request, not serialised on the GPU.
    `cold_start_s`: extra time of the first prefill after a launch. `noise_ratio`: standard deviation of the
    factor on every pass, `launch_noise_ratio` of the factor that is drawn once per launch.
    `eager_decode_ratio`: factor on decode passes above the largest CUDA graph.
    `mixed_context_s`: seconds per context token of the running batch in a mixed pass; None: a mixed pass is
    a prefill and a decode pass, less half the fixed cost of the latter.
    """

    extend_fixed_s: float = Field(default=0.0, ge=0)
    extend_token_s: float = Field(gt=0)
    extend_context_s: float = Field(ge=0)
    extend_minimum_s: float = Field(default=0.0, ge=0)
    decode_fixed_s: float = Field(gt=0)
    decode_experts_s: float = Field(default=0.0, ge=0)
    decode_sequence_s: float = Field(ge=0)
    decode_context_s: float = Field(ge=0)
    decode_longest_s: float = Field(default=0.0, ge=0)
    mixed_context_s: float | None = Field(default=None, ge=0)
    request_s: float = Field(ge=0)
    cold_start_s: float = Field(default=0.0, ge=0)
    noise_ratio: float = Field(default=0.03, ge=0, le=0.2)
    launch_noise_ratio: float = Field(default=0.01, ge=0, le=0.2)
    eager_decode_ratio: float = Field(default=1.35, ge=1)


class Memory(Frozen):
    """GPU memory of one card and what the engine needs beside weights and KV pool.

    `free_gib`: free before the weights are loaded; `weights_gib`: per card at the profile's tensor
    parallelism; `cell_bytes`: one token's KV on one card. The reserve (what must stay free after the pool)
    is `fixed_reserve_gib` + `chunk_reserve_gib` per 1024 tokens of a prefill chunk + `graph_reserve_gib` per
    sequence of the largest decode graph. `attention_gib`: the part of the weights of all cards together that
    attention DP keeps once in every group, instead of once over all cards.
    """

    gpu_memory_mib: int = Field(gt=0)
    free_gib: float = Field(gt=0)
    weights_gib: float = Field(gt=0)
    cell_bytes: int = Field(gt=0)
    is_mla: bool
    fixed_reserve_gib: float = Field(ge=0)
    chunk_reserve_gib: float = Field(ge=0)
    graph_reserve_gib: float = Field(ge=0)
    attention_gib: float = Field(default=0.0, ge=0)


class StartUp(Frozen):
    """Seconds of a launch. Capturing a prefill graph of n tokens costs a constant and a part in n squared.

    `arguments_s` is the part of `process_s` after which bad arguments are known; `death_s` passes between
    the line that explains a failure and the end of the process; `stop_s` is an orderly stop.
    """

    arguments_s: float = Field(ge=0)
    process_s: float = Field(ge=0)
    rendezvous_s: float = Field(ge=0)
    weights_s: float = Field(ge=0)
    kv_pool_s: float = Field(ge=0)
    prefill_graph_s: float = Field(ge=0)
    prefill_graph_token2_s: float = Field(ge=0)
    prefill_graph_max_tokens: int | None = Field(default=None, gt=0)
    decode_graph_s: float = Field(ge=0)
    warm_up_s: float = Field(ge=0)
    death_s: float = Field(ge=0)
    stop_s: float = Field(ge=0)
    noise_ratio: float = Field(default=0.05, ge=0, le=0.5)


class Profile(Frozen):
    """Everything the simulator knows about one model on one cluster.

    `tensor_parallel` is what the step times were measured with; another value rescales the weights per card
    and nothing else. `reserves_ignored_eos`: whether a running request with ignore_eos reserves all of its
    remaining tokens (SGLang 0.5.23, schedule_policy.py:785) or the new-token ratio's share of them (before).
    """

    name: str
    model: str
    provenance: Provenance
    tensor_parallel: int = Field(gt=0)
    context_tokens: int = Field(gt=0)
    vocabulary_size: int = Field(gt=0)
    experts: Experts | None = None
    reserves_ignored_eos: bool = False
    step: StepSeconds
    memory: Memory
    start_up: StartUp
    fit: Fit | None = None


def profile_names() -> tuple[str, ...]:
    """Return the names of the profiles that come with the package, in alphabetical order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def read_profile(name: str) -> Profile:
    """Return a shipped profile by its name, or the one in a file if `name` ends with .yaml.

    Raises:
        ConfigError: no such profile, or its file is not a valid profile.
    """
    if name.endswith(".yaml"):
        return read_document(Path(name)).to_model(Profile)
    known = profile_names()
    if name not in known:
        remedy = did_you_mean(name, known) or f"Known profiles: {', '.join(known)}."
        raise ConfigError([Problem(f"there is no simulator profile {name!r}", key="profile", remedy=remedy)])
    return read_document(_FOLDER / f"{name}.yaml").to_model(Profile)
