import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from autotune.document import to_yaml
from autotune.errors import ConfigError
from autotune.load.arrivals import LoadPoint
from autotune.load.workload import Workload, offer, prompter, read_dataset, warm_up, with_prompts
from autotune.request import OfferedLoad, Request

FIVE = LoadPoint(concurrency=2, requests=5)

lengths = st.one_of(
    st.integers(1, 60),
    st.tuples(st.integers(1, 30), st.integers(0, 30)).map(lambda ends: {"uniform": [ends[0], sum(ends)]}),
    st.builds(
        lambda minimum, more, most, sigma: {
            "lognormal": minimum + more,
            "sigma": sigma,
            "minimum": minimum,
            "maximum": minimum + more + most,
        },
        st.integers(1, 20),
        st.integers(0, 20),
        st.integers(0, 20),
        st.floats(0.1, 3),
    ),
)
workloads = st.builds(
    lambda inputs, outputs, seed: Workload.model_validate(
        {"input_tokens": inputs, "output_tokens": outputs, "seed": seed}
    ),
    lengths,
    lengths,
    st.integers(0, 2**32 - 1),
)
points = st.one_of(
    st.builds(LoadPoint, concurrency=st.integers(1, 8), requests=st.integers(1, 12)),
    st.builds(LoadPoint, rate=st.floats(0.5, 50), requests=st.integers(1, 12)),
)
salts = st.integers(0, 10_000)


def workload(**data: Any) -> Workload:
    return Workload.model_validate({"input_tokens": 20, "output_tokens": 4} | data)


def ids(offered: OfferedLoad) -> list[tuple[int, ...]]:
    return [request.token_ids or () for request in offered.requests]


def write_dataset(folder: Path, *lines: Mapping[str, object]) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n", encoding="utf-8")
    return path


@given(workloads, points, salts)
def test_the_same_workload_point_and_salt_give_the_same_load(
    asked: Workload, point: LoadPoint, salt: int
) -> None:
    first = offer(asked, point, salt=salt)
    assert first == offer(asked, point, salt=salt)
    prompted = [with_prompts(first, asked, vocabulary_size=1000) for _ in range(2)]
    assert tuple(prompted[0].requests) == tuple(prompted[1].requests)


@given(workloads, points, salts, salts)
def test_lengths_do_not_depend_on_the_salt_or_the_load_point(
    asked: Workload, point: LoadPoint, salt: int, other: int
) -> None:
    one = offer(asked, point, salt=salt).requests
    two = offer(asked, LoadPoint(concurrency=3, requests=20), salt=other).requests
    for left, right in zip(one, two, strict=False):
        assert (left.input_tokens, left.output_tokens) == (right.input_tokens, right.output_tokens)


@given(lengths, st.integers(0, 2**32 - 1))
def test_lengths_stay_within_what_was_asked(length: Any, seed: int) -> None:
    drawn = [
        request.input_tokens
        for request in offer(
            workload(input_tokens=length, seed=seed), LoadPoint(concurrency=1, requests=30), salt=0
        ).requests
    ]
    low, high = (length, length) if isinstance(length, int) else _ends(length)
    assert all(low <= tokens <= high for tokens in drawn)


def _ends(length: dict[str, Any]) -> tuple[int, int]:
    ends = length.get("uniform") or (length["minimum"], length["maximum"])
    return ends[0], ends[1]


@given(st.integers(1, 300_000), salts, st.integers(1, 40))
def test_prompts_have_the_exact_length_and_ids_inside_the_vocabulary(
    vocabulary_size: int, salt: int, tokens: int
) -> None:
    asked = workload(input_tokens=tokens)
    for prompt in ids(with_prompts(offer(asked, FIVE, salt=salt), asked, vocabulary_size=vocabulary_size)):
        assert len(prompt) == tokens
        assert all(0 <= token < vocabulary_size for token in prompt)


def test_prompts_avoid_both_ends_of_a_large_vocabulary() -> None:
    asked = workload(input_tokens=5000)
    prompts = ids(with_prompts(offer(asked, FIVE, salt=0), asked, vocabulary_size=32_000))
    drawn = {token for prompt in prompts for token in prompt}
    assert min(drawn) >= 512
    assert max(drawn) < 32_000 - 2048


@given(salts, salts)
def test_loads_of_different_salts_and_warm_ups_share_no_prompt_start(salt: int, other: int) -> None:
    asked = workload(shared_prefix={"groups": 2, "tokens": 8})
    loads = [offer(asked, FIVE, salt=salt), warm_up(asked, FIVE, salt=salt)]
    if other != salt:
        loads += [offer(asked, FIVE, salt=other), warm_up(asked, FIVE, salt=other)]
    starts = [
        {prompt[:8] for prompt in ids(with_prompts(load, asked, vocabulary_size=100_000))} for load in loads
    ]
    assert sum(map(len, starts)) == len(set().union(*starts))


