"""The load generator beside the truth: python -m tests.benchmarks.load_truth [--streams 10,100]

A C server sends every token on an absolute schedule and keeps the true times; the client runs in a process
of its own. TTFT error: the client's TTFT (from sent) less the server's (from the request's arrival). Chunk
error: the client's stamp of a token less the server's send time. ITL error: difference of gaps, absolute.
CPU: of the load, start-up apart. RSS: of the largest process. Ready: from the start of the process to the
first request, the interpreter and its imports included. "ok" says how many requests were good, and why the
client would call its own measurement invalid. Where a limit is set it stands behind the value, in bold if it
is broken. "burst": a closed loop, all slots at once, 2 requests each; "steady": an open loop at a
constant rate that keeps as many in flight, 3 requests per slot; "x2": offered by two processes (from
`SEVERAL_FROM` streams on); "floor": the least that reading costs (load_floor).
Times taken on a machine that does other things (see its load) are the machine's, unless it may be told apart:
`chrt -f 10 python -m ...` gives the client a real-time priority below the server's.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.truth import Truth, TruthServer, build, telling_the_truth

TTFT_S = 0.1
ITL_S = 0.02
TOKENS = 128
LASTS_S = TTFT_S + (TOKENS - 1) * ITL_S
COLUMNS = (
    "TTFT p50/p99 ms|chunk p50/p99 ms|ITL p50/p99 ms|CPU s/1k|RSS MB|ready s|delay p99|tok/read|lag p99|ok"
)
SEVERAL_FROM = 500
READY_S = 0.5
RSS_MB = 100.0
CPU_S = 0.02


@dataclass(frozen=True)
class Limits:
    """What is to be reached with so many streams; the p99 of errors in milliseconds."""

    ttft_ms: float = math.inf
    chunk_ms: float = math.inf
    cpu_s: float = math.inf

    @classmethod
    def at(cls, streams: int) -> "Limits":
        if streams <= 100:
            return cls(ttft_ms=1.0, chunk_ms=0.1)
        return cls(ttft_ms=5.0, chunk_ms=20.0, cpu_s=CPU_S) if streams <= SEVERAL_FROM else cls(cpu_s=CPU_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="10,50,100,500,1000")
    parser.add_argument("--kinds", default="burst,steady,floor")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--client", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        run_client(*options.client)
        return
    print(f"|streams|{COLUMNS}|load|\n|{'-|' * (COLUMNS.count('|') + 3)}")
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        for streams, kind, processes in cases(options):
            what = floor if kind == "floor" else row
            print(what(program, streams, kind, processes), flush=True)


def cases(options: argparse.Namespace) -> Iterator[tuple[int, str, int]]:
    """Give every combination that is asked for and makes sense."""
    for kind in options.kinds.split(","):
        for streams in map(int, options.streams.split(",")):
            for processes in map(int, options.processes.split(",")):
                if processes == 1 or (streams >= SEVERAL_FROM and kind != "floor"):
                    yield streams, kind, processes


def row(program: Path, streams: int, kind: str, processes: int) -> str:
    """Run one load and say how far it was from the truth."""
    file = program.with_suffix(".npz")
    with telling_the_truth(program, TTFT_S, ITL_S, TOKENS) as server:
        began = f"{time.monotonic()}"
        command = "tests.benchmarks.load_truth", "--client", server.url, f"{streams} {kind}", str(processes)
        about = run_module(*command, str(file), began)
    limits, health = Limits.at(streams), about["client"]
    ttft, chunk, itl = (percentiles_ms(errors_s) for errors_s in errors_of(file, server).values())
    cells = [
        f"{streams} {kind}" + (f" x{processes}" if processes > 1 else ""),
        f"{ttft[0]:.3f}/" + beside(ttft[1], limits.ttft_ms, 3),
        f"{chunk[0]:.3f}/" + beside(chunk[1], limits.chunk_ms, 3),
        f"{itl[0]:.3f}/{itl[1]:.3f}",
        beside(health["cpu_s_per_1000_tokens"], limits.cpu_s, 4),
        beside(about["rss_mb"], RSS_MB, 0),
        beside(about["ready_s"], READY_S, 2),
        f"{1e3 * health['dispatch_delay_p99_s']:.1f}",
        f"{health['tokens_per_read']:.3f}",
        f"{1e3 * health['loop_lag_p99_s']:.1f}",
        f"{about['good']}/{about['sent']} {about['invalid'] or ''}",
        f"{os.getloadavg()[0]:.1f}",
    ]
    return "|" + "|".join(cells) + "|"


def floor(program: Path, streams: int, kind: str, _: int) -> str:
    """Say what the least that a client in this interpreter does would cost."""
    with telling_the_truth(program, TTFT_S, ITL_S, TOKENS) as server:
        about = run_module("tests.benchmarks.load_floor", server.url, str(streams), str(TOKENS))
    cost = f"{about['cpu_s_per_1000_tokens']:.4f}|{about['rss_mb']:.0f}"
    return f"|{streams} {kind}|-|-|-|{cost}|-|-|-|-|-|{os.getloadavg()[0]:.1f}|"


def run_module(*command: str) -> dict[str, Any]:
    """Run a program of ours and return what it prints."""
    done = subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.PIPE, text=True)
    about: dict[str, Any] = json.loads(done.stdout)
    return about


def beside(value: float, limit: float, digits: int) -> str:
    """Return a value with its limit."""
    if math.isinf(limit):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} (≤ {limit:g})" if value <= limit else f"{value:.{digits}f} (**> {limit:g}**)"


def errors_of(file: Path, server: TruthServer) -> dict[str, NDArray[np.float64]]:
    """Return the errors (s) of every request and token."""
    found: dict[str, list[NDArray[np.float64]]] = {"ttft": [], "chunk": [], "itl": []}
    with np.load(file) as columns:
        began_ns = int(columns["began_ns"])
        for serial in columns["serials"].tolist():
            stamps_s = columns[f"t{serial}"] - columns[f"s{serial}"]
            add_errors(found, stamps_s, float(columns[f"s{serial}"]) + began_ns / 1e9, server.seen[serial])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def add_errors(
    found: dict[str, list[NDArray[np.float64]]],
    since_sent_s: NDArray[np.float64],
    sent_s: float,
    truth: Truth,
) -> None:
    """Compare one request's token stamps (s since it was sent) with the server's."""
    true_s = (truth.sent_ns - truth.received_ns) / 1e9
    count = min(len(true_s), len(since_sent_s))
    found["ttft"].append(since_sent_s[:1] - true_s[:1])
    found["chunk"].append(since_sent_s[:count] + sent_s - truth.sent_ns[:count] / 1e9)
    found["itl"].append(np.abs(np.diff(since_sent_s[:count]) - np.diff(true_s[:count])))


def percentiles_ms(values_s: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values_s, [50, 99])
    return float(low) * 1e3, float(high) * 1e3


def run_client(url: str, load: str, processes: str, file: str, began: str) -> None:
    """Be the client: run one load, write its stamps, print what it cost."""
    from autotune.load.arrivals import LoadPoint  # noqa: PLC0415 - the import is part of the start-up
    from autotune.load.client import HttpEndpoint  # noqa: PLC0415
    from autotune.load.health import invalid_reason  # noqa: PLC0415
    from autotune.load.workload import Workload, offer  # noqa: PLC0415

    streams, kind = int(load.split(maxsplit=1)[0]), load.split()[1]
    workload = Workload(input_tokens=1024, output_tokens=TOKENS)
    point = (
        LoadPoint(concurrency=streams, requests=2 * streams)
        if kind == "burst"
        else LoadPoint(rate=streams / LASTS_S, arrivals="constant", requests=3 * streams)
    )
    offered = offer(workload, point, salt=1)
    endpoint = HttpEndpoint(url, workload, model="m", vocabulary_size=32000, processes=int(processes))
    result = endpoint.run(offered)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    good = [record for record in result.records if record.failure is None]
    columns: dict[str, Any] = {"began_ns": result.began_ns, "serials": [each.input_tokens for each in good]}
    for record in good:
        columns[f"t{record.input_tokens}"] = np.repeat(record.chunk_times_s, record.chunk_tokens)
        columns[f"s{record.input_tokens}"] = record.sent_s
    np.savez(file, **columns)
    first_s = min(record.scheduled_s for record in result.records)
    about = {
        "client": asdict(result.client) if result.client else None,
        "rss_mb": max(each.ru_maxrss for each in used) / 1024,
        "ready_s": (result.began_ns or 0) / 1e9 + first_s - float(began),
        "good": len(good),
        "sent": len(result.records),
        "invalid": invalid_reason(result, offered),
    }
    print(json.dumps(about))


if __name__ == "__main__":
    main()
