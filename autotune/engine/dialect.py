"""What differs between engines, as one value: flags, argv, HTTP paths, log lines, defaults.

Trial, load, search, report and the launchers know only `Dialect`; a second engine is one more package with
such a value and one more entry in `dialects.py`. Pure.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from autotune.engine.catalogue import Catalogue, LiveKnowledge, MemoryUse
from autotune.failure import FailureKind, LiveRefusedError, StartPhase
from autotune.space import Candidate, FlagValue, SearchSpace


class EffectiveFlags(BaseModel):
    """What the engine really runs with, read back from it.

    `flags`: flag name (dashes) to the engine's resolved value, None where it left the flag unset.
    `kv_tokens`: size of the KV pool; `running_limit`: the most requests that run at once, per DP rank.
    `version`: the engine's own version string. `image_digest`: the image that it ran in, if in one.
    `driver`: the version of the GPUs' driver, where it tells one.
    """

    model_config = ConfigDict(frozen=True)

    flags: dict[str, FlagValue | None]
    kv_tokens: int | None = None
    running_limit: int | None = None
    version: str | None = None
    image_digest: str | None = None
    driver: str | None = None


@dataclass(frozen=True)
class StartLine:
    """A log line that says that a start phase begins."""

    pattern: re.Pattern[str]
    phase: StartPhase


@dataclass(frozen=True)
class FailureLine:
    """A log line that decides why an engine failed.

    `kind` may depend on the phase the engine was in; `by_phase` overrides it there. `is_cause` is False for
    lines that only follow a cause ("child process died"): they decide only if nothing better was seen.
    """

    pattern: re.Pattern[str]
    kind: FailureKind
    by_phase: Mapping[StartPhase, FailureKind]
    is_cause: bool = True


@dataclass(frozen=True)
class DecodeStep:
    """What a log says of a decode step: the mean of those between two of its lines.

    `running`: requests that gained a token each; `tokens`: what they held together, halfway;
    `seconds`: how long a step took; `has_graph`: whether it ran from a captured graph.
    """

    running: int
    tokens: float
    seconds: float
    has_graph: bool = True


class ReadDecodeSteps(Protocol):
    """Reads in a log of rank 0 how long decode steps took."""

    def __call__(self, lines: Iterable[str]) -> Iterator[DecodeStep]:
        """Yield what is certain; an engine that logs nothing of the kind yields nothing."""
        ...


class RenderArgv(Protocol):
    """Gives the complete argv of one rank."""

    def __call__(
        self,
        space: SearchSpace,
        candidate: Candidate,
        *,
        rank: int,
        port: int,
        rendezvous_port: int,
    ) -> tuple[str, ...]:
        """Return the argv, without a shell in mind: one entry per word."""
        ...


class LoadCatalogue(Protocol):
    """Gives the flags that a version of the engine has."""

    def __call__(self, version: str) -> Catalogue:
        """Return the catalogue of the version, or of the nearest known one with `is_exact` False."""
        ...


class KnownDefaults(Protocol):
    """Gives what the engine is expected to choose by itself for flags that nobody sets."""

    def __call__(self, space: SearchSpace, flags: Mapping[str, FlagValue]) -> dict[str, FlagValue]:
        """Return the expected value of every tunable flag of the space that `flags` leaves out."""
        ...


class InvalidReason(Protocol):
    """Says, before a launch, why the engine would refuse a candidate."""

    def __call__(self, space: SearchSpace, candidate: Candidate) -> str | None:
        """Return the reason with the rule's source, None if no known rule is broken."""
        ...


class ParseEffective(Protocol):
    """Reads the resolved flags out of the engine's own information page."""

    def __call__(self, info: Mapping[str, Any]) -> EffectiveFlags:
        """Return the effective flags; what the engine does not tell is None."""
        ...


@dataclass(frozen=True)
class LiveFlag:
    """How a flag is set while one engine runs, from `minimum` to what it was launched with, `maximum`.

    `known`: where it is posted, and where it is read back. `ranks`: how many share the flag's value; each is
    told its part, rounded down as at a launch.
    """

    name: str
    known: LiveKnowledge
    maximum: int
    ranks: int = 1

    @property
    def minimum(self) -> int:
        """The least value, of which each rank gets a whole part."""
        return self.known.minimum * self.ranks

    def part_of(self, value: int) -> int:
        """Return what each rank is told."""
        return value // self.ranks

    def body(self, value: int) -> dict[str, dict[str, int]]:
        """Return what is posted."""
        return {self.known.argument: {self.known.key: self.part_of(value)}}

    def told_by(self, info: Mapping[str, Any]) -> list[object]:
        """Return what each rank that tells it stands at, by the engine's information page."""
        states = info.get(self.known.state)
        ranks = [state for state in states if isinstance(state, dict)] if isinstance(states, list) else []
        return [state[self.known.key] for state in ranks if self.known.key in state]

    def applied_to(self, effective: EffectiveFlags, value: int) -> EffectiveFlags:
        """Return what the engine runs with once the flag is set."""
        flags = {**effective.flags, self.name: value}
        return effective.model_copy(update={"flags": flags, "running_limit": self.part_of(value)})


def live_flag_for(flags: Mapping[str, LiveFlag], name: str, value: int) -> LiveFlag:
    """Return the flag of that name.

    Raises:
        LiveRefusedError: it cannot be set on this engine, or not to this value.
    """
    if name not in flags:
        raise LiveRefusedError(f"{name} cannot be set on this engine while it runs")
    flag = flags[name]
    if not flag.minimum <= value <= flag.maximum:
        raise LiveRefusedError(f"{name} {value} is not within {flag.minimum} to {flag.maximum}, as launched")
    return flag


class FindLiveFlags(Protocol):
    """Gives the flags that a running engine can change."""

    def __call__(self, effective: EffectiveFlags) -> Mapping[str, LiveFlag]:
        """Return them by name, none if it can change nothing."""
        ...


@dataclass(frozen=True)
class VocabularyProbe:
    """A request that is refused with the vocabulary's size: the first group of `size` in the answer."""

    path: str
    body: Mapping[str, object]
    size: re.Pattern[str]


@dataclass(frozen=True)
class Dialect:
    """One engine's way of being launched, watched and read.

    `preload_program` imports the engine once and forks its servers (`autotune.engine.preloaded`); None: the
    engine has no such program.
    """

    name: str
    command: tuple[str, ...]
    argv: RenderArgv
    catalogue: LoadCatalogue
    known_defaults: KnownDefaults
    invalid_reason: InvalidReason
    memory_use: Callable[[], MemoryUse]
    parse_effective: ParseEffective
    live_flags: FindLiveFlags
    start_lines: tuple[StartLine, ...]
    failure_lines: tuple[FailureLine, ...]
    decode_steps: ReadDecodeSteps
    health_path: str
    info_path: str
    flush_path: str
    abort_path: str
    model_info_path: str = "/model_info"
    vocabulary_probe: VocabularyProbe | None = None
    preload_program: Path | None = None
