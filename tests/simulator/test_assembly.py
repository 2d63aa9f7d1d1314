import pytest

from autotune.request import OfferedLoad, Request
from autotune.simulator.assembly import BatchLog, open_scheduler
from autotune.simulator.scheduler import Scheduler
from autotune.simulator.startup import Ready, plan_start
from tests.support.simulated import DEEPSEEK, LLAMA, endpoint_of, profile_without_noise


def opened(name: str, *words: str) -> Scheduler:
    profile = profile_without_noise(name)
    start = plan_start(profile, ["--model-path", "m", *words], seed=1)
    assert isinstance(start.outcome, Ready)
    return open_scheduler(profile, start.outcome, seed=1)


def logged(scheduler: Scheduler, requests: list[Request], concurrency: int) -> list[str]:
    lines: list[str] = []
    log = BatchLog(scheduler, lines.append)
    endpoint = endpoint_of(scheduler, profile_without_noise(), on_turn=log)
    endpoint.run(OfferedLoad(requests, concurrency))
    return lines


def test_groups_of_attention_dp_serve_as_one_engine_with_their_pools_less_what_attention_weighs_again() -> (
    None
):
    words = ("--tp", "16", "--dp-size", "2", "--enable-dp-attention", "--mem-fraction-static", "0.7")
    both = opened(DEEPSEEK, *words, "--max-running-requests", "100")
    one = opened(DEEPSEEK, "--tp", "16", "--mem-fraction-static", "0.7")
    weighs_again_gib = 10.6 / 16
    lost_tokens = weighs_again_gib * 2**30 / 70272
    assert both.pool.capacity == pytest.approx(2 * (one.pool.capacity - lost_tokens), abs=4)
    assert both.running_limit == 100


def test_a_cut_prompt_and_the_queue_are_what_is_pending() -> None:
    scheduler = opened(LLAMA, "--chunked-prefill-size", "512")
    first = logged(scheduler, [Request(0, 1000, 4), Request(1, 300, 4)], 2)[0]
    assert "#new-seq: 1, #new-token: 512, #cached-token: 0, token usage: 0.00, #running-req: 0" in first
    assert "#queue-req: 1, #pending-token: 788, " in first


def test_cached_tokens_are_told_with_the_pass_that_uses_them() -> None:
    scheduler = opened(LLAMA)
    requests = [Request(index, 1000, 4, prefix_group=1, prefix_tokens=900) for index in range(2)]
    assert [line.split(", ")[3] for line in logged(scheduler, requests, 1)] == [
        "#cached-token: 0",
        "#cached-token: 900",
    ]


def test_every_retraction_is_a_line() -> None:
    scheduler = opened(LLAMA, "--max-total-tokens", "4000", "--schedule-conservativeness", "0.1")
    requests = [Request(index, 100, 20 + index * 137 % 600) for index in range(40)]
    lines = logged(scheduler, requests, 40)
    retractions = [
        line
        for line in lines
        if line.startswith("KV cache pool is full. Retract requests. #retracted_reqs: ")
    ]
    assert retractions
    assert len([line for line in lines if line.startswith("Decode batch, ")]) > 10
