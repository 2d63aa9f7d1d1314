import json
from pathlib import Path
from typing import Any

import pytest

from autotune.load.failure import StreamError
from autotune.load.stream import EventSplitter
from autotune.load.wire import Tally, body_of, path_of, read_event
from autotune.load.workload import Wire, Workload
from autotune.request import Request, RequestFailureKind

DATA = Path(__file__).parent / "data"
BY_IDS = Request(0, 3, 8, token_ids=(5, 6, 7))
BY_TEXT = Request(0, 1, 8, text="héllo")


def workload(endpoint: Wire, *, ignore_eos: bool = True) -> Workload:
    return Workload(output_tokens=8, dataset=Path("a.jsonl"), endpoint=endpoint, ignore_eos=ignore_eos)


def body(request: Request, endpoint: Wire, **more: bool) -> Any:
    return json.loads(body_of(request, workload(endpoint, **more), "tiny"))


def replay(wire: Wire, name: str) -> tuple[list[int], Tally]:
    tally = Tally()
    events = EventSplitter().feed((DATA / f"{name}.sse").read_bytes())
    return [tally.add(read_event(wire, event)) for event in events], tally


def test_generate_sends_ids_or_text() -> None:
    sampling = {"max_new_tokens": 8, "temperature": 0, "ignore_eos": True}
    assert body(BY_IDS, Wire.GENERATE) == {
        "input_ids": [5, 6, 7],
        "sampling_params": sampling,
        "stream": True,
    }
    assert body(BY_TEXT, Wire.GENERATE)["text"] == "héllo"
    assert path_of(Wire.GENERATE) == "/generate"


