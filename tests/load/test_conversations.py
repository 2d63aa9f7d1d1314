import json
import pickle
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.load.arrivals import LoadPoint
from autotune.load.client import HttpEndpoint
from autotune.load.dataset import read_dataset
from autotune.load.shares import processes_for, share_of
from autotune.load.workload import Workload, offer, warm_up, with_prompts
from autotune.request import OfferedLoad, Request, conversations
from tests.support.gateway import Gateway, running


@given(st.lists(st.integers(1, 4), max_size=6))
def test_conversations_are_told_apart_in_order(lengths: list[int]) -> None:
    requests: list[Request] = []
    for length in lengths:
        for turn in range(length):
            index = len(requests)
            requests.append(Request(index, 1, 1, after=index - 1 if turn else None))
    found = list(conversations(iter(requests)))
    assert [len(turns) for turns in found] == lengths
    assert [request for turns in found for request in turns] == requests


def test_a_conversation_stays_in_one_process() -> None:
    point = LoadPoint(concurrency=4000, requests=8000)
    plain = Workload(input_tokens=8, output_tokens=4)
    talking = Workload.model_validate({"input_tokens": 8, "output_tokens": 4, "conversation": {"turns": 2}})
    assert processes_for(offer(plain, point, salt=0), cpus=64) > 1
    assert processes_for(offer(talking, point, salt=0), cpus=64) == 1


def test_turns_go_over_http_one_after_another_each_with_the_one_before() -> None:
    asked = Workload.model_validate(
        {"input_tokens": 8, "output_tokens": 3, "endpoint": "completions", "conversation": {"turns": 3}}
    )
    load = offer(asked, LoadPoint(concurrency=2, requests=6), salt=0)
    with running(Gateway(key=None)) as gateway:
        records = HttpEndpoint(gateway.url, asked, model="m", vocabulary_size=5000).run(load).records
    assert [record.failure for record in records] == [None] * 6
    assert [record.input_tokens for record in records] == [8, 19, 30] * 2
    for first in (0, 3):
        for before, record in zip(records[first : first + 2], records[first + 1 : first + 3], strict=True):
            assert record.sent_s is not None
            assert record.sent_s >= before.ended_s
    prompts = sorted((body["prompt"] for body in gateway.bodies), key=len)
    assert sum(longer[:8] == shorter for shorter in prompts[:2] for longer in prompts[2:]) == 4


# Three talks of 3, 1 and 2 turns; in the first somebody speaks twice, and a system speaks.
TALKS = (
    [("system", "be kind"), ("human", "a0"), ("gpt", "b0"), ("gpt", "b1"), ("human", "a1"), ("human", "a2"),
     ("gpt", "b2" * 10), ("human", "a3"), ("gpt", "b3")],
    [("human", "c0"), ("gpt", "d0"), ("human", "nobody answers")],
    [("user", "e0"), ("assistant", "f0"), ("user", "e1"), ("assistant", "f1")],
)  # fmt: skip


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    path = tmp_path / "talks.jsonl"
    lines = [{"conversations": [{"from": who, "value": text} for who, text in talk]} for talk in TALKS]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def talking(talks: Path, turns: int = 9, **more: object) -> Workload:
    return Workload.model_validate(
        {"dataset": talks, "output_tokens": 4, "conversation": {"turns": turns, "pause_s": 0.01}, **more}
    )


def said(offered: OfferedLoad) -> dict[str, list[str | None]]:
    """The texts of each conversation, by the first."""
    return {
        turns[0].text or "": [request.text for request in turns] for turns in conversations(offered.requests)
    }


def test_every_question_with_its_answer_is_a_turn(talks: Path) -> None:
    found = [[(turn.prompt, turn.answer) for turn in talk.turns] for talk in read_dataset(talks)]
    assert found == [
        [("a0", "b0"), ("a2", "b2" * 10), ("a3", "b3")],
        [("c0", "d0")],
        [("e0", "f0"), ("e1", "f1")],
    ]


def test_a_datasets_conversations_are_sent_whole_with_their_own_answers(talks: Path) -> None:
    load = offer(talking(talks), LoadPoint(concurrency=1, requests=6), salt=0)
    long = "b2" * 10
    assert said(load) == {
        "a0": ["a0", "a0\n\nb0\n\na2", f"a0\n\nb0\n\na2\n\n{long}\n\na3"],
        "c0": ["c0"],
        "e0": ["e0", "e0\n\nf0\n\ne1"],
    }
    for before, request in pairwise(load.requests):
        assert request.pause_s == (0 if request.after is None else 0.01)
        if request.after is not None:
            assert request.after == before.index
            assert request.prefix_group == before.prefix_group
            assert request.input_tokens > before.input_tokens
    assert sorted(request.output_tokens for request in load.requests) == [1, 1, 1, 1, 1, 5]


