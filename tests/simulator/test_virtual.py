from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.request import LoadResult, OfferedLoad, Request, RequestFailureKind
from autotune.simulator.profile import read_profile
from autotune.simulator.recorder import ScheduleRecorder
from autotune.simulator.replay import Schedule
from autotune.simulator.scheduler import Scheduler
from autotune.simulator.turn import Turn, TurnKind
from autotune.space import FlagValue
from tests.support.simulated import (
    LLAMA,
    endpoint_of,
    equal_requests,
    profile_without_noise,
    run,
    scheduler_of,
    ttft_s,
)

NOISY = read_profile(LLAMA)
POOL_TOKENS = 900
PROMPTS = st.integers(1, 300)
OUTPUTS = st.integers(1, 120)


@dataclass(frozen=True)
class Case:
    requests: tuple[Request, ...]
    concurrency: int | None
    flags: dict[str, FlagValue]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    requests = []
    is_open = draw(st.booleans())
    due_s = 0.0
    for index in range(draw(st.integers(1, 25))):
        prompt = draw(PROMPTS)
        group = draw(st.sampled_from([None, 1, 2, 3]))
        prefix = 0 if group is None else draw(st.integers(0, prompt))
        due_s += draw(st.floats(0, 0.2))
        requests.append(
            Request(index, prompt, draw(OUTPUTS), group, prefix, due_s=due_s if is_open else None)
        )
    flags: dict[str, FlagValue] = {
        "chunked-prefill-size": draw(st.sampled_from([-1, 16, 64, 256, 1024])),
        "schedule-policy": draw(st.sampled_from(["fcfs", "lpm", "lof", "dfs-weight", "random", "hrrn"])),
        "schedule-conservativeness": draw(st.floats(0, 1.5)),
        "enable-mixed-chunk": draw(st.booleans()),
        "prefill-decode-interval": draw(st.sampled_from([0, 3])),
        "max-running-requests": draw(st.sampled_from([1, 3, 64])),
        "max-prefill-tokens": draw(st.sampled_from([64, 16384])),
        "disable-radix-cache": draw(st.booleans()),
        "page-size": draw(st.sampled_from([1, 16])),
    }
    return Case(tuple(requests), None if is_open else draw(st.integers(1, 12)), flags)


def serve(
    case: Case, *, most_steps: int | None = None, joins_chunks: bool = False
) -> tuple[LoadResult, Scheduler]:
    profile = NOISY
    scheduler = scheduler_of(profile, case.flags, pool_tokens=POOL_TOKENS)
    running = scheduler.running

    def check(turn: Turn) -> None:
        pool = scheduler.pool
        assert turn.ended_s >= turn.started_s
        assert 0 <= pool.locked <= pool.cached
        assert pool.private + pool.cached <= pool.capacity
        members = [*running, *([scheduler.chunked] if scheduler.chunked else [])]
        grown = sum(running.generated(each) - each.generated for each in running)
        assert pool.private == sum(each.private for each in members) + grown
        contexts = [each.request.input_tokens + running.generated(each) for each in running]
        assert running.context_sum == sum(contexts)
        assert running.longest_context == max(contexts, default=0)

    endpoint = endpoint_of(
        scheduler, profile, on_turn=check, most_steps=most_steps, joins_chunks=joins_chunks
    )
    return endpoint.run(OfferedLoad(case.requests, case.concurrency)), scheduler


@settings(max_examples=40)
@given(case=cases())
def test_no_token_is_lost_and_the_pool_is_never_exceeded(case: Case) -> None:
    result, scheduler = serve(case)
    assert [record.index for record in result.records] == [each.index for each in case.requests]
    for record, request in zip(result.records, case.requests, strict=True):
        if record.failure is None:
            assert record.output_tokens == request.output_tokens == len(record.chunk_times_s)
            assert record.chunk_tokens.sum() == request.output_tokens
            assert record.sent_s is not None
            assert record.chunk_times_s[0] > record.sent_s
            assert np.all(np.diff(record.chunk_times_s) > 0)
            assert record.ended_s == record.chunk_times_s[-1]
            assert record.cached_tokens is not None
            assert record.cached_tokens < request.input_tokens
        else:
            assert record.failure.kind is RequestFailureKind.ABORTED
    assert scheduler.is_idle
    assert (scheduler.pool.private, scheduler.pool.locked) == (0, 0)


