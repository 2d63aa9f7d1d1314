"""One real SGLang to be loaded from outside, and what it says of its requests in /metrics.

In: a search space. Out: the running server's `Target`; sums and histograms of its metrics, over all labels.
Metrics only grow, so what happened between two looks is the difference of the two (`since`).
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self
from urllib.request import urlopen

from autotune.bench.target import Target, find_target
from autotune.engine.plan import plan_launch
from autotune.engine.process import ProcessLauncher
from autotune.space import Candidate, SearchSpace
from tests.support.ports import free_port

_SAMPLE = re.compile(r"^(sglang[:\w]+)(?:\{([^}]*)\})? ([\d.e+-]+)$", re.MULTILINE)
_EDGE = re.compile(r'le="([^"]+)"')


@contextmanager
def served(space: SearchSpace, folder: Path) -> Iterator[Target]:
    """Launch the space's baseline on free ports of this machine."""
    port, rendezvous_port = free_port(), free_port()
    plan = plan_launch(
        space,
        Candidate.of({}),
        study=f"real-{os.getpid()}",
        trial="0001",
        port=port,
        rendezvous_port=rendezvous_port,
    )
    with ProcessLauncher().launch(plan, folder, lambda _: None):
        yield find_target(plan.base_url)


@dataclass(frozen=True)
class Told:
    """What the server says: sums by name, and of histograms the counts up to each edge."""

    sums: Mapping[str, float]
    buckets: Mapping[str, Mapping[float, float]]

    @classmethod
    def by(cls, target: Target) -> Self:
        """Ask the server now."""
        with urlopen(f"{target.base_url}/metrics", timeout=30) as answer:  # noqa: S310 - a server of tests
            text = answer.read().decode()
        sums: dict[str, float] = {}
        buckets: dict[str, dict[float, float]] = {}
        for name, labels, value in _SAMPLE.findall(text):
            if (edge := _EDGE.search(labels)) is not None:
                counts = buckets.setdefault(name.removesuffix("_bucket"), {})
                counts[float(edge[1])] = counts.get(float(edge[1]), 0.0) + float(value)
            else:
                sums[name] = sums.get(name, 0.0) + float(value)
        return cls(sums, buckets)

    def since(self, before: "Told") -> "Told":
        """Return what happened between an earlier look and this one."""
        return Told(
            {name: value - before.sums.get(name, 0.0) for name, value in self.sums.items()},
            {name: _grown(counts, before.buckets.get(name, {})) for name, counts in self.buckets.items()},
        )

    def mean(self, name: str) -> float:
        """Return a histogram's mean."""
        return self.sums[f"{name}_sum"] / self.sums[f"{name}_count"]

    def percentile(self, name: str, percent: float) -> tuple[float, float]:
        """Return the edges of the bucket that a histogram's percentile lies in."""
        counts = sorted(self.buckets[name].items())
        rank = percent / 100 * counts[-1][1]
        edges = [0.0, *(edge for edge, _ in counts)]
        reached = next(place for place, (_, count) in enumerate(counts) if count >= rank)
        return next(pair for place, pair in enumerate(pairwise(edges)) if place == reached)


def _grown(counts: Mapping[float, float], before: Mapping[float, float]) -> dict[float, float]:
    return {edge: count - before.get(edge, 0.0) for edge, count in counts.items()}