def test_conversations_are_cut_after_the_turns_asked_for_and_repeat_after_a_pass(talks: Path) -> None:
    load = offer(talking(talks, turns=2), LoadPoint(concurrency=1, requests=12), salt=3)
    assert [len(turns) for turns in said(load).values()].count(2) == 2
    again = [request.text for request in load.requests]
    assert again[:5] == again[5:10]
    assert [request.index for request in load.requests] == list(range(12))


def test_the_seed_orders_conversations_and_a_warm_up_takes_the_last(talks: Path) -> None:
    point = LoadPoint(concurrency=1, requests=6, warm_up=1)
    orders = {tuple(said(offer(talking(talks, seed=seed), point, salt=0))) for seed in range(20)}
    assert len(orders) > 2
    last = list(said(offer(talking(talks), point, salt=0)))[-1]
    assert list(said(warm_up(talking(talks), point, salt=0))) == [last]


def test_a_datasets_conversations_of_an_open_loop_bring_its_rate_together(talks: Path) -> None:
    load = offer(talking(talks), LoadPoint(rate=4, arrivals="constant", requests=60), salt=0)
    due_s = [request.due_s for request in load.requests if request.due_s is not None]
    assert len(due_s) == 30
    assert due_s[1] == pytest.approx(2 / 4)


def test_a_chat_is_sent_as_messages(talks: Path) -> None:
    asked = talking(talks, endpoint="chat")
    load = offer(asked, LoadPoint(concurrency=1, requests=6), salt=0)
    with running(Gateway(key=None)) as gateway:
        records = HttpEndpoint(gateway.url, asked, model="m", vocabulary_size=5000).run(load).records
    assert [record.failure for record in records] == [None] * 6
    longest = max((body["messages"] for body in gateway.bodies), key=len)
    assert [(each["role"], each["content"]) for each in longest] == [
        ("user", "a0"), ("assistant", "b0"), ("user", "a2"), ("assistant", "b2" * 10), ("user", "a3")
    ]  # fmt: skip


@given(
    turns=st.integers(2, 4),
    groups=st.integers(1, 3),
    tokens=st.integers(1, 30),
    ratio=st.floats(0.05, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_conversations_begin_with_the_shared_prefix_of_their_group(
    turns: int, groups: int, tokens: int, ratio: float, seed: int
) -> None:
    prefix = {"groups": groups, "tokens": tokens, "ratio": ratio}
    said = {"turns": turns}
    asked = Workload.model_validate(
        {"input_tokens": 9, "output_tokens": 3, "shared_prefix": prefix, "conversation": said, "seed": seed}
    )
    load = with_prompts(
        offer(asked, LoadPoint(concurrency=1, requests=40 * turns), salt=seed % 7),
        asked,
        vocabulary_size=50_000,
    )
    talks = list(conversations(load.requests))
    with_prefix = [talk for talk in talks if talk[0].input_tokens > 9]
    starts: dict[int, set[tuple[int, ...]]] = {}
    for talk in with_prefix:
        assert talk[0].prefix_group is not None
        starts.setdefault(talk[0].prefix_group % groups, set()).add((talk[0].token_ids or ())[:tokens])
    assert all(len(prefixes) == 1 for prefixes in starts.values())
    assert abs(len(with_prefix) / len(talks) - ratio) < 0.4
    for talk in talks:
        opening = tokens if talk in with_prefix else 0
        assert [request.input_tokens for request in talk] == [
            opening + 9 + 12 * turn for turn in range(turns)
        ]
        for before, request in pairwise(talk):
            assert (request.token_ids or ())[: before.input_tokens] == before.token_ids


def test_prompts_are_made_by_the_process_that_sends_them(talks: Path) -> None:
    point = LoadPoint(concurrency=4, requests=40)
    for asked in (talking(talks), Workload(input_tokens=5000, output_tokens=3)):
        load = with_prompts(offer(asked, point, salt=1), asked, vocabulary_size=50_000)
        sent = pickle.dumps(load)
        assert len(sent) < 10_000
        assert list(pickle.loads(sent).requests) == list(load.requests)  # noqa: S301 - our own bytes


def test_a_share_holds_its_own_requests_only(talks: Path) -> None:
    asked = Workload.model_validate({"dataset": talks, "output_tokens": 4})
    load = offer(asked, LoadPoint(concurrency=4, requests=400), salt=1)
    shares = [pickle.dumps(share_of(load, position, 4)) for position in range(4)]
    assert all(len(share) < 0.4 * len(pickle.dumps(load)) for share in shares)