@settings(max_examples=25)
@given(case=cases(), most_steps=st.sampled_from([1, 2, 7]))
def test_a_run_of_decode_steps_equals_single_steps_to_the_bit(case: Case, most_steps: int) -> None:
    jumped, _ = serve(case)
    stepped, _ = serve(case, most_steps=most_steps)
    for fast, slow in zip(jumped.records, stepped.records, strict=True):
        assert np.array_equal(fast.chunk_times_s, slow.chunk_times_s)
        assert (fast.sent_s, fast.ended_s, fast.cached_tokens) == (
            *(slow.sent_s, slow.ended_s),
            slow.cached_tokens,
        )


def passes_of(case: Case, *, joins_chunks: bool) -> tuple[Schedule, int]:
    """Return what the passes of a load were, whatever turns they came in, and how many turns that were."""
    scheduler = scheduler_of(NOISY, case.flags, pool_tokens=POOL_TOKENS)
    recorder, turns = ScheduleRecorder(began_s=0.0, graph_limit=256), list[Turn]()

    def see(turn: Turn) -> None:
        recorder(turn)
        turns.append(turn)

    endpoint = endpoint_of(scheduler, NOISY, on_turn=see, joins_chunks=joins_chunks)
    result = endpoint.run(OfferedLoad(case.requests, case.concurrency))
    schedule = recorder.schedule(result.records, concurrency=case.concurrency, request_s=0.0)
    return schedule, len(turns)


@settings(max_examples=60)
@given(case=cases())
def test_a_run_of_chunks_equals_single_passes_to_the_bit(case: Case) -> None:
    for fast, slow in zip(serve(case, joins_chunks=True)[0].records, serve(case)[0].records, strict=True):
        assert np.array_equal(fast.chunk_times_s, slow.chunk_times_s)
        assert (fast.sent_s, fast.ended_s, fast.failure) == (slow.sent_s, slow.ended_s, slow.failure)
    joined, single = (passes_of(case, joins_chunks=each)[0] for each in (True, False))
    for name in ("new_tokens", "token_pairs", "sequences", "context_sum", "longest_context", "steps"):
        assert np.array_equal(getattr(joined.passes, name), getattr(single.passes, name))
    assert np.array_equal(joined.first_pass, single.first_pass)
    assert np.array_equal(joined.last_pass, single.last_pass)


@pytest.mark.parametrize(("mixed", "turns"), [(False, (42, 9)), (True, (43, 9))])
def test_the_chunks_of_a_long_prompt_are_one_turn(mixed: bool, turns: tuple[int, int]) -> None:
    requests = (Request(0, 10, 60), Request(1, 600, 2), Request(2, 600, 2))
    flags: dict[str, FlagValue] = {"chunked-prefill-size": 32, "enable-mixed-chunk": mixed}
    case = Case(requests, 3, flags | {"disable-radix-cache": True})
    assert tuple(passes_of(case, joins_chunks=each)[1] for each in (False, True)) == turns


@settings(max_examples=40)
@given(sizes=st.lists(st.tuples(PROMPTS, OUTPUTS), min_size=2, max_size=25), limit=st.sampled_from([2, 64]))
def test_fcfs_gives_first_tokens_in_order_of_arrival(sizes: list[tuple[int, int]], limit: int) -> None:
    requests = [Request(index, prompt, output) for index, (prompt, output) in enumerate(sizes)]
    result = run(
        profile_without_noise(),
        OfferedLoad(requests, len(requests)),
        {"max-running-requests": limit},
        pool_tokens=20_000,
    )
    first = [record.first_token_s for record in result.records]
    assert first == sorted(first, key=lambda time: time or 0.0)


def test_the_same_seed_gives_the_same_records_and_another_seed_others() -> None:
    def times(seed: int) -> list[float]:
        result = run(NOISY, OfferedLoad(equal_requests(20, 100, 20), 5), seed=seed)
        return [record.ended_s for record in result.records]

    assert times(1) == times(1)
    assert times(1) != times(2)


def test_a_closed_loop_keeps_its_concurrency() -> None:
    result = run(profile_without_noise(), OfferedLoad(equal_requests(30, 100, 20), 4))
    events = sorted(
        event for record in result.records for event in ((record.sent_s or 0.0, 1), (record.ended_s, -1))
    )
    in_flight = np.cumsum([change for _, change in sorted(events, key=lambda e: (e[0], e[1]))])
    assert in_flight.max() == 4
    assert result.client is None


def test_an_open_loop_sends_when_requests_are_due() -> None:
    requests = [Request(index, 100, 20, due_s=index * 0.5) for index in range(5)]
    result = run(profile_without_noise(), OfferedLoad(requests, None))
    assert [record.sent_s for record in result.records] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert ttft_s(result.records) == pytest.approx([ttft_s(result.records)[0]] * 5)


