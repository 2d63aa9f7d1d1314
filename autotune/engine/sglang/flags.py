"""SGLang's launch flags of one candidate as one view: what is set, and the sizes that follow from it.

In: a search space and the flags set on top of its fixed ones. Out: typed answers for argv, validity rules
and defaults. Pure, but for the catalogue's file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from autotune.document import read_document
from autotune.engine.catalogue import Catalogue, Knowledge, LiveKnowledge, MemoryUse, find_catalogue
from autotune.space import FlagValue, SearchSpace


@cache
def _knowledge() -> Knowledge:
    return read_document(Path(__file__).parent / "knowledge.yaml").to_model(Knowledge)


def load_catalogue(version: str) -> Catalogue:
    """Return the flags of an SGLang version, or of the nearest known one with `is_exact` False."""
    return find_catalogue("sglang", version, _knowledge())


def memory_use() -> MemoryUse:
    """Return how SGLang's flags decide what memory it takes."""
    return _knowledge().memory


def live_knowledge() -> dict[str, LiveKnowledge]:
    """Return how SGLang's flags are set while it runs."""
    return _knowledge().live


@dataclass(frozen=True)
class LaunchFlags:
    """The fixed flags and those of a candidate; the candidate wins."""

    space: SearchSpace
    flags: Mapping[str, FlagValue]

    @classmethod
    def of(cls, space: SearchSpace, flags: Mapping[str, FlagValue]) -> "LaunchFlags":
        """Return the view: fixed flags in the order of the file, then the others in theirs."""
        return cls(space, {**space.flags, **flags})

    @cached_property
    def catalogue(self) -> Catalogue:
        """The flags that the space's version has."""
        return load_catalogue(self.space.version)

    def value(self, name: str) -> FlagValue | None:
        """Return what is set, else the parser's default; None if the engine decides."""
        if name in self.flags:
            return self.flags[name]
        spec = self.catalogue.flags.get(name)
        return None if spec is None else spec.default

    def whole(self, name: str, otherwise: int) -> int:
        """Return a whole number, `otherwise` if the engine decides (or something else was written)."""
        value = self.value(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else otherwise

    def is_on(self, name: str) -> bool:
        """Whether a boolean flag is set to true."""
        return self.value(name) is True

    def is_before(self, *version: int) -> bool:
        """Whether the space's engine is older than a version."""
        numbers = tuple(int(number) for number in re.findall(r"\d+", self.space.version)[:3])
        return bool(numbers) and numbers < version

    @property
    def nodes(self) -> int:
        """How many nodes one engine spans."""
        return len(self.space.nodes)

    @property
    def tp(self) -> int:
        """Tensor-parallel ranks (SGLang's tp-size spans attention data parallelism as well)."""
        return self.whole("tp-size", 1)

    @property
    def pp(self) -> int:
        """Pipeline stages."""
        return self.whole("pp-size", 1)

    @property
    def attention_dp(self) -> int:
        """Data-parallel attention groups, in the old spelling (dp-size) as in the new."""
        old = self.whole("dp-size", 1) if self.is_on("enable-dp-attention") else 1
        return max(self.whole("attn-dp-size", 1), old)

    @property
    def replicas(self) -> int:
        """Whole copies of the model in one engine."""
        return 1 if self.is_on("enable-dp-attention") else self.whole("dp-size", 1)

    @property
    def gpu_memory_mib(self) -> int:
        """The smallest GPU decides, as in SGLang (srt/utils/common.py:802)."""
        return min(node.gpu_memory_mib for node in self.space.nodes)

    @property
    def is_mla(self) -> bool:
        """Whether the model attends through a compressed cache, guessed from its name."""
        return bool(re.search(r"deepseek-(v[2-9]|r1|coder-v2)|kimi-k2|glm-5", self.space.model.lower()))
