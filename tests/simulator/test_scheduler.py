from dataclasses import dataclass, field

import numpy as np
import pytest

from autotune.request import OfferedLoad, Request
from autotune.simulator.profile import Profile
from autotune.simulator.scheduler import Scheduler
from autotune.simulator.sequence import Sequence
from autotune.simulator.turn import Turn, TurnKind
from autotune.space import FlagValue
from tests.support.simulated import endpoint_of, equal_requests, profile_without_noise, scheduler_of


@dataclass
class Watched:
    scheduler: Scheduler
    turns: list[Turn] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def __call__(self, turn: Turn) -> None:
        self.turns.append(turn)
        self.running.append(len(self.scheduler.running))
        self.ratios.append(self.scheduler.ratio)

    def of(self, *kinds: TurnKind) -> list[Turn]:
        return [turn for turn in self.turns if turn.kind in kinds]

    @property
    def first_retraction_s(self) -> float:
        return next(turn.started_s for turn in self.turns if turn.retraction)

    @property
    def retractions(self) -> int:
        return sum(len(turn.retraction.sequences) for turn in self.turns if turn.retraction)


def served(
    requests: list[Request],
    concurrency: int,
    *,
    pool_tokens: int | None = None,
    profile: Profile | None = None,
    most_steps: int | None = None,
    **flags: FlagValue,
) -> Watched:
    profile = profile or profile_without_noise()
    named = {name.replace("_", "-"): value for name, value in flags.items()}
    scheduler = scheduler_of(profile, named, pool_tokens=pool_tokens)
    watched = Watched(scheduler)
    endpoint = endpoint_of(scheduler, profile, on_turn=watched, most_steps=most_steps)
    result = endpoint.run(OfferedLoad(requests, concurrency))
    assert all(record.failure is None for record in result.records)
    return watched


def uneven_requests(count: int) -> list[Request]:
    return [Request(index, 100, 20 + index * 137 % 600) for index in range(count)]


def test_prefill_runs_alone_and_before_any_decode() -> None:
    watched = served(equal_requests(20, 1000, 20), 20)
    assert [turn.kind for turn in watched.turns] == [*[TurnKind.PREFILL] * 3, TurnKind.DECODE]


def test_a_prefill_pass_fills_the_chunk_and_cuts_the_last_prompt() -> None:
    watched = served(equal_requests(3, 1000, 4), 3, chunked_prefill_size=1536)
    pieces = [[(piece.before, piece.new) for piece in turn.pieces] for turn in watched.of(TurnKind.PREFILL)]
    assert pieces == [[(0, 1000), (0, 536)], [(536, 464), (0, 1000)]]


def test_chunks_are_whole_pages() -> None:
    watched = served(equal_requests(2, 1000, 4), 2, chunked_prefill_size=640, page_size=64)
    assert [sum(p.new for p in turn.pieces) for turn in watched.of(TurnKind.PREFILL)][:2] == [640, 616]


def test_without_chunking_a_prompt_is_never_cut() -> None:
    watched = served(equal_requests(4, 9000, 4), 4, chunked_prefill_size=-1, max_prefill_tokens=10_000)
    assert [[p.new for p in turn.pieces] for turn in watched.of(TurnKind.PREFILL)] == [[9000]] * 4


def test_max_prefill_tokens_below_the_chunk_stops_adding_but_cuts_nothing() -> None:
    watched = served(equal_requests(6, 600, 4), 6, max_prefill_tokens=256)
    assert [[p.new for p in turn.pieces] for turn in watched.of(TurnKind.PREFILL)] == [[600]] * 6


def test_prefill_max_requests_limits_a_pass() -> None:
    watched = served(equal_requests(6, 100, 4), 6, prefill_max_requests=2)
    assert max(len(turn.pieces) for turn in watched.of(TurnKind.PREFILL)) == 2


def test_the_running_limit_is_never_exceeded_and_latches() -> None:
    watched = served(equal_requests(12, 100, 40), 12, max_running_requests=4)
    assert max(watched.running) == 4
    assert len(watched.of(TurnKind.PREFILL)) == 3


