import pytest

from autotune.simulator.assembly import open_scheduler
from autotune.simulator.live import StateBodyError, rank_limit, set_internal_state
from autotune.simulator.profile import read_profile
from autotune.simulator.scheduler import Scheduler
from autotune.simulator.server_info import loads, server_info
from autotune.simulator.startup import Ready, plan_start

_PROFILE = read_profile("deepseek-r1-2x8h100")


def opened(*words: str) -> tuple[Scheduler, Ready]:
    ready = plan_start(_PROFILE, ("--model-path", "m", "--tp-size", "16", *words), seed=1).outcome
    assert isinstance(ready, Ready)
    return open_scheduler(_PROFILE, ready, seed=1), ready


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"pp_max_micro_batch_size": 8}, 8),
        ({"pp_max_micro_batch_size": "8"}, 8),
        ({"pp_max_micro_batch_size": 64}, 64),
        ({"pp_max_micro_batch_size": 0}, None),
        ({"pp_max_micro_batch_size": 65}, None),
        ({"pp_max_micro_batch_size": "nan"}, None),
        ({"pp_max_micro_batch_size": float("inf")}, None),
        ({"chunked_prefill_size": 128}, None),
        ({"pp_max_micro_batch_size": 8, "chunked_prefill_size": 128}, None),
    ],
)
def test_only_the_running_limit_changes_live_and_not_above_the_launched_one(
    changes: dict[str, object], limit: int | None
) -> None:
    scheduler, ready = opened("--max-running-requests", "64")
    assert set_internal_state(scheduler, ready, {"server_args": changes}) == [limit is not None]
    assert scheduler.running_limit == (limit or 64)


@pytest.mark.parametrize("body", [{"x": 1}, None, {"server_args": {"schedule_policy": "lpm"}}])
def test_a_live_change_that_is_no_number_is_not_understood(body: object) -> None:
    with pytest.raises(StateBodyError):
        set_internal_state(*opened(), body)


def test_under_attention_data_parallelism_the_limit_is_that_of_one_rank() -> None:
    scheduler, ready = opened("--max-running-requests", "64", "--enable-dp-attention", "--dp-size", "4")
    for limit, is_done in ((17, False), (5, True)):
        body = {"server_args": {"pp_max_micro_batch_size": limit}}
        assert set_internal_state(scheduler, ready, body) == 4 * [is_done]

    assert scheduler.running_limit == 20
    page = server_info(_PROFILE, ready, startup_s={}, rank_limit=rank_limit(scheduler, ready))
    assert [state["pp_max_micro_batch_size"] for state in page["internal_states"]] == 4 * [5]
    assert {state["effective_max_running_requests_per_dp"] for state in page["internal_states"]} == {16}
    assert loads(scheduler, ready, 0.0)["loads"][0]["max_running_requests"] == 64