def test_completions_ask_for_full_length_and_usage_in_every_chunk_of_servers_that_know_it() -> None:
    sent = body(BY_IDS, Wire.COMPLETIONS)
    assert sent["ignore_eos"] is True
    assert sent["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_completions_send_ids_or_text_and_nothing_beyond_openais_interface_without_ignore_eos() -> None:
    assert body(BY_IDS, Wire.COMPLETIONS, ignore_eos=False) == {
        "model": "tiny",
        "prompt": [5, 6, 7],
        "max_tokens": 8,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert body(BY_TEXT, Wire.COMPLETIONS)["prompt"] == "héllo"
    assert path_of(Wire.COMPLETIONS) == "/v1/completions"


def test_chat_wraps_the_text_in_a_user_message() -> None:
    assert body(BY_TEXT, Wire.CHAT)["messages"] == [{"role": "user", "content": "héllo"}]
    assert path_of(Wire.CHAT) == "/v1/chat/completions"


@pytest.mark.parametrize(("request_", "endpoint"), [(BY_IDS, Wire.CHAT), (Request(0, 3, 8), Wire.GENERATE)])
def test_a_request_without_a_prompt_for_the_endpoint_is_refused(request_: Request, endpoint: Wire) -> None:
    with pytest.raises(ValueError, match="has n"):
        body_of(request_, workload(endpoint), "tiny")


@pytest.mark.parametrize(
    ("wire", "name", "new", "input_tokens", "cached_tokens"),
    [
        (Wire.GENERATE, "generate", [1, 1, 1, 1, 0], 4, 3),
        (Wire.GENERATE, "generate_two_tokens_per_chunk", [1, 2, 2, 0], 4, 3),
        (Wire.COMPLETIONS, "completions_continuous_usage", [1, 1, 1, 1, 1, 0, 0], 3, None),
        (Wire.COMPLETIONS, "completions_cache_report", [1, 1, 0, 0], 3, 2),
        (Wire.COMPLETIONS, "completions_total_usage", [0, 0, 0, 0, 0, 5, 0], 3, None),
        (Wire.CHAT, "chat_continuous_usage", [0, 1, 2, 0, 1, 0], 3, None),
        (Wire.CHAT, "chat_total_usage", [0, 0, 0, 0, 0, 8, 0], 15, None),
    ],
)
def test_tokens_of_a_captured_stream_are_those_of_its_usage(
    wire: Wire, name: str, new: list[int], input_tokens: int, cached_tokens: int | None
) -> None:
    counted, tally = replay(wire, name)
    assert counted == new
    assert (tally.input_tokens, tally.output_tokens, tally.cached_tokens) == (
        input_tokens,
        sum(new),
        cached_tokens,
    )
    assert (tally.finish, tally.is_done) == ("length", True)
    tally.check_end(sum(new), ignore_eos=True)


@pytest.mark.parametrize(
    ("wire", "name", "kind", "message"),
    [
        (Wire.GENERATE, "error_too_long", RequestFailureKind.IN_STREAM_ERROR, "The input (9000 tokens)"),
        (Wire.GENERATE, "error_queue_full_generate", RequestFailureKind.ABORTED, "queue is full"),
        (
            Wire.COMPLETIONS,
            "error_queue_full_completions",
            RequestFailureKind.IN_STREAM_ERROR,
            "queue is full",
        ),
        (Wire.COMPLETIONS, "error_at_top_completions", RequestFailureKind.IN_STREAM_ERROR, "queue is full"),
    ],
)
def test_an_error_under_status_200_is_a_failure(
    wire: Wire, name: str, kind: RequestFailureKind, message: str
) -> None:
    with pytest.raises(StreamError) as caught:
        replay(wire, name)
    assert caught.value.kind is kind
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("wire", "event", "kind"),
    [
        (Wire.GENERATE, '{"error": "out of memory"}', RequestFailureKind.IN_STREAM_ERROR),
        (Wire.GENERATE, '{"meta_info": {"finish_reason": "abort"}}', RequestFailureKind.ABORTED),
        (Wire.COMPLETIONS, '{"choices": [{"finish_reason": "abort"}]}', RequestFailureKind.ABORTED),
        (Wire.CHAT, '{"choices": [{"finish_reason": {"type": "abort"}}]}', RequestFailureKind.ABORTED),
        (Wire.GENERATE, '{"text": ', RequestFailureKind.PROTOCOL),
        (Wire.GENERATE, "[1]", RequestFailureKind.PROTOCOL),
        (Wire.GENERATE, '{"text": "a"}', RequestFailureKind.PROTOCOL),
        (Wire.CHAT, '{"text": "a"}', RequestFailureKind.PROTOCOL),
    ],
)
def test_an_event_that_is_an_error_or_is_not_of_the_wire_is_a_failure(
    wire: Wire, event: str, kind: RequestFailureKind
) -> None:
    with pytest.raises(StreamError) as caught:
        read_event(wire, event.encode())
    assert caught.value.kind is kind
    assert caught.value.message


def test_odd_counts_are_no_counts() -> None:
    about = '{"meta_info": {"completion_tokens": "3", "prompt_tokens": true, "cached_tokens": -1}}'
    progress = read_event(Wire.GENERATE, about.encode())
    assert (progress.output_tokens, progress.input_tokens, progress.cached_tokens) == (None, None, None)


def tally_of(*totals: int, end: str = "[DONE]") -> Tally:
    tally = Tally()
    for total in totals:
        event = json.dumps({"meta_info": {"completion_tokens": total, "finish_reason": None}})
        tally.add(read_event(Wire.GENERATE, event.encode()))
    if end:
        tally.add(read_event(Wire.GENERATE, end.encode()))
    return tally


def test_a_total_that_goes_down_is_a_protocol_failure() -> None:
    with pytest.raises(StreamError, match="went down from 3 to 2"):
        tally_of(3, 2)


def test_a_finish_reason_ends_a_stream_without_done() -> None:
    finish = '{"meta_info": {"completion_tokens": 2, "finish_reason": "stop"}}'
    tally_of(1, end=finish).check_end(2, ignore_eos=True)


@pytest.mark.parametrize(
    ("tally", "kind", "message"),
    [
        (tally_of(1, 2, end=""), RequestFailureKind.CUT_STREAM, "after 2 tokens without"),
        (tally_of(end=""), RequestFailureKind.CUT_STREAM, "after 0 tokens without"),
        (tally_of(), RequestFailureKind.PROTOCOL, "never sent a count"),
        (tally_of(0), RequestFailureKind.PROTOCOL, "4 output tokens were asked and 0 came"),
        (tally_of(1, 3), RequestFailureKind.PROTOCOL, "4 output tokens were asked and 3 came"),
    ],
)
def test_a_stream_that_is_not_whole_is_a_failure(
    tally: Tally, kind: RequestFailureKind, message: str
) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        tally.check_end(4, ignore_eos=True)
    assert caught.value.kind is kind


def test_a_shorter_answer_is_whole_if_the_model_may_end_it() -> None:
    tally_of(1, 3).check_end(4, ignore_eos=False)