def test_mixed_chunks_give_running_requests_a_token_with_every_chunk() -> None:
    requests = [Request(0, 100, 60), Request(1, 4000, 4)]
    watched = served(requests, 2, chunked_prefill_size=512, enable_mixed_chunk=True)
    mixed = watched.of(TurnKind.MIXED)
    assert len(mixed) >= 7
    assert all(turn.decoded == 1 and len(turn.token_times_s) == 1 for turn in mixed)
    assert all(sum(piece.new for piece in turn.pieces) <= 511 for turn in mixed)


def test_the_prefill_decode_interval_puts_decodes_between_chunks() -> None:
    requests = [Request(0, 100, 60), Request(1, 4000, 4)]
    plain = served(requests, 2, chunked_prefill_size=512)
    spread = served(requests, 2, chunked_prefill_size=512, prefill_decode_interval=8)
    assert sum(len(turn.token_times_s) for turn in plain.turns[:9]) == 0
    between = [len(turn.token_times_s) for turn in spread.turns[1:8]]
    assert between == [8, 0, 8, 0, 8, 0, 8]


def test_the_interval_only_counts_above_its_batch_size() -> None:
    requests = [Request(0, 100, 60), Request(1, 4000, 4)]
    watched = served(
        requests,
        2,
        chunked_prefill_size=512,
        prefill_decode_interval=8,
        prefill_decode_interval_min_bs=2,
    )
    assert sum(len(turn.token_times_s) for turn in watched.turns[:9]) == 0


def test_the_new_token_ratio_decays_with_decode_steps_to_its_floor_and_returns_when_idle() -> None:
    watched = served(equal_requests(1, 10, 900), 1, most_steps=100)
    assert watched.ratios[0] == 0.7
    assert watched.ratios[1] == pytest.approx(0.7 - 100 * (0.7 - 0.098) / 600)
    assert watched.ratios[-2] == pytest.approx(0.098)
    assert watched.scheduler.ratio == 0.7


def test_a_small_pool_retracts_the_request_with_least_output_and_loses_nothing() -> None:
    watched = served(uneven_requests(40), 40, pool_tokens=4000, schedule_conservativeness=0.1)
    assert watched.retractions > 0
    retraction = next(turn.retraction for turn in watched.turns if turn.retraction)
    assert retraction.ratio_after > retraction.ratio_before
    assert retraction.tokens_gained > 100


def test_low_conservativeness_fills_the_pool_with_more_requests_and_retracts_earlier() -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers((50, 20), (150, 600), size=(300, 2)).tolist()
    requests = [Request(index, prompt, output) for index, (prompt, output) in enumerate(sizes)]
    light, heavy = (
        served(requests, 80, pool_tokens=20_000, schedule_conservativeness=conservativeness)
        for conservativeness in (0.1, 1.4)
    )
    assert max(light.running) > max(heavy.running)
    assert light.first_retraction_s < heavy.first_retraction_s


def test_reserving_all_of_an_ignored_eos_never_retracts() -> None:
    profile = profile_without_noise().model_copy(update={"reserves_ignored_eos": True})
    watched = served(
        uneven_requests(60), 60, pool_tokens=4000, profile=profile, schedule_conservativeness=0.1
    )
    assert watched.retractions == 0


def test_more_kv_never_lowers_the_largest_batch() -> None:
    peaks = [
        max(served(equal_requests(30, 200, 200), 30, pool_tokens=tokens).running)
        for tokens in (1500, 3000, 6000, 12_000)
    ]
    assert peaks == sorted(peaks)
    assert peaks[0] < peaks[-1]


def test_a_larger_chunk_makes_one_prefill_pass_longer() -> None:
    longest = [
        max(
            turn.ended_s - turn.started_s
            for turn in served(equal_requests(20, 1024, 4), 20, chunked_prefill_size=chunk).of(
                TurnKind.PREFILL
            )
        )
        for chunk in (1024, 4096, 16384)
    ]
    assert longest == sorted(longest)


def test_disabling_the_cache_computes_every_prefix_again() -> None:
    requests = equal_requests(16, 300, 4, groups=2, prefix_tokens=256)

    def computed(*, disabled: bool) -> int:
        watched = served(requests, 1, disable_radix_cache=disabled)
        return sum(piece.new for turn in watched.of(TurnKind.PREFILL) for piece in turn.pieces)

    assert computed(disabled=True) == 16 * 300
    assert computed(disabled=False) == 2 * 300 + 14 * 44


