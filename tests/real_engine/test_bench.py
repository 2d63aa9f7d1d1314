"""What the load generator measures, against what the real SGLang says of the same requests in /metrics."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autotune.bench.points import Amount, Sweep, concurrency_ladder
from autotune.bench.rows import BenchRow, row_of
from autotune.bench.run import http_endpoint
from autotune.bench.target import Target
from autotune.load.workload import Workload, offer
from autotune.space import SearchSpace
from autotune.stalls import StallLimit
from tests.real_engine.cpu import SOCKET_VARIABLE
from tests.real_engine.serving import Told, served

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS = 128, 16, 24


@pytest.fixture
def target(cpu_space: Callable[..., SearchSpace], preloaded: Path, tmp_path: Path) -> Iterator[Target]:
    space = cpu_space(environment={SOCKET_VARIABLE: str(preloaded)}, flags={"enable-metrics": True})
    with served(space, tmp_path) as found:
        yield found


def measured(target: Target, concurrency: int) -> tuple[BenchRow, Told]:
    """One point, measured once without a warm-up, and by how much the server's metrics grew meanwhile."""
    workload = Workload(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS, seed=concurrency)
    point = concurrency_ladder(workload, [concurrency], Amount(REQUESTS), Sweep.CONCURRENCY)[0]
    offered = offer(workload, point.load, salt=0)
    before = Told.by(target)
    result = http_endpoint(target)(workload).run(offered)
    return row_of(point, offered, result, (), StallLimit()), Told.by(target).since(before)


def test_counts_tokens_and_times_agree_with_the_servers_own(target: Target) -> None:
    assert target.is_sglang
    assert target.vocabulary_size == 2048
    measured(target, 2)
    for concurrency in (1, 4):
        row, grown = measured(target, concurrency)
        figures = row.figures
        assert (figures.succeeded, row.template_tokens) == (REQUESTS, 0)
        sums = grown.sums
        assert sums["sglang:num_requests_total"] == REQUESTS
        assert sums["sglang:time_to_first_token_seconds_count"] == REQUESTS
        assert sums["sglang:generation_tokens_total"] == figures.output_tokens == REQUESTS * OUTPUT_TOKENS
        assert sums["sglang:prompt_tokens_total"] == figures.input_tokens == REQUESTS * INPUT_TOKENS
        client_s, server_s = mean_ttft_s(row), grown.mean("sglang:time_to_first_token_seconds")
        print_comparison(concurrency, row, grown)
        # The server's clock runs from the parsed request to the token in its HTTP process, ours from socket
        # to socket, which adds parsing, serialising and the wire: it can only be longer. By much only if
        # this client was starved (chunks that wait for it share the last one's stamp): then it is INVALID.
        assert server_s < client_s
        assert client_s < server_s + 0.05 or row.invalid is not None
        assert figures.e2e is not None
        assert figures.e2e.mean > client_s
        assert figures.itl is not None
        assert figures.itl.mean == pytest.approx(grown.mean("sglang:inter_token_latency_seconds"), rel=0.5)


def print_comparison(concurrency: int, row: BenchRow, grown: Told) -> None:
    figures = row.figures
    assert figures.e2e is not None
    assert figures.itl is not None
    shown = {
        "concurrency": concurrency,
        "invalid": row.invalid,
        "client_ttft_mean_ms": 1e3 * mean_ttft_s(row),
        "server_ttft_mean_ms": 1e3 * grown.mean("sglang:time_to_first_token_seconds"),
        "client_e2e_mean_ms": 1e3 * figures.e2e.mean,
        "server_e2e_mean_ms": 1e3 * grown.mean("sglang:e2e_request_latency_seconds"),
        "client_itl_mean_ms": 1e3 * figures.itl.mean,
        "server_itl_mean_ms": 1e3 * grown.mean("sglang:inter_token_latency_seconds"),
        "client_output_tps": figures.output_throughput_tps,
    }
    print(json.dumps(shown))


def mean_ttft_s(row: BenchRow) -> float:
    """The mean TTFT over all requests, those of the opening wave included, as the server has it."""
    steady, ramp = row.figures.ttft, row.figures.ramp_ttft
    parts = [each for each in (steady, ramp) if each is not None]
    return sum(each.mean * each.samples for each in parts) / sum(each.samples for each in parts)
