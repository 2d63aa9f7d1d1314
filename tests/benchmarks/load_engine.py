"""The client on the real SGLang, beside SGLang's own: python -m tests.benchmarks.load_engine [--streams 1,8]

One server (AUTOTUNE_SGLANG_CPU, see tests/real_engine) is loaded by both clients in turn, each with the same
closed loop of token ids on /generate; around every run the server's own histograms are read from /metrics.
So there are three views of the same requests: the client's, the server's of that client's requests, and the
other client's. Means of TTFT, ITL and E2E come as client (client / server); p95 of TTFT with the server's
bucket. Throughput: output tokens per second from the first request to the last answer (as SGLang's client
divides), beside what the server's E2E implies for a loop without gaps (in flight * tokens / mean E2E).

Seen with SGLang 0.5.23 on two cores (medians of three, all under SCHED_FIFO), and why:
- ITL is the server's within 1 % for both clients. The server stamps where it hands a token on, so what it
  takes from there to a socket cancels out of a gap.
- TTFT is above the server's by 1.5 ms alone, 5 ms at 8 and 18 ms at 32 in flight (13 %). The server's clock
  begins when a request has been read and parsed, by the one process that reads all of them (about 0.5 ms
  each, so the last of a burst waits for the others before its clock begins), and ends before the event is
  written. A user waits for both; ours counts from the last byte sent to the first one received.
- SGLang's client is 3 ms, 10 ms and 30 ms above (20 %): it also counts its own connecting, one new
  connection for each request, and its own queue of events; ours connects before and stamps in the kernel.
- Throughput is under the server's by 3 to 5 % with ours and by 4 to 8 % with SGLang's: the time between an
  answer's end and the next request's beginning, and the last wave, in which slots fall empty one by one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autotune.bench.run import http_endpoint
from autotune.bench.target import Target
from autotune.load.arrivals import LoadPoint
from autotune.load.workload import Workload, offer
from autotune.space import SearchSpace
from tests.real_engine import cpu
from tests.real_engine.serving import Told, served

INPUT_TOKENS, OUTPUT_TOKENS, WAVES, FEWEST = 128, 32, 4, 24
EDGES_S = [f"{0.001 * 1.15**step:.6f}" for step in range(72)]
HEAD = "client|in flight|TTFT ms|TTFT p95 ms|server's bucket|ITL ms|E2E ms|tok/s|server's tok/s|good|load"
TTFT, ITL, E2E = (
    f"sglang:{name}_seconds" for name in ("time_to_first_token", "inter_token_latency", "e2e_request_latency")
)


@dataclass(frozen=True)
class Seen:
    """What a client says of a load: seconds, the mean and p95 of TTFT, and how long the load took."""

    ttfts_s: list[float]
    gaps_s: list[float]
    e2es_s: list[float]
    lasted_s: float


@dataclass(frozen=True)
class Row:
    """One load: means in seconds as the client and as the server has them, and tokens per second of both."""

    client: str
    means_s: dict[str, tuple[float, float]]
    output_tps: float
    server_tps: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not os.environ.get(cpu.FOLDER_VARIABLE):
        sys.exit(f"{cpu.FOLDER_VARIABLE} is not set (tests/real_engine/setup.sh makes the folder)")
    with tempfile.TemporaryDirectory() as folder, served(space(), Path(folder)) as target:
        for client in CLIENTS.values():  # what the first requests compile is nobody's latency
            client(target, 2, 0, Path(folder))
        print(f"|{HEAD}|\n|{'-|' * (HEAD.count('|') + 1)}", flush=True)
        for streams in map(int, options.streams.split(",")):
            rows = [
                measured(name, target, streams, number + 1, Path(folder))
                for number in range(options.rounds)
                for name in (list(CLIENTS) if number % 2 else reversed(CLIENTS))
            ]
            print(f"medians at {streams}: {medians(rows)}", flush=True)


def space() -> SearchSpace:
    """The tiny model, with metrics in buckets of 15 %."""
    return SearchSpace.model_validate(
        {
            "version": "0.5.23",
            "model": str(cpu.folder() / "model"),
            "launcher": "process",
            "command": [sys.executable, str(Path(cpu.__file__).parent / "launch.py")],
            "flags": {"enable-metrics": True, "bucket-time-to-first-token": EDGES_S},
            "tune": {"chunked-prefill-size": {"int": [64, 4096]}},
            "ready_timeout_s": 300,
        }
    )


def requests_at(streams: int) -> int:
    return max(WAVES * streams, FEWEST)


def measured(name: str, target: Target, streams: int, number: int, folder: Path) -> Row:
    """Run one load and print what both ends saw of it."""
    before = Told.by(target)
    seen = CLIENTS[name](target, streams, number, folder)
    grown = Told.by(target).since(before)
    tokens = grown.sums["sglang:generation_tokens_total"]
    row = Row(
        name,
        {title: (float(np.mean(values_s)), grown.mean(histogram)) for title, values_s, histogram in (
            ("TTFT", seen.ttfts_s, TTFT), ("ITL", seen.gaps_s, ITL), ("E2E", seen.e2es_s, E2E)
        )},
        tokens / seen.lasted_s,
        streams * OUTPUT_TOKENS / grown.mean(E2E),
    )  # fmt: skip
    low_s, high_s = grown.percentile(TTFT, 95)
    ttft, itl, e2e = (f"{1e3 * ours:.2f} ({ours / theirs:.3f})" for ours, theirs in row.means_s.values())
    cells = [
        *(name, str(streams), ttft, f"{1e3 * float(np.percentile(seen.ttfts_s, 95)):.1f}"),
        *(
            f"{1e3 * low_s:.1f}..{1e3 * high_s:.1f}",
            itl,
            e2e,
            f"{row.output_tps:.1f}",
            f"{row.server_tps:.1f}",
        ),
        *(f"{len(seen.ttfts_s)}/{requests_at(streams)}", f"{os.getloadavg()[0]:.1f}"),
    ]
    print(f"|{'|'.join(cells)}|", flush=True)
    return row


def medians(rows: list[Row]) -> str:
    """Say how the clients stand to the server, and ours to the other."""
    parts, found = [], {}
    for name in CLIENTS:
        mine = [row for row in rows if row.client == name]
        for title in mine[0].means_s:
            found[name, title] = statistics.median(row.means_s[title][0] for row in mine)
            ratio = statistics.median(row.means_s[title][0] / row.means_s[title][1] for row in mine)
            parts.append(f"{name}/server {title} {ratio:.3f}")
        found[name, "tok/s"] = statistics.median(row.output_tps for row in mine)
        ratio = statistics.median(row.output_tps / row.server_tps for row in mine)
        parts.append(f"{name}/server tok/s {ratio:.3f}")
    first, second = CLIENTS
    titles = [title for name, title in found if name == first]
    parts += [f"{first}/{second} {each} {found[first, each] / found[second, each]:.3f}" for each in titles]
    return ", ".join(parts)


def ours(target: Target, streams: int, number: int, folder: Path) -> Seen:
    """Load it with the client of this package."""
    del folder
    workload = Workload(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS, seed=number)
    offered = offer(workload, LoadPoint(concurrency=streams, requests=requests_at(streams)), salt=streams)
    records = [each for each in http_endpoint(target)(workload).run(offered).records if each.failure is None]
    gaps = [np.diff(each.chunk_times_s) / each.chunk_tokens[1:] for each in records]
    tokens = [each.chunk_tokens[1:] for each in records]
    return Seen(
        [float(each.chunk_times_s[0]) - (each.sent_s or 0.0) for each in records],
        np.concatenate([np.repeat(*pair) for pair in zip(gaps, tokens, strict=True)]).tolist(),
        [float(each.chunk_times_s[-1]) - (each.sent_s or 0.0) for each in records],
        max(each.ended_s for each in records) - min(each.scheduled_s for each in records),
    )


def sglangs(target: Target, streams: int, number: int, folder: Path) -> Seen:
    """Load it with SGLang's own client; a seed of its own for every run, so that no prompt is cached."""
    file = folder / f"{streams}-{number}.jsonl"
    words = [
        *(cpu.python(), "-m", "sglang.bench_serving", "--backend", "sglang", "--base-url", target.base_url),
        *("--model", target.model, "--tokenizer", str(cpu.folder() / "model"), "--tokenize-prompt"),
        *("--dataset-name", "random-ids", "--random-input-len", str(INPUT_TOKENS)),
        *("--random-output-len", str(OUTPUT_TOKENS), "--random-range-ratio", "1"),
        *("--num-prompts", str(requests_at(streams)), "--max-concurrency", str(streams)),
        *("--warmup-requests", "0", "--disable-tqdm", "--output-details", "--output-file", str(file)),
        *("--seed", str(1000 * streams + number)),
    ]
    stubs = {"AUTOTUNE_SHIM_STUBS": "torchvision,soundfile,triton,datasets"}
    environment = {**os.environ, **cpu.environment(), **stubs}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        sys.exit(
            f"sglang.bench_serving ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    saved = json.loads(file.read_text().strip().splitlines()[-1])
    waits = zip(saved["ttfts"], saved["itls"], saved["errors"], strict=True)
    good = [(ttft_s, gaps_s) for ttft_s, gaps_s, error in waits if not error]
    return Seen(
        [ttft_s for ttft_s, _ in good],
        [gap_s for _, gaps_s in good for gap_s in gaps_s],
        [ttft_s + sum(gaps_s) for ttft_s, gaps_s in good],
        saved["duration"],
    )


CLIENTS: dict[str, Callable[[Target, int, int, Path], Seen]] = {"ours": ours, "sglang": sglangs}


if __name__ == "__main__":
    main()