def test_lpm_prefills_less_than_fcfs_with_shared_prefixes_and_a_small_pool() -> None:
    requests = equal_requests(32, 576, 16, groups=8, prefix_tokens=512)

    def computed(policy: str) -> int:
        watched = served(requests, 32, pool_tokens=1600, schedule_policy=policy, max_running_requests=2)
        return sum(piece.new for turn in watched.of(TurnKind.PREFILL) for piece in turn.pieces)

    assert computed("lpm") < 0.5 * computed("fcfs")


def test_a_pass_above_the_room_for_activations_kills_the_engine() -> None:
    profile = profile_without_noise()
    scheduler = scheduler_of(profile, prefill_room_tokens=4000.0)
    scheduler.submit(Sequence(Request(0, 4000, 4), 0.0))
    assert scheduler.turn().kind is TurnKind.PREFILL
    scheduler.submit(Sequence(Request(1, 4001, 4), 0.0))
    assert scheduler.turn().kind is TurnKind.DIED
    assert scheduler.is_dead


def test_the_last_running_request_is_aborted_when_a_half_prefilled_one_leaves_no_room() -> None:
    profile = profile_without_noise()
    scheduler = scheduler_of(profile, {"chunked-prefill-size": 64}, pool_tokens=400)
    runner, other = Sequence(Request(0, 10, 300), 0.0), Sequence(Request(1, 380, 4), 0.0)
    scheduler.submit(runner)
    scheduler.turn()
    scheduler.chunked = other
    scheduler.pool.take(other, 390)
    other.computed = 379
    aborted = scheduler.turn(most_steps=1).aborted
    assert aborted == [runner]
    assert "due to OOM" in str(runner.failure)


@pytest.mark.parametrize("place", ["waiting", "chunked", "running"])
def test_an_aborted_request_frees_what_it_holds_wherever_it_is(place: str) -> None:
    scheduler = scheduler_of(profile_without_noise(), {"chunked-prefill-size": 64})
    sequence = Sequence(Request(0, 100, 50, prefix_group=1, prefix_tokens=40), 0.0)
    scheduler.submit(sequence)
    for _ in range({"waiting": 0, "chunked": 1, "running": 3}[place]):
        scheduler.turn(most_steps=1)
    scheduler.abort(sequence)
    assert scheduler.is_idle
    assert (scheduler.pool.private, scheduler.pool.locked) == (0, 0)


def test_only_an_idle_engine_flushes_its_cache() -> None:
    scheduler = scheduler_of(profile_without_noise())
    sequence = Sequence(Request(0, 100, 5), 0.0)
    scheduler.submit(sequence)
    assert not scheduler.flush_cache()
    while not scheduler.is_idle:
        scheduler.turn()
    assert scheduler.pool.cached == 104
    assert scheduler.flush_cache()
    assert scheduler.pool.cached == 0


@pytest.mark.parametrize(
    ("request_", "words", "status"),
    [
        (Request(0, 9000, 1), "longer than the model's context length", 400),
        (Request(0, 4000, 4000), "Requested token count exceeds", 400),
        (Request(0, 900, 200), "KV pool of 1000 tokens", 400),
    ],
)
def test_a_request_that_can_never_fit_is_refused(request_: Request, words: str, status: int) -> None:
    pool = 1000 if "pool" in words else 100_000
    scheduler = scheduler_of(profile_without_noise(), {"context-length": 8000}, pool_tokens=pool)
    refusal = scheduler.refusal(request_)
    assert refusal is not None
    assert words in refusal.message
    assert refusal.status == status


def test_the_largest_request_that_is_taken_can_be_served() -> None:
    scheduler = scheduler_of(profile_without_noise(), pool_tokens=1000)
    request = Request(0, 900, scheduler.longest_request_tokens - 900)
    assert scheduler.refusal(request) is None
    scheduler.submit(Sequence(request, 0.0))
    while not scheduler.is_idle:
        scheduler.turn()


def test_a_full_queue_refuses_with_503() -> None:
    scheduler = scheduler_of(profile_without_noise(), {"max-queued-requests": 1})
    scheduler.submit(Sequence(Request(0, 10, 1), 0.0))
    refusal = scheduler.refusal(Request(1, 10, 1))
    assert refusal is not None
    assert (refusal.message, refusal.status) == ("The request queue is full.", 503)
