"""What SGLang's `Decode batch` and `Prefill batch` lines say of single decode steps.

In: the lines of one rank's log, in order. Out: `DecodeStep`s. Pure; reads no further than it is asked to.
Invariant: an interval between two decode lines counts only if nothing but decode steps of the same requests
ran in it: no prefill line lies between them, as many requests run, and the tokens held grew by a whole number
for each. A pass in between, an idle gap, a retraction or a request that ended breaks at least one of these.

Left out: lines of attention DP and pipeline ranks, which wait for one another; speculation, whose steps give
more than a token each; and logs in which prompts share prefixes, whose pool holds fewer tokens than are read.
Pools of pages that hold more than one token seldom grow by whole numbers and then say nothing.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from autotune.engine.dialect import DecodeStep

# The prefix names the axes in use: DP0 TP0, PP1.
_OTHER_AXES = re.compile(r"^\[[^\]]*\b(?:DP|PP)\d")
# srt/managers/scheduler_components/metrics_reporter.py:753 and :963; 0.4 has a full stop after "batch".
_PREFILL = re.compile(r"Prefill batch.*?#new-token: (\d+), #cached-token: (\d+)")
_DECODE = re.compile(
    r"Decode batch.*?#running-req: (\d+), #token: (\d+), (?!.*accept len)"
    r"(?:.*graph: (True|False))?.*gen throughput \(token/s\): (\d+(?:\.\d+)?),"
)
_SHARED = 0.01
"""The share of prompts found in the cache above which the pool no longer tells what is read."""


@dataclass(frozen=True)
class _Line:
    """A decode line: what runs at its end, and the rate since the line before."""

    running: int
    tokens: int
    has_graph: bool
    tokens_per_s: float

    @classmethod
    def read(cls, line: str) -> "_Line | None":
        found = _DECODE.search(line)
        if found is None:
            return None
        running, tokens, graph, rate = found.groups()
        return cls(int(running), int(tokens), graph != "False", float(rate))

    def since(self, before: "_Line") -> DecodeStep | None:
        """Return the mean step between the lines, None if something else happened between them."""
        grown = self.tokens - before.tokens
        is_same = self.running == before.running and self.has_graph == before.has_graph
        if not is_same or self.running < 1 or grown < 1 or grown % self.running or not self.tokens_per_s:
            return None
        return DecodeStep(
            running=self.running,
            tokens=(before.tokens + self.tokens) / 2,
            seconds=self.running / self.tokens_per_s,
            has_graph=self.has_graph,
        )


def decode_steps(lines: Iterable[str]) -> Iterator[DecodeStep]:
    """Yield the mean decode step of each interval in which only decode steps ran."""
    before: _Line | None = None
    new = cached = 0
    for line in lines:
        if " batch" not in line:
            continue
        if _OTHER_AXES.search(line):
            return
        if "Prefill batch" in line:
            before = None
            if found := _PREFILL.search(line):
                new, cached = new + int(found[1]), cached + int(found[2])
        elif "Decode batch" in line:
            now = _Line.read(line)
            step = None if now is None or before is None else now.since(before)
            if step is not None and cached <= _SHARED * (new + cached):
                yield step
            before = now