def test_requests_of_a_group_share_their_prefix_and_nothing_else() -> None:
    asked = workload(shared_prefix={"groups": 2, "tokens": 8})
    load = with_prompts(offer(asked, FIVE, salt=3), asked, vocabulary_size=100_000)
    assert [request.prefix_group for request in load.requests] == [0, 1, 0, 1, 0]
    prompts = ids(load)
    assert prompts[0][:8] == prompts[2][:8] == prompts[4][:8] != prompts[1][:8] == prompts[3][:8]
    assert len({prompt[8] for prompt in prompts}) == 5
    assert {len(prompt) for prompt in prompts} == {20}


def test_a_prompt_that_is_there_already_is_kept() -> None:
    load = OfferedLoad((Request(0, 2, 1, token_ids=(7, 8)), Request(1, 2, 1, text="hi")), 1)
    assert tuple(with_prompts(load, workload(), vocabulary_size=100).requests) == load.requests


def test_a_vocabulary_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        prompter(OfferedLoad((), 1), workload(), vocabulary_size=0)


def test_a_closed_loop_of_a_duration_is_lazy_and_lasts() -> None:
    load = offer(workload(), LoadPoint(concurrency=50, duration_s=60), salt=1)
    assert (load.concurrency, load.stop_after_s) == (50, 60)
    assert len(load.requests) == 50 * 60 * 200
    assert load.requests[599_999].index == 599_999
    assert load.requests[-1] == load.requests[599_999]
    assert [request.index for request in load.requests[3:5]] == [3, 4]
    with pytest.raises(IndexError):
        load.requests[600_000]


@example(rate=50.0, duration_s=1.1, salt=0)
@given(st.floats(0.5, 50), st.floats(0.1, 10), salts)
def test_an_open_loop_of_a_duration_keeps_its_due_times_within_it(
    rate: float, duration_s: float, salt: int
) -> None:
    load = offer(workload(), LoadPoint(rate=rate, duration_s=duration_s), salt=salt)
    due_s = [request.due_s for request in load.requests if request.due_s is not None]
    assert load.concurrency is None
    assert len(due_s) == len(load.requests) >= 1
    assert all(left <= right for left, right in pairwise(due_s))
    assert due_s[-1] < duration_s
    assert len(due_s) + 1 > duration_s * rate


def test_arrivals_are_drawn_anew_for_every_salt() -> None:
    point = LoadPoint(rate=4, requests=6)
    drawn = [
        tuple(request.due_s for request in offer(workload(), point, salt=salt).requests) for salt in range(3)
    ]
    assert len(set(drawn)) == 3


@pytest.mark.parametrize(
    ("point", "count", "concurrency"),
    [
        (LoadPoint(concurrency=50, requests=300), 16, 50),
        (LoadPoint(concurrency=2, requests=300, warm_up=7), 7, 2),
        (LoadPoint(rate=3, requests=300), 4, 4),
        (LoadPoint(rate=3, requests=300, warm_up=0), 0, 1),
    ],
)
def test_a_warm_up_is_a_closed_loop(point: LoadPoint, count: int, concurrency: int) -> None:
    load = warm_up(workload(), point, salt=0)
    assert (len(load.requests), load.concurrency, load.stop_after_s) == (count, concurrency, None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"input_tokens": None}, "either input_tokens"),
        ({"dataset": "a.jsonl"}, "either input_tokens"),
        ({"endpoint": "chat"}, "give a dataset"),
        ({"shared_prefix": {"groups": 1, "tokens": 20}}, "leaves nothing"),
        (
            {"shared_prefix": {"groups": 1, "tokens": 5}, "input_tokens": {"uniform": [5, 50]}},
            "shortest input, 5 tokens",
        ),
        (
            {
                "shared_prefix": {"groups": 1, "tokens": 5},
                "input_tokens": {"lognormal": 50, "sigma": 1, "maximum": 90},
            },
            "lognormal length takes a minimum",
        ),
        (
            {"input_tokens": None, "dataset": "a.jsonl", "shared_prefix": {"groups": 1, "tokens": 5}},
            "brings its own prefixes",
        ),
        ({"input_tokens": 0}, "greater than or equal to 1"),
        ({"input_tokens": True}, "valid integer"),
        ({"input_tokens": "many"}, "a length is a number of tokens"),
        ({"input_tokens": {"uniform": [9, 3]}}, "the low end comes first"),
        (
            {"input_tokens": {"lognormal": 9, "sigma": 1, "maximum": 3}},
            "between minimum and maximum",
        ),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"tempreture": 1}, "Extra inputs"),
    ],
)
def test_a_workload_that_cannot_be_made_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        workload(**data)


