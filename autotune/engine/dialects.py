"""The engines that autotune can launch, by the name used in a search space."""

from autotune.engine.dialect import Dialect
from autotune.engine.sglang import SGLANG


def dialect_of(engine: str) -> Dialect:
    """Return the dialect of a search space's engine; the space's model admits no other name."""
    return {"sglang": SGLANG}[engine]