@pytest.mark.parametrize("concurrency", [2, None])
def test_nothing_is_sent_after_the_stop_and_what_is_in_flight_is_awaited(concurrency: int | None) -> None:
    requests = [Request(index, 100, 200, due_s=index * 0.5) for index in range(50)]
    result = run(profile_without_noise(), OfferedLoad(requests, concurrency, stop_after_s=3.0))
    assert 2 <= len(result.records) < 50
    assert all((record.sent_s or 0.0) < 3.0 for record in result.records)
    assert all(record.output_tokens == 200 for record in result.records)
    assert max(record.ended_s for record in result.records) > 3.0


def test_times_of_every_load_begin_at_its_own_start_and_do_not_grow_with_the_engines_age() -> None:
    profile = profile_without_noise()
    scheduler = scheduler_of(profile)
    endpoint = endpoint_of(scheduler, profile)
    first, second = (endpoint.run(OfferedLoad(equal_requests(8, 100, 400), 4)) for _ in range(2))
    for early, late in zip(first.records, second.records, strict=True):
        assert late.chunk_times_s == pytest.approx(early.chunk_times_s)


def test_a_request_that_cannot_be_served_is_aborted_and_the_next_is_sent() -> None:
    requests = [Request(0, 5000, 5), Request(1, 10, 5)]
    result = run(profile_without_noise(), OfferedLoad(requests, 1), pool_tokens=1000)
    assert [record.failure and record.failure.kind for record in result.records] == [
        RequestFailureKind.ABORTED,
        None,
    ]
    assert result.records[0].output_tokens == 0


def test_an_engine_that_dies_cuts_what_it_answers_and_is_gone_for_the_rest() -> None:
    profile = profile_without_noise()
    scheduler = scheduler_of(profile, prefill_room_tokens=2000.0)
    seen: list[TurnKind] = []
    endpoint = endpoint_of(scheduler, profile, on_turn=lambda turn: seen.append(turn.kind))
    requests = [
        Request(0, 1000, 400, due_s=0.0),
        Request(1, 1000, 5, due_s=0.5),
        Request(2, 3000, 5, due_s=1.0),
        Request(3, 10, 5, due_s=9.0),
    ]
    result = endpoint.run(OfferedLoad(requests, None))
    assert seen[-1] is TurnKind.DIED
    kinds = [record.failure and record.failure.kind for record in result.records]
    assert kinds == [
        RequestFailureKind.CUT_STREAM,
        None,
        RequestFailureKind.CUT_STREAM,
        RequestFailureKind.CONNECTION,
    ]
    assert 0 < result.records[0].output_tokens < 400
    assert result.records[2].output_tokens == 0

    after = endpoint.run(OfferedLoad(equal_requests(5, 10, 5), 2))
    assert [record.failure and record.failure.kind for record in after.records] == [
        RequestFailureKind.CONNECTION,
        RequestFailureKind.CONNECTION,
    ]


def test_a_cached_prefix_is_counted_and_makes_the_first_token_earlier() -> None:
    result = run(
        profile_without_noise(), OfferedLoad(equal_requests(2, 4000, 4, groups=1, prefix_tokens=3900), 1)
    )
    cold, warm = result.records
    assert (cold.cached_tokens, warm.cached_tokens) == (0, 3900)
    assert ttft_s(result.records)[1] < 0.3 * ttft_s(result.records)[0]


def test_turns_of_a_conversation_wait_for_each_other_and_hit_the_cache() -> None:
    lengths = (100, 180, 260)
    said = tuple(
        Request(index, tokens, 40, 7, tokens, after=index - 1 if index else None, pause_s=0.5 if index else 0)
        for index, tokens in enumerate(lengths)
    )
    for concurrency in (1, None):
        profile = profile_without_noise()
        due = tuple(replace(request, due_s=0.0) for request in said)
        records = endpoint_of(scheduler_of(profile), profile).run(OfferedLoad(due, concurrency)).records
        for before, record in pairwise(records):
            assert record.scheduled_s == pytest.approx(before.ended_s + 0.5)
        assert [record.cached_tokens for record in records] == [0, 100, 180]


def test_a_ramp_spreads_the_first_requests_in_virtual_time() -> None:
    profile = profile_without_noise()
    load = OfferedLoad(equal_requests(6, 50, 5), 3, ramp_s=30.0)
    records = endpoint_of(scheduler_of(profile), profile).run(load).records
    assert sorted(record.scheduled_s for record in records)[-2:] == pytest.approx([10, 20])