@pytest.mark.parametrize(
    "length", [{"uniform": [9, 30]}, {"lognormal": 20, "sigma": 0.5, "minimum": 9, "maximum": 80}]
)
def test_a_prefix_below_the_shortest_length_is_taken(length: dict[str, object]) -> None:
    asked = workload(input_tokens=length, shared_prefix={"groups": 1, "tokens": 8})
    assert all(request.prefix_tokens == 8 for request in offer(asked, FIVE, salt=0).requests)


@given(workloads)
def test_a_workload_survives_being_written_out(asked: Workload) -> None:
    data = asked.model_dump(mode="json", by_alias=True)
    assert Workload.model_validate(data) == asked
    assert Workload.model_validate(asked.model_dump()) == asked
    assert "output_tokens" in to_yaml(asked)


def test_a_dataset_is_served_in_seeded_order_and_repeats_after_a_full_pass(tmp_path: Path) -> None:
    texts = [f"prompt number {number}" for number in range(6)]
    path = write_dataset(tmp_path, *({"prompt": text} for text in texts))
    asked = workload(input_tokens=None, dataset=path)
    point = LoadPoint(concurrency=2, requests=15)
    served = [request.text for request in offer(asked, point, salt=1).requests]
    assert sorted(map(str, served[:6])) == texts != served[:6]
    assert served == (served[:6] * 3)[:15]
    assert served == [request.text for request in offer(asked, point, salt=2).requests]
    other = workload(input_tokens=None, dataset=path, seed=5)
    assert served != [request.text for request in offer(other, point, salt=1).requests]


def test_a_dataset_gives_output_lengths_and_an_estimate_of_the_input(tmp_path: Path) -> None:
    path = write_dataset(
        tmp_path, {"prompt": "abcdefghi", "output_tokens": 77}, {"prompt": "z", "output_tokens": None}
    )
    load = offer(workload(input_tokens=None, dataset=path), LoadPoint(concurrency=1, requests=2), salt=0)
    by_text = {request.text: (request.input_tokens, request.output_tokens) for request in load.requests}
    assert by_text == {"abcdefghi": (3, 77), "z": (1, 4)}


