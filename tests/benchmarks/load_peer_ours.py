"""Our client as a peer: python -m tests.benchmarks.load_peer_ours URL STREAMS REQUESTS INPUT OUTPUT FILE

Offers one closed loop over /v1/completions, as the other tools do, and saves TTFT and gaps as they do.
"""

import json
import sys
from pathlib import Path

import numpy as np

from autotune.load.arrivals import LoadPoint
from autotune.load.client import HttpEndpoint
from autotune.load.workload import Wire, Workload, offer


def main(url: str, numbers: list[int], file: Path) -> None:
    streams, requests, input_tokens, output_tokens = numbers
    workload = Workload(input_tokens=input_tokens, output_tokens=output_tokens, endpoint=Wire.COMPLETIONS)
    point = LoadPoint(concurrency=streams, requests=requests)
    endpoint = HttpEndpoint(url, workload, model="m", vocabulary_size=32000, processes=1)
    records = endpoint.run(offer(workload, point, salt=1)).records
    good = [each for each in records if each.failure is None]
    saved = {
        "ttfts": [float(each.chunk_times_s[0]) - (each.sent_s or 0.0) for each in good],
        "itls": [np.diff(np.repeat(each.chunk_times_s, each.chunk_tokens)).tolist() for each in good],
    }
    file.write_text(json.dumps(saved))


if __name__ == "__main__":
    main(sys.argv[1], [int(number) for number in sys.argv[2:6]], Path(sys.argv[6]))
