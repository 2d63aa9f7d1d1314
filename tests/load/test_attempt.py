from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.load.attempt import Attempt
from autotune.load.failure import StreamError
from autotune.load.workload import Wire
from autotune.request import Request, RequestFailureKind, RequestPhase

DATA = Path(__file__).parent / "data"


def attempt_at(wire: Wire, output_tokens: int = 5) -> Attempt:
    return Attempt(Request(3, 2, output_tokens), wire, 0.5, ignore_eos=True)


def received(wire: Wire, name: str, output_tokens: int) -> Attempt:
    """Give the events of a captured stream, one every second from 1 s on."""
    attempt = attempt_at(wire, output_tokens)
    attempt.sent(0.6)
    attempt.answered()
    for number, event in enumerate((DATA / f"{name}.sse").read_bytes().split(b"\n\n"), start=1):
        attempt.receive(event + b"\n\n", float(number))
    return attempt


def test_the_phase_follows_the_stamps() -> None:
    attempt = attempt_at(Wire.GENERATE)
    phases = [attempt.phase]
    attempt.sent(1.0)
    phases.append(attempt.phase)
    attempt.answered()
    phases.append(attempt.phase)
    attempt.receive(b'data: {"meta_info": {"completion_tokens": 1}}\n\n', 2.0)
    phases.append(attempt.phase)
    assert phases == list(RequestPhase)


@pytest.mark.parametrize(
    ("wire", "name", "times_s", "tokens"),
    [
        (Wire.GENERATE, "generate", [1, 2, 3, 4], [1, 1, 1, 1]),
        (Wire.GENERATE, "generate_two_tokens_per_chunk", [1, 2, 3], [1, 2, 2]),
        (Wire.COMPLETIONS, "completions_continuous_usage", [1, 2, 3, 4, 5], [1, 1, 1, 1, 1]),
        (Wire.CHAT, "chat_continuous_usage", [2, 3, 5], [1, 2, 1]),
        (Wire.COMPLETIONS, "completions_total_usage", [1, 3, 5], [2, 2, 1]),
        (Wire.CHAT, "chat_total_usage", [2, 3, 4], [3, 3, 2]),
    ],
)
def test_a_captured_stream_becomes_stamped_chunks(
    wire: Wire, name: str, times_s: list[float], tokens: list[int]
) -> None:
    attempt = received(wire, name, sum(tokens))
    attempt.check_end()
    record = attempt.record(9.0, None)
    assert record.chunk_times_s.tolist() == times_s
    assert record.chunk_tokens.tolist() == tokens
    assert record.output_tokens == sum(tokens)
    assert (record.index, record.scheduled_s, record.sent_s, record.ended_s) == (3, 0.5, 0.6, 9.0)
    assert attempt.is_done


def test_a_stream_without_any_usage_has_no_tokens() -> None:
    attempt = received(Wire.COMPLETIONS, "completions_without_usage", 5)
    with pytest.raises(StreamError, match="never sent a count"):
        attempt.check_end()
    assert attempt.phase is RequestPhase.STREAM
    assert attempt.record(9.0, None).first_token_s is None


def test_events_that_arrive_together_are_one_chunk() -> None:
    attempt = attempt_at(Wire.GENERATE, 4)
    attempt.receive((DATA / "generate.sse").read_bytes(), 1.5)
    record = attempt.record(2.0, None)
    assert (record.chunk_times_s.tolist(), record.chunk_tokens.tolist()) == ([1.5], [4])


@given(chunks=st.integers(1, 12), total=st.integers(1, 40))
def test_a_late_total_is_spread_over_the_chunks_and_the_first_is_never_empty(chunks: int, total: int) -> None:
    attempt = attempt_at(Wire.COMPLETIONS, total)
    for number in range(chunks):
        attempt.receive(b'data: {"choices": [{"text": "a"}]}\n\n', float(number))
    attempt.receive(f'data: {{"choices": [], "usage": {{"completion_tokens": {total}}}}}\n\n'.encode(), 99.0)
    record = attempt.record(100.0, None)
    assert record.chunk_tokens.sum() == record.output_tokens == total
    assert record.first_token_s == 0
    assert record.chunk_tokens.max() - record.chunk_tokens.min() <= 1


def test_an_answer_without_an_input_count_keeps_the_number_asked() -> None:
    attempt = attempt_at(Wire.GENERATE)
    attempt.receive(b'data: {"meta_info": {"completion_tokens": 1}}\n\n', 1.0)
    assert attempt.record(1.0, None).input_tokens == 2


def test_an_error_becomes_a_failure_of_the_present_phase() -> None:
    attempt = attempt_at(Wire.GENERATE)
    attempt.sent(1.0)
    attempt.answered()
    with pytest.raises(StreamError) as caught:
        attempt.receive(b'data: {"error": "no"}\n\n', 2.0)
    failure = attempt.failed(caught.value)
    assert (failure.kind, failure.phase, failure.message) == (
        RequestFailureKind.IN_STREAM_ERROR,
        RequestPhase.FIRST_TOKEN,
        "no",
    )