def test_a_warm_up_takes_the_texts_that_come_last(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, *({"prompt": f"prompt number {number}"} for number in range(6)))
    asked = workload(input_tokens=None, dataset=path)
    measured = [request.text for request in offer(asked, FIVE, salt=0).requests]
    warming = [
        request.text
        for request in warm_up(asked, LoadPoint(concurrency=1, requests=1, warm_up=2), salt=0).requests
    ]
    assert warming[0] not in measured
    assert warming[1] == measured[-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "dataset is empty"),
        ("\n \n", "dataset is empty"),
        ('{"prompt": "a"}\nnot json\n', "prompts.jsonl:2: is not JSON"),
        ('{"text": "a", "prompt": "b"}', "prompts.jsonl:1: text: unknown key"),
        ('{"output_tokens": 3}', "prompts.jsonl:1: prompt: is missing"),
        ('{"prompt": ""}', "prompts.jsonl:1: prompt: String should have at least 1 character"),
        ('{"prompt": "a", "output_tokens": 0}', "prompts.jsonl:1: output_tokens: Input should be greater"),
        ('["a"]', "prompts.jsonl:1: "),
    ],
)
def test_a_dataset_names_its_bad_lines_and_their_form(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_dataset(path)
    assert message in str(caught.value)
    assert caught.value.problems[0].remedy is not None
    assert '{"prompt"' in caught.value.problems[0].remedy


def test_a_dataset_names_every_bad_line_up_to_twenty(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("x\n" * 50, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_dataset(path)
    assert [problem.line for problem in caught.value.problems] == list(range(1, 21))


def test_a_dataset_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such dataset"):
        read_dataset(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_dataset(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(ConfigError, match="cannot be read"):
        read_dataset(tmp_path / "latin.jsonl")


def test_a_line_separator_inside_a_prompt_does_not_split_the_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "a\u2028b"}, ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert [talk.turns[0].prompt for talk in read_dataset(path)] == ["a\u2028b"]


def test_a_share_of_the_requests_has_a_shared_prefix() -> None:
    asked = workload(shared_prefix={"groups": 3, "tokens": 8, "ratio": 0.4})
    load = offer(asked, LoadPoint(concurrency=1, requests=600), salt=0)
    with_prefix = [request for request in load.requests if request.prefix_group is not None]
    assert len(with_prefix) == pytest.approx(240, abs=40)
    assert {request.prefix_tokens for request in load.requests} == {0, 8}
    starts = {prompt[:8] for prompt in ids(with_prompts(load, asked, vocabulary_size=100_000))}
    assert len(starts) == 600 - len(with_prefix) + 3


conversations = st.builds(
    lambda inputs, outputs, turns, seed: workload(
        input_tokens=inputs, output_tokens=outputs, conversation={"turns": turns, "pause_s": 0.5}, seed=seed
    ),
    lengths,
    lengths,
    st.integers(2, 5),
    st.integers(0, 2**32 - 1),
)


@given(conversations, salts)
def test_a_turn_begins_with_the_turn_before_and_waits_for_it(asked: Workload, salt: int) -> None:
    assert asked.conversation is not None
    load = offer(asked, LoadPoint(concurrency=2, requests=11), salt=salt)
    prompted = with_prompts(load, asked, vocabulary_size=50_000).requests
    assert tuple(prompted) == tuple(with_prompts(load, asked, vocabulary_size=50_000).requests)
    for before, request in pairwise(prompted):
        is_first = request.index % asked.conversation.turns == 0
        assert request.after == (None if is_first else before.index)
        assert request.pause_s == (0 if is_first else 0.5)
        assert len(request.token_ids or ()) == request.input_tokens
        if not is_first:
            assert before.token_ids is not None
            assert (request.token_ids or ())[: before.input_tokens] == before.token_ids
            assert request.input_tokens > before.input_tokens + before.output_tokens


@given(st.floats(0.5, 20), st.integers(2, 4), st.integers(8, 40))
def test_conversations_of_an_open_loop_bring_its_rate_together(rate: float, turns: int, count: int) -> None:
    asked = workload(conversation={"turns": turns})
    load = offer(asked, LoadPoint(rate=rate, arrivals="constant", requests=count), salt=0)
    due_s = [request.due_s for request in load.requests if request.after is None]
    assert [request.due_s for request in load.requests if request.after is not None] == [None] * (
        count - len(due_s)
    )
    assert due_s == pytest.approx([turns * head / rate for head in range(len(due_s))])


def test_a_mix_of_lengths_has_its_shares() -> None:
    asked = workload(input_tokens={"mix": {16: 0.9, 4096: 0.1}})
    drawn = [
        request.input_tokens
        for request in offer(asked, LoadPoint(concurrency=1, requests=1000), salt=0).requests
    ]
    assert set(drawn) == {16, 4096}
    assert drawn.count(4096) == pytest.approx(100, abs=30)
    assert Workload.model_validate(asked.model_dump(mode="json", by_alias=True)) == asked
    prefixed = workload(input_tokens={"mix": {16: 0.9, 4096: 0.1}}, shared_prefix={"groups": 1, "tokens": 15})
    assert prefixed.shared_prefix is not None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"input_tokens": {"mix": {16: 0.9}}}, "add up to 1"),
        ({"conversation": {"turns": 1}}, "greater than or equal to 2"),
        (
            {"input_tokens": {"mix": {4: 0.5, 9: 0.5}}, "shared_prefix": {"groups": 1, "tokens": 4}},
            "leaves nothing",
        ),
    ],
)
def test_a_workload_that_contradicts_itself_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        workload(**data)


def test_a_trace_gives_times_and_lengths(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(
        '{"timestamp_s": 0, "input_tokens": 5, "output_tokens": 2}\n{"timestamp_s": 4}\n'
        '{"timestamp_s": 8, "input_tokens": 90}\n'
    )
    point = LoadPoint(rate=0.5, trace=path, requests=3)
    load = offer(workload(shared_prefix={"groups": 1, "tokens": 8}), point, salt=0)
    assert [request.due_s for request in load.requests] == pytest.approx([0, 2, 4])
    assert [(request.input_tokens, request.output_tokens) for request in load.requests] == [
        (9, 2),
        (20, 4),
        (90, 4),
    ]


def test_a_spread_ramp_is_offered() -> None:
    for end in ({"requests": 6}, {"duration_s": 2.0}):
        point = LoadPoint.model_validate({"concurrency": 3, "ramp_s": 1.5, **end})
        assert offer(workload(), point, salt=0).ramp_s == 1.5


def test_sharegpt_gives_the_first_question_and_the_length_of_its_answer(tmp_path: Path) -> None:
    path = write_dataset(
        tmp_path,
        {"id": 1, "conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "abcdefgh"},
                                    {"from": "gpt", "value": "x" * 40}, {"from": "human", "value": "more"}]},
        {"conversations": [{"from": "gpt", "value": "nobody asked"}]},
        {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world wide"}]},
    )  # fmt: skip
    load = offer(workload(input_tokens=None, dataset=path), LoadPoint(concurrency=1, requests=2), salt=0)
    by_text = {request.text: (request.input_tokens, request.output_tokens) for request in load.requests}
    assert by_text == {"abcdefgh": (2, 10), "hello": (2, 3)}


def test_a_conversation_that_is_not_one_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text('{"conversations": "hello"}\n{"messages": [3]}\n')
    with pytest.raises(ConfigError) as caught:
        read_dataset(path)
    assert [problem.line for problem in caught.value.problems] == [1, 2]
