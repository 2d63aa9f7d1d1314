from hypothesis import given
from hypothesis import strategies as st

from autotune.load.arrivals import LoadPoint
from autotune.load.client import HttpEndpoint
from autotune.load.shares import processes_for
from autotune.load.workload import Workload, offer
from autotune.request import Request, conversations
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