def test_events_are_counted_beside_the_reads_they_came_in() -> None:
    attempt = attempt_at(Wire.GENERATE, 4)
    events = [b'data: {"meta_info": {"completion_tokens": %d}}\n\n' % total for total in (1, 2, 3, 3)]
    attempt.receive(events[0], 1.0)
    attempt.receive(events[1] + events[2], 2.0)
    attempt.receive(events[3], 3.0)
    assert attempt.events_and_reads == (3, 2)


def test_more_events_than_tokens_share_no_read() -> None:
    attempt = attempt_at(Wire.COMPLETIONS, 2)
    for number in range(5):
        attempt.receive(b'data: {"choices": [{"text": "a"}]}\n\n', float(number))
    attempt.receive(b'data: {"choices": [], "usage": {"completion_tokens": 2}}\n\ndata: [DONE]\n\n', 6.0)
    assert attempt.events_and_reads == (6, 6)
    with pytest.raises(StreamError, match=r"follows \[DONE\]"):
        attempt.receive(b"data: [DONE]\n\n", 7.0)


READS = (
    b'data: {"meta_info": {"completion_tokens": 1}, "text": "a"}\n\n',
    b'data: {"meta_info": {"completion_tokens": 3}, "text": "a\\u00e4"}\n\n',
    b'data: {"meta_info": {"completion_tokens": 3}, "text": ""}\n\ndata: {"meta_info": {}}\n\n',
    b'data: {"meta_info": {"completion_tokens": 4',
    b"}}\n\n",
    b'data: {"meta_info": {"completion_tokens": 9}}\r\n\r\n',
    b': a comment\n\ndata: {"meta_info": {"completion_tokens": 9}}\n\n',
    b"data: 7\n\n",
    b'data: {"error": {"message": "no"}}\n\n',
    b"data: {}, {}\n\n",
    b"data: [DONE]\n\n",
)


MORE_READS = tuple(
    b'data: {"text": "a", "meta_info": {"completion_tokens": %s, "prompt_tokens": %s}%s}\n\n' % parts
    for parts in (
        (b"1", b"5", b""),
        (b"2", b"5", b""),
        (b"4", b"5", b""),
        (b"5", b"6", b""),
        (b"6", b'5, "finish_reason": 0', b""),
        (b"7", b"5", b', "error": "no"'),
    )
)
CHAT_READS = tuple(
    b'data: {"choices": [%s], "usage": %s}\n\n' % parts
    for parts in (
        (b'{"delta": {"content": "a"}}', b'{"completion_tokens": 1, "prompt_tokens": 5}'),
        (b'{"delta": {"content": "b"}}', b'{"completion_tokens": 2, "prompt_tokens": 5}'),
        (b'{"delta": {"content": "b"}}', b'{"completion_tokens": 3, "prompt_tokens": 6}'),
        (b"", b'{"completion_tokens": 4, "prompt_tokens": 6, "prompt_tokens_details": {"cached_tokens": 2}}'),
        (b'{"delta": {"content": "c"}}', b'{"completion_tokens": 5}'),
        (b'{"delta": {"content": "c"}}', b"null"),
        (b'{"delta": {}, "finish_reason": "length"}', b'{"completion_tokens": 6}'),
        (b'{"delta": {}, "finish_reason": "abort"}', b'{"completion_tokens": 6}'),
        (b"7", b'{"completion_tokens": true}'),
    )
)


@pytest.mark.parametrize(
    ("wire", "known"), [(Wire.GENERATE, (*READS, *MORE_READS)), (Wire.CHAT, CHAT_READS)], ids=str
)
@given(st.data())
def test_several_reads_at_once_are_taken_as_each_alone(
    wire: Wire, known: Sequence[bytes], data: st.DataObject
) -> None:
    numbers = st.lists(st.integers(0, len(known) - 1), max_size=8)
    reads = [known[number] for number in data.draw(numbers | numbers.map(sorted))]
    at_once, are_apart = data.draw(st.integers(1, 8)), data.draw(st.booleans())

    def outcome(size: int) -> tuple[object, ...]:
        attempt, error = attempt_at(wire), None
        try:
            for place in range(0, len(reads), size):
                part = range(place, min(place + size, len(reads)))
                times_s = [float(number if are_apart else number // 2) for number in part]
                attempt.receive_all([reads[number] for number in part], times_s)
        except StreamError as raised:
            error = (raised.kind, raised.message)
        record = attempt.record(9.0, None)
        times_s, tokens = record.chunk_times_s.tolist(), record.chunk_tokens.tolist()
        counts = record.output_tokens, record.input_tokens, record.cached_tokens
        return times_s, tokens, counts, attempt.events_and_reads, attempt.phase, error

    assert outcome(at_once) == outcome(1)
