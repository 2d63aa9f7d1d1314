"""Load tools side by side on the truth server: python -m tests.benchmarks.load_peers [--streams 100,500]

Every round runs each tool once against a C server of its own that knows when it sent what (tests/support/
truth_server); rounds alternate the tools. Tools that cannot be installed are skipped with the reason.
TTFT error: what the tool saved for a request less the median of the truth, whose own spread (p99 less p50) is
printed under the table: no tool saves which request of the server its value belongs to. ITL error: the
difference of a saved gap to the true median gap, absolute ("mean": the tool saves only a mean per request).
"asked/reached": requests in flight, reached as the server saw it. CPU: of the tool and its children, less
what a run of two requests costs it. Start-up: from the start of the process to its first request, in that
run of two. Memory: resident, of all processes together, looked at twice a second.
"good": requests that the tool saved as successful; of GuideLLM fewer than were sent, as was seen (25 of 40).
Environments are kept in $XDG_CACHE_HOME/autotune-benchmarks (default ~/.cache).
"""

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from tests.benchmarks.environments import UnavailableError
from tests.benchmarks.load_peer_tools import PEERS, Load, Peer, Seen, installed
from tests.benchmarks.load_truth import ITL_S, TOKENS, TTFT_S, percentiles_ms
from tests.support.tokenizer import write_tokenizer
from tests.support.truth import TruthServer, build, telling_the_truth

INPUT_TOKENS = 256
TIMEOUT_S = 420.0
SAMPLE_S = 0.5
HEAD = "tool|asked/reached|TTFT error p50/p99 ms|ITL error p50/p99 ms|CPU s/1k|start-up s|RSS MB|good|load"


@dataclass(frozen=True)
class Run:
    """What one call of a tool cost and saved."""

    seen: Seen
    server: TruthServer
    began_ns: int
    cpu_s: float
    rss_mb: float

    @property
    def start_up_s(self) -> float:
        return (min(each.received_ns for each in self.server.seen.values()) - self.began_ns) / 1e9

    @property
    def tokens(self) -> int:
        return sum(len(each.sent_ns) for each in self.server.seen.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="100,500")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tools", default=",".join(peer.name for peer in PEERS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        tools = [peer for peer in PEERS if peer.name in options.tools.split(",") and bench.prepare(peer)]
        print(f"|{HEAD}|\n|{'-|' * (HEAD.count('|') + 1)}")
        for streams in map(int, options.streams.split(",")):
            for _ in range(options.rounds):
                for peer in tools:
                    bench.measure(peer, streams)
    print(f"spread of the true TTFT (p99 less p50), worst run: {bench.worst_spread_ms:.2f} ms")


class Bench:
    """The server's program, the tokenizer, and what each tool costs before its first request."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = build(folder)
        self._idle: dict[str, Run] = {}
        self.worst_spread_ms = 0.0
        write_tokenizer(folder, has_mark=False)
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "eos_token": "<s>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(about | {"pad_token": "[UNK]"}))
        (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 110}))

    def prepare(self, peer: Peer) -> bool:
        """Install a tool and let it send two requests; tell whether it can be measured."""
        try:
            self._idle[peer.name] = self._run(peer, 1, 2)
        except UnavailableError as error:
            print(f"{peer.name}: skipped: {error}", flush=True)
            return False
        return True

    def measure(self, peer: Peer, streams: int) -> None:
        """Print a tool's row."""
        try:
            run = self._run(peer, streams, 2 * streams)
        except UnavailableError as error:
            print(f"{peer.name} at {streams}: {error}", flush=True)
            return
        idle = self._idle[peer.name]
        ttft_ms, itl_ms, spread_ms = errors_ms(run)
        self.worst_spread_ms = max(self.worst_spread_ms, spread_ms)
        cells = [
            peer.name,
            f"{streams}/{reached(run.server)}",
            f"{ttft_ms[0]:.2f}/{ttft_ms[1]:.2f}",
            f"{itl_ms[0]:.2f}/{itl_ms[1]:.2f}{' (mean)' if run.seen.are_means else ''}",
            f"{1000 * max(run.cpu_s - idle.cpu_s, 0.0) / run.tokens:.4f}",
            f"{idle.start_up_s:.1f}",
            f"{run.rss_mb:.0f}",
            f"{len(run.seen.ttfts_s)}/{2 * streams}",
            f"{os.getloadavg()[0]:.1f}",
        ]
        print(f"|{'|'.join(cells)}|", flush=True)

    def _run(self, peer: Peer, streams: int, requests: int) -> Run:
        home = installed(peer)
        with tempfile.TemporaryDirectory(dir=self._folder) as out:
            with telling_the_truth(self._program, TTFT_S, ITL_S, TOKENS) as server:
                load = Load(server.url, streams, requests, INPUT_TOKENS, TOKENS, self._folder, Path(out))
                began_ns, before_s = time.monotonic_ns(), children_cpu_s()
                rss_mb = called(peer.command(home, load), {**os.environ, **peer.environment})
            cpu_s = children_cpu_s() - before_s - server.cpu_s
            return Run(_read(peer, load), server, began_ns, cpu_s, rss_mb)


def _read(peer: Peer, load: Load) -> Seen:
    try:
        return peer.read(load)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UnavailableError(f"saved nothing that can be read: {type(error).__name__}: {error}") from error


def called(command: list[str], environment: dict[str, str]) -> float:
    """Run a tool to its end; return its peak of memory (MB)."""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            with peak_of(process.pid) as peak:
                told, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise UnavailableError(f"no end within {TIMEOUT_S:g} s") from None
    if process.returncode:
        lines = told.decode(errors="replace").strip().splitlines()
        raise UnavailableError(f"exit status {process.returncode}: {lines[-1] if lines else ''}")
    return max(peak)


@contextmanager
def peak_of(number: int) -> Iterator[list[float]]:
    """Watch the memory of a process and its children (MB)."""
    sizes, is_over = [0.0], threading.Event()

    def watch() -> None:
        while not is_over.wait(SAMPLE_S):
            with suppress(psutil.NoSuchProcess):
                first = psutil.Process(number)
                sizes.append(sum(map(_resident_mb, [first, *first.children(recursive=True)])))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield sizes
    finally:
        is_over.set()
        thread.join()


def _resident_mb(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def reached(server: TruthServer) -> int:
    """Return the most requests that were open at once, from their arrival to their last token."""
    seen = [each for each in server.seen.values() if each.sent_ns[-1]]
    times = [(each.received_ns, 1) for each in seen] + [(int(each.sent_ns[-1]), -1) for each in seen]
    return int(np.max(np.cumsum([step for _, step in sorted(times)]))) if times else 0


def errors_ms(run: Run) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Return TTFT and ITL errors (p50, p99), and how far the truth itself spreads."""
    whole = [each for each in run.server.seen.values() if each.sent_ns[-1]]
    true_s = [(int(each.sent_ns[0]) - each.received_ns) / 1e9 for each in whole]
    true_gap_s = statistics.median(np.concatenate([np.diff(each.sent_ns) for each in whole]).tolist()) / 1e9
    middle_s, high_s = np.percentile(true_s, [50, 99])
    ttft_s = np.array(run.seen.ttfts_s) - middle_s
    itl_s = np.abs(np.array(run.seen.gaps_s) - true_gap_s)
    return percentiles_ms(ttft_s), percentiles_ms(itl_s), 1e3 * float(high_s - middle_s)


if __name__ == "__main__":
    main()
