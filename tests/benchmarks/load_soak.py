"""The load generator for a long time: python -m tests.benchmarks.load_soak [--minutes 20] [--streams 200]

Minute after minute against the truth server, in one process: nothing may grow, neither memory, nor open
files, nor the error of a token's time.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from autotune.load.arrivals import LoadPoint
from autotune.load.client import HttpEndpoint
from autotune.load.workload import Workload, offer
from autotune.request import LoadResult
from tests.benchmarks.load_truth import ITL_S, TOKENS, TTFT_S, percentiles_ms
from tests.support.truth import TruthServer, build, telling_the_truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--round-s", type=float, default=60)
    options = parser.parse_args()
    workload = Workload(input_tokens=1024, output_tokens=TOKENS)
    process = psutil.Process()
    print("|requests|failed|chunk p50/p99 ms|RSS MB|files|tok/read|lag p99 ms|load|\n|-|-|-|-|-|-|-|-|")
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        number, end_s = 0, time.monotonic() + 60 * options.minutes
        while time.monotonic() < end_s:
            number += 1
            point = LoadPoint(concurrency=options.streams, duration_s=options.round_s)
            with telling_the_truth(program, TTFT_S, ITL_S, TOKENS) as server:
                endpoint = HttpEndpoint(server.url, workload, model="m", vocabulary_size=32000, processes=1)
                result = endpoint.run(offer(workload, point, salt=number))
            print(row(result, server, process), flush=True)


def row(result: LoadResult, server: TruthServer, process: psutil.Process) -> str:
    """Say how one round went."""
    good = [record for record in result.records if record.failure is None]
    errors_s = [
        np.repeat(record.chunk_times_s, record.chunk_tokens)
        + ((result.began_ns or 0) - server.seen[record.input_tokens].sent_ns) / 1e9
        for record in good
    ]
    low, high = percentiles_ms(np.concatenate(errors_s))
    health = result.client
    assert health is not None
    return (
        f"|{len(result.records)}|{len(result.records) - len(good)}|{low:.3f}/{high:.3f}"
        f"|{process.memory_info().rss / 2**20:.0f}|{process.num_fds()}|{health.tokens_per_read:.3f}"
        f"|{1e3 * health.loop_lag_p99_s:.1f}|{os.getloadavg()[0]:.1f}|"
    )


if __name__ == "__main__":
    main()
