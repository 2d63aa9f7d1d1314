"""The client against mutilated answers: python -m tests.benchmarks.load_fuzz [--streams 100000] [--seed 1]

Every stream is a valid answer that was cut, repeated, shuffled or overwritten at random, split at random and
ended at random. Whatever comes, the client returns a record: good, or with a typed failure; it neither raises
nor hangs (a stream that is not over 30 s after its own time-out of 20 ms does), and its memory does not grow.
"""

import argparse
import asyncio
import random
import resource
import time
from collections import Counter
from itertools import pairwise

from tests.support.played import HEAD, Ending, chunked, events, play

_TIMEOUT_S = 0.02
_HANGS_S = 30.0
_VALID = (
    chunked(events(5)),
    HEAD + b"\r\n" + b"".join(events(5)),
    HEAD + b"content-length: %d\r\n\r\n" % len(b"".join(events(5))) + b"".join(events(5)),
    b"HTTP/1.1 503 Busy\r\nretry-after: 1\r\ncontent-length: 4\r\n\r\nbusy",
)
_SPICES = (
    b"\r\n", b"\n\n", b"\r\n\r\n", b"0\r\n\r\n", b"data: ", b"data: [DONE]\n\n", b"\xff\xfe", b"\x00",
    b'data: {"error": "x"}\n\n', b"HTTP/1.1 200 OK\r\n\r\n", b": ", b"{", b'"', b"-1", b"ffffffff\r\n",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began_s = time.monotonic()
    outcomes = asyncio.run(fuzz(options.streams, random.Random(options.seed)))  # noqa: S311 - not a secret
    for outcome, count in outcomes.most_common():
        print(f"{count:8} {outcome}")
    print(f"{options.streams} streams in {time.monotonic() - began_s:.0f} s, {_rss_mb():.0f} MB at most")


async def fuzz(streams: int, chance: random.Random) -> Counter[str]:
    """Play this many streams; count the outcomes."""
    outcomes: Counter[str] = Counter()
    for _ in range(streams):
        pieces, ending = mutilated(chance), chance.choice(list(Ending))
        async with asyncio.timeout(_HANGS_S):
            record = await play(pieces, ending, timeout_s=_TIMEOUT_S)
        failure = record.failure
        assert record.chunk_tokens.sum() == record.output_tokens
        assert failure is not None or record.output_tokens >= 5
        outcomes["good" if failure is None else f"{failure.kind} in {failure.phase}"] += 1
    return outcomes


def mutilated(chance: random.Random) -> list[bytes]:
    """Return an answer with up to three faults, in up to six pieces."""
    data = bytearray(chance.choice(_VALID))
    for _ in range(chance.randrange(4)):
        left, right = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        match chance.randrange(5):
            case 0:
                del data[left : min(right, left + 40)]
            case 1:
                data[left:left] = data[left : min(right, left + 400)]
            case 2:
                data[left:left] = chance.choice(_SPICES)
            case 3 if data:
                data[min(left, len(data) - 1)] = chance.randrange(256)
            case _:
                data[left:right] = data[left:right][::-1] if right - left < 20 else data[left:right]
    cuts = sorted({0, len(data), *(chance.randrange(len(data) + 1) for _ in range(chance.randrange(6)))})
    return [bytes(data[left:right]) for left, right in pairwise(cuts)]


def _rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
