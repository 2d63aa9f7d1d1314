"""A launch and its loads without noise: what the engine of a profile would do, and the schedules of it.

In: a profile, argv, loads. Out: a `Rehearsal`, or None if nothing can be started. Runs the simulated
scheduler in virtual time. Invariant: memory that does not suffice beside the pool does not hide what the
candidate would do if it did: reserves count as nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from autotune.request import LoadResult, OfferedLoad
from autotune.simulator.assembly import open_scheduler
from autotune.simulator.profile import Profile
from autotune.simulator.recorder import ScheduleRecorder
from autotune.simulator.replay import Schedule
from autotune.simulator.startup import Ready, StartFailure, plan_start
from autotune.simulator.virtual import VirtualEndpoint


@dataclass(frozen=True)
class Rehearsal:
    """What a launch came to: its capacity, each load's records and schedule, and its largest prefill pass."""

    ready: Ready
    results: tuple[LoadResult, ...]
    schedules: tuple[Schedule, ...]
    largest_pass_tokens: int


def without_noise(profile: Profile) -> Profile:
    """Return the profile whose passes take exactly what the constants say, on a warm engine."""
    quiet = {"noise_ratio": 0.0, "launch_noise_ratio": 0.0, "cold_start_s": 0.0}
    return profile.model_copy(update={"step": profile.step.model_copy(update=quiet)})


def rehearse(profile: Profile, argv: Sequence[str], loads: Sequence[OfferedLoad]) -> Rehearsal | None:
    """Start the command line and serve the loads one after another, the cache flushed before each."""
    exact = _without_reserves(without_noise(profile))
    match plan_start(exact, argv, seed=0).outcome:
        case StartFailure():
            return None
        case Ready() as ready:
            return _serve(exact, ready, loads)


def _serve(exact: Profile, ready: Ready, loads: Sequence[OfferedLoad]) -> Rehearsal:
    scheduler = open_scheduler(exact, ready, seed=0)
    request_s, limit = exact.step.request_s, ready.flags.decode_graph_max_batch * ready.flags.dp
    results, schedules, largest = [], [], 0
    for load in loads:
        scheduler.flush_cache()
        recorder = ScheduleRecorder(
            began_s=scheduler.now_s,
            graph_limit=limit,
            attention_groups=ready.flags.dp if exact.memory.is_mla else 1,
        )
        endpoint = VirtualEndpoint(scheduler, request_s=request_s, on_turn=recorder, joins_chunks=True)
        result = endpoint.run(load)
        schedule = recorder.schedule(result.records, concurrency=load.concurrency, request_s=request_s)
        largest = max(largest, int(schedule.passes.new_tokens.max(initial=0)))
        results.append(result)
        schedules.append(schedule)
    return Rehearsal(ready, tuple(results), tuple(schedules), largest)


def _without_reserves(profile: Profile) -> Profile:
    reserves = {"fixed_reserve_gib": 0.0, "chunk_reserve_gib": 0.0, "graph_reserve_gib": 0.0}
    return profile.model_copy(update={"memory": profile.memory.model_copy(update=reserves)})
