import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import pytest

from autotune.simulator.assembly import open_scheduler
from autotune.simulator.pace import Pacemaker
from autotune.simulator.service import AnswerError, Service
from autotune.simulator.startup import Ready, plan_start
from autotune.simulator.turn import Turn, TurnKind
from tests.support.simulated import profile_without_noise

Result = TypeVar("Result")
PROMPT = list(range(100))


class World:
    def __init__(self, *words: str) -> None:
        profile = profile_without_noise()
        start = plan_start(profile, ["--model-path", "m", *words], seed=1)
        assert isinstance(start.outcome, Ready)
        self.turns: list[Turn] = []
        self.scheduler = open_scheduler(profile, start.outcome, seed=1)
        self.pacemaker = Pacemaker(
            self.scheduler, request_s=0.005, time_scale=1000.0, on_turn=self.turns.append
        )
        self.service = Service(profile, start.outcome.flags, self.pacemaker)

    async def events(self, wire: str, body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        asked = self.service.understand(wire, {"stream": True, **body})
        return [event async for event in self.service.events(asked)]

    async def answer(self, wire: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return await self.service.answer(self.service.understand(wire, body))


def live(world: World, use: Callable[[World], Coroutine[None, None, Result]]) -> Result:
    async def main() -> Result:
        beating = asyncio.create_task(world.pacemaker.run())
        try:
            return await use(world)
        finally:
            beating.cancel()

    return asyncio.run(main())


def sampling(tokens: int, **more: object) -> dict[str, object]:
    return {"sampling_params": {"max_new_tokens": tokens, "ignore_eos": True, **more}}


def test_generate_answers_with_exact_counts_and_ids_of_the_vocabulary() -> None:
    answer = live(World(), lambda world: world.answer("generate", {"input_ids": PROMPT, **sampling(5)}))
    about = answer["meta_info"]
    assert (about["prompt_tokens"], about["completion_tokens"], about["cached_tokens"]) == (100, 5, 0)
    assert about["finish_reason"] == {"type": "length", "length": 5}
    assert about["e2e_latency"] > 0.005
    assert len(answer["output_ids"]) == 5
    assert all(0 <= token < 128256 for token in answer["output_ids"])


def test_generate_streams_cumulative_ids_up_to_the_finish() -> None:
    events = live(World(), lambda world: world.events("generate", {"input_ids": PROMPT, **sampling(6)}))
    counts = [event["meta_info"]["completion_tokens"] for event in events]
    assert counts == sorted(set(counts))
    assert counts[-1] == 6
    assert [len(event["output_ids"]) for event in events] == counts
    assert [event["meta_info"]["finish_reason"] is None for event in events] == [True] * (len(events) - 1) + [
        False
    ]


def test_generate_streams_only_what_is_new_when_asked() -> None:
    world = World("--incremental-streaming-output")
    events = live(world, lambda world: world.events("generate", {"input_ids": PROMPT, **sampling(6)}))
    assert sum(len(event["output_ids"]) for event in events) == 6


def test_a_stream_interval_groups_all_tokens_but_the_first() -> None:
    body = {"input_ids": PROMPT, **sampling(9, stream_interval=4)}
    events = live(World(), lambda world: world.events("generate", body))
    counts = [event["meta_info"]["completion_tokens"] for event in events]
    assert (counts[0], counts[-1]) == (1, 9)
    assert len(counts) <= 3


def test_a_repeated_prompt_is_served_from_the_cache() -> None:
    async def twice(world: World) -> list[int]:
        body = {"input_ids": PROMPT, **sampling(2)}
        return [(await world.answer("generate", body))["meta_info"]["cached_tokens"] for _ in range(2)]

    assert live(World(), twice) == [0, 99]


def test_completions_stream_text_usage_and_a_finish_reason() -> None:
    body = {
        "prompt": PROMPT,
        "max_tokens": 4,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    *chunks, last = live(World(), lambda world: world.events("completions", body))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "tok " * 4
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "length"
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks][-1] == 4
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 104


def test_without_continuous_usage_completions_chunks_have_a_null_usage() -> None:
    events = live(World(), lambda world: world.events("completions", {"prompt": "text", "max_tokens": 2}))
    assert {event["usage"] for event in events} == {None}


def test_chat_streams_a_role_first_and_a_finish_apart() -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    opening, *middle, last = live(World(), lambda world: world.events("chat", body))
    assert opening["choices"][0]["delta"] == {"reasoning_content": None, "role": "assistant", "content": ""}
    assert "".join(event["choices"][0]["delta"]["content"] for event in middle) == "tok " * 3
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["choices"][0]["delta"] == {"reasoning_content": None}
    assert "usage" not in last


def test_whole_answers_have_openais_form_and_report_the_cache_when_told() -> None:
    world = World("--enable-cache-report", "--served-model-name", "served")

    async def both(world: World) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        first = await world.answer("completions", {"prompt": [PROMPT], "max_tokens": 3})
        return first, await world.answer("chat", {"messages": [{"content": "hi"}], "max_tokens": 2})

    completion, chat = live(world, both)
    assert (completion["object"], chat["object"]) == ("text_completion", "chat.completion")
    assert completion["choices"][0]["text"] == "tok " * 3
    assert chat["choices"][0]["message"]["content"] == "tok " * 2
    assert completion["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert completion["model"] == "served"


@pytest.mark.parametrize(
    ("wire", "body", "words"),
    [
        ("generate", None, "not a JSON object"),
        ("generate", {}, "Either text, input_ids or input_embeds should be provided."),
        ("generate", {"input_ids": [128256]}, "valid range is [0, 128256)"),
        ("generate", {"input_ids": [1], "token_ids_logprob": [-1]}, "valid range is [0, 128256)"),
        ("generate", {"input_ids": [[1], [2]]}, "one prompt"),
        ("completions", {"prompt": [1], "max_tokens": -3}, "max_tokens must be positive"),
        ("completions", {"prompt": [1], "max_tokens": "3"}, "max_tokens must be positive"),
    ],
)
def test_what_cannot_be_understood_is_a_bad_request(wire: str, body: object, words: str) -> None:
    with pytest.raises(AnswerError) as caught:
        World().service.understand(wire, body)
    assert caught.value.status == 400
    error = caught.value.body.get("error", caught.value.body)
    assert words in error["message"]


def test_a_prompt_that_is_too_long_is_an_error_in_each_endpoints_way() -> None:
    async def refused(world: World, wire: str) -> AnswerError:
        key = "input_ids" if wire == "generate" else "prompt"
        with pytest.raises(AnswerError) as caught:
            await world.answer(wire, {key: PROMPT})
        return caught.value

    generate = live(World("--context-length", "50"), lambda world: refused(world, "generate"))
    completion = live(World("--context-length", "50"), lambda world: refused(world, "completions"))
    text = "The input (100 tokens) is longer than the model's context length (50 tokens)."
    assert (generate.status, generate.body) == (400, {"error": {"message": text}})
    assert (completion.status, completion.body["message"]) == (400, text)
    (event,) = live(
        World("--context-length", "50"), lambda world: world.events("generate", {"input_ids": PROMPT})
    )
    assert event["error"]["code"] == 400


def test_a_full_queue_is_503_whole_and_an_abort_in_a_stream() -> None:
    async def crowd(world: World, wire: str) -> list[Mapping[str, Any]]:
        key = "input_ids" if wire == "generate" else "prompt"
        streams = await asyncio.gather(*(world.events(wire, {key: PROMPT}) for _ in range(10)))
        return [stream[0] for stream in streams if len(stream) == 1]

    words = ("--max-running-requests", "2", "--max-queued-requests", "2")
    aborted = live(World(*words), lambda world: crowd(world, "generate"))
    assert 5 <= len(aborted) <= 8
    assert aborted[0]["meta_info"]["finish_reason"] == {
        "type": "abort",
        "status_code": 503,
        "message": "The request queue is full.",
    }
    errors = live(World(*words), lambda world: crowd(world, "completions"))
    assert errors[0]["error"]["type"] == "SERVICE_UNAVAILABLE"

    async def whole(world: World) -> list[Mapping[str, Any] | BaseException]:
        body = {"input_ids": PROMPT}
        return await asyncio.gather(
            *(world.answer("generate", body) for _ in range(10)), return_exceptions=True
        )

    refusals = [each for each in live(World(*words), whole) if isinstance(each, AnswerError)]
    assert {refusal.status for refusal in refusals} == {503}


@pytest.mark.parametrize("wire", ["generate", "completions"])
def test_an_aborted_request_ends_its_stream_with_abort(wire: str) -> None:
    async def abort(world: World) -> Mapping[str, Any]:
        body = {"rid": "one", "input_ids": PROMPT, "prompt": PROMPT, "max_tokens": 5000, **sampling(5000)}
        reading = asyncio.create_task(world.events(wire, body))
        await asyncio.sleep(0.05)
        world.service.abort("nobody")
        world.service.abort("o")
        return (await reading)[-1]

    world = World()
    last = live(world, abort)
    reason = (
        last["meta_info"]["finish_reason"]["type"]
        if wire == "generate"
        else last["choices"][0]["finish_reason"]
    )
    assert reason == "abort"
    assert world.scheduler.is_idle
    assert not world.pacemaker.is_busy


def test_a_client_that_hangs_up_frees_its_place() -> None:
    async def hang_up(world: World) -> None:
        asked = world.service.understand("generate", {"stream": True, "input_ids": PROMPT, **sampling(5000)})
        events = world.service.events(asked)
        await anext(events)
        assert world.pacemaker.is_busy
        await events.aclose()

    world = World()
    live(world, hang_up)
    assert world.scheduler.is_idle
    assert world.scheduler.pool.private == 0


def test_the_pacemaker_ends_with_the_turn_in_which_the_engine_died() -> None:
    world = World()
    world.scheduler._prefill_room_tokens = 50.0

    async def die() -> Turn:
        beating = asyncio.create_task(world.pacemaker.run())
        reading = asyncio.create_task(world.answer("generate", {"input_ids": PROMPT}))
        turn = await beating
        reading.cancel()
        return turn

    assert asyncio.run(die()).kind is TurnKind.DIED


def test_the_model_runs_at_its_own_pace_in_wall_clock_time() -> None:
    answer = live(World(), lambda world: world.answer("generate", {"input_ids": PROMPT, **sampling(100)}))
    assert answer["meta_info"]["e2e_latency"] > 0.6
