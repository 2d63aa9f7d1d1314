"""Seeded loads take the very turns they always took: making the scheduler faster changes none of them.

The digests are of whole numbers (which passes, which tokens, who ended when in the order of turns), so that
they do not depend on the last digit of a time. Whoever changes what the scheduler does renews them.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from autotune.request import OfferedLoad, Request
from autotune.simulator.arguments import to_argv
from autotune.simulator.assembly import open_scheduler
from autotune.simulator.profile import read_profile
from autotune.simulator.rehearsal import without_noise
from autotune.simulator.startup import Ready, plan_start
from autotune.simulator.turn import Turn
from autotune.simulator.virtual import VirtualEndpoint

PROFILE = without_noise(read_profile("llama-8b-1xh100"))
FLAGS: dict[str, dict[str, Any]] = {
    "small chunks": {"chunked-prefill-size": 256, "max-running-requests": 16},
    "mixed chunks": {"chunked-prefill-size": 512, "enable-mixed-chunk": True},
    "retractions": {"max-total-tokens": 6000, "schedule-conservativeness": 0.1},
    "shared prefixes": {"schedule-policy": "lpm", "max-total-tokens": 12000},
    "no cache, no chunks": {"disable-radix-cache": True, "chunked-prefill-size": -1},
    "pages": {"page-size": 16, "chunked-prefill-size": 512, "max-total-tokens": 12000},
    "decodes owed": {"prefill-decode-interval": 3, "prefill-max-requests": 2},
    "longest output first": {"schedule-policy": "lof", "max-running-requests": 4},
}
DIGESTS = {
    "small chunks": "77eaa992de842963",
    "mixed chunks": "589d2ae47aa97435",
    "retractions": "8681e783a8da6b2c",
    "shared prefixes": "f465946d39a29ddc",
    "no cache, no chunks": "b97d887605f264d1",
    "pages": "86b86a12f486b8c3",
    "decodes owed": "5307c692db215195",
    "longest output first": "09b82cf4904a15cb",
}


def requests() -> Iterator[Request]:
    generator = np.random.default_rng(5)
    for index in range(80):
        prompt, output = (int(each) for each in generator.integers((200, 1), (1500, 400)))
        yield Request(index, prompt, output, prefix_group=index % 7, prefix_tokens=150)


def told(turn: Turn) -> str:
    pieces = [(each.sequence.request.index, each.before, each.new, each.completes) for each in turn.pieces]
    ended = [each.request.index for each in (*turn.first, *turn.finished, *turn.aborted)]
    retracted = [each.request.index for each in turn.retraction.sequences] if turn.retraction else []
    return f"{turn.kind} {len(turn.token_times_s)} {turn.decoded} {pieces} {ended} {retracted}"


@pytest.mark.parametrize("name", FLAGS)
def test_a_load_takes_the_very_turns_it_always_took(name: str) -> None:
    ready = plan_start(PROFILE, to_argv({"model-path": "m", **FLAGS[name]}), seed=0).outcome
    assert isinstance(ready, Ready)
    lines: list[str] = []
    endpoint = VirtualEndpoint(
        open_scheduler(PROFILE, ready, seed=0),
        request_s=PROFILE.step.request_s,
        on_turn=lambda turn: lines.append(told(turn)),
    )
    endpoint.run(OfferedLoad(tuple(requests()), concurrency=40))
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == DIGESTS[name]
