"""The simulated scheduler beside the real one: python -m tests.benchmarks.twin_scheduler

The real SGLang (AUTOTUNE_SGLANG_CPU, see tests/real_engine) and the simulator get the same requests and the
same flags. Step times are fitted to the first launch, since who runs when depends on them a little. Compared
per launch: prefill batches and retracted requests by the engine's log and by the simulator's turns, the most
requests that ran at once, and the order of first tokens (rank correlation). Cells are "real / simulated".

Seen with SGLang 0.5.23 (72 requests, 24 at a time, on a loaded machine): prefill batches 34/36, 110/115
with small chunks, 59/58 with 8 at once, 52/54 in a small pool, 61/61 with mixed chunks, 42/39 with shared
prefixes; no retractions on either side; the most running equal but for 9/10 in the small pool; rank
correlations of first tokens 0.98, 0.92, 1.00, 1.00, 1.00 and 1.00. The last launch (lpm) was not measured.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from autotune.bench.run import http_endpoint
from autotune.load.arrivals import LoadPoint
from autotune.load.workload import Workload, offer
from autotune.metrics import measure
from autotune.request import LoadResult, OfferedLoad
from autotune.search.calibration.case import Case, shown_by
from autotune.search.calibration.fit import calibrate
from autotune.simulator.arguments import to_argv
from autotune.simulator.assembly import open_scheduler
from autotune.simulator.profile import Profile, read_profile
from autotune.simulator.rehearsal import without_noise
from autotune.simulator.startup import Ready, plan_start
from autotune.simulator.turn import Turn, TurnKind
from autotune.simulator.virtual import VirtualEndpoint
from autotune.space import FlagValue, SearchSpace
from tests.real_engine import cpu
from tests.real_engine.serving import served

PLAIN = {"input_tokens": {"uniform": [100, 600]}, "output_tokens": {"uniform": [8, 48]}, "seed": 3}
SHARED = {
    "input_tokens": {"uniform": [500, 700]},
    "output_tokens": {"uniform": [8, 48]},
    "shared_prefix": {"groups": 6, "tokens": 400},
    "seed": 3,
}
POINT = LoadPoint(concurrency=24, requests=72)
LAUNCHES: list[tuple[str, dict[str, FlagValue], dict[str, object]]] = [
    ("plain", {"max-total-tokens": 20000}, PLAIN),
    ("small chunks", {"max-total-tokens": 20000, "chunked-prefill-size": 256}, PLAIN),
    ("few at once", {"max-total-tokens": 20000, "max-running-requests": 8}, PLAIN),
    ("small pool", {"max-total-tokens": 3000, "schedule-conservativeness": 0.1}, PLAIN),
    (
        "mixed chunks",
        {"max-total-tokens": 20000, "chunked-prefill-size": 512, "enable-mixed-chunk": True},
        PLAIN,
    ),
    ("shared, fcfs", {"max-total-tokens": 6000}, SHARED),
    ("shared, lpm", {"max-total-tokens": 6000, "schedule-policy": "lpm"}, SHARED),
]
_PREFILL = re.compile(r"Prefill batch.*#new-seq: (\d+)")
_RUNNING = re.compile(r"#running-req: (\d+)")
_RETRACTED = re.compile(r"#retracted_reqs: (\d+)")


@dataclass(frozen=True)
class Seen:
    """What a scheduler did with a load."""

    prefills: int
    retracted: int
    peak: int
    first_s: np.ndarray
    result: LoadResult


def main() -> None:
    if not os.environ.get(cpu.FOLDER_VARIABLE):
        sys.exit(f"{cpu.FOLDER_VARIABLE} is not set (tests/real_engine/setup.sh makes the folder)")
    profile = read_profile("llama-8b-1xh100")
    print(f"{'launch':14}{'prefill batches':>17}{'retracted':>12}{'most running':>14}{'first tokens':>14}")
    for number, (name, flags, keys) in enumerate(LAUNCHES):
        workload = Workload.model_validate(keys)
        load = offer(workload, POINT, salt=0)
        argv = tuple(to_argv({"model-path": "m", "context-length": 8192, **flags}))
        real = on_real_engine(flags, workload, load)
        if not number:
            shown = shown_by(measure(real.result.records, concurrency=POINT.concurrency).summary())
            fit = calibrate(profile, [Case(name, None, argv, load, shown)])
            profile = fit.profile
        simulated = on_simulator(profile, argv, load)
        order = spearmanr(real.first_s, simulated.first_s).statistic
        cells = [
            f"{getattr(real, each)} / {getattr(simulated, each)}"
            for each in ("prefills", "retracted", "peak")
        ]
        print(f"{name:14}{cells[0]:>17}{cells[1]:>12}{cells[2]:>14}{order:>14.3f}", flush=True)


def on_real_engine(flags: dict[str, FlagValue], workload: Workload, load: OfferedLoad) -> Seen:
    """Launch SGLang, warm it up, flush its cache, and load it."""
    space = SearchSpace.model_validate(
        {
            "version": "0.5.23",
            "model": str(cpu.folder() / "model"),
            "launcher": "process",
            "command": [sys.executable, str(Path(cpu.__file__).parent / "launch.py")],
            "flags": {"decode-log-interval": 1, **flags},
            "tune": {"cuda-graph-max-bs-decode": {"int": [64, 4096]}},
            "ready_timeout_s": 300,
        }
    )
    with tempfile.TemporaryDirectory() as folder, served(space, Path(folder)) as target:
        log = Path(folder) / "engine-rank0.log"
        endpoint = http_endpoint(target)(workload)
        endpoint.run(offer(workload, POINT, salt=1))
        target.flush()
        before = log.stat().st_size
        result = endpoint.run(load)
        text = log.read_bytes()[before:].decode()
    running = (int(found[1]) for line in text.splitlines() if (found := _RUNNING.search(line)))
    return Seen(
        prefills=len(_PREFILL.findall(text)),
        retracted=sum(map(int, _RETRACTED.findall(text))),
        peak=max(running, default=0),
        first_s=_first_s(result),
        result=result,
    )


def on_simulator(profile: Profile, argv: tuple[str, ...], load: OfferedLoad) -> Seen:
    """Serve the load with the simulated scheduler."""
    exact = without_noise(profile)
    ready = plan_start(exact, argv, seed=0).outcome
    if not isinstance(ready, Ready):
        raise TypeError("the simulated engine does not start")
    scheduler, turns = open_scheduler(exact, ready, seed=0), list[Turn]()
    result = VirtualEndpoint(scheduler, request_s=exact.step.request_s, on_turn=turns.append).run(load)
    return Seen(
        prefills=sum(turn.kind in {TurnKind.PREFILL, TurnKind.MIXED} for turn in turns),
        retracted=sum(len(turn.retraction.sequences) for turn in turns if turn.retraction),
        peak=max(turn.decoded for turn in turns),
        first_s=_first_s(result),
        result=result,
    )


def _first_s(result: LoadResult) -> np.ndarray:
    return np.array(list(_firsts(result)))


def _firsts(result: LoadResult) -> Iterator[float]:
    for record in result.records:
        if record.first_token_s is None:
            raise AssertionError(f"request {record.index} failed: {record.failure}")
        yield record.first_token_s


if __name__ == "__main__":
    main()
