"""The search space: engine, model, cluster, fixed flags, tunable flags and the constraints among them.

In: `search_spaces/*.yaml`. Out: `SearchSpace` and `Candidate`. Pure.
Flags are spelled as the engine's `--help` spells them, without the leading dashes; in expressions
(`require`, `when`) the inner dashes are underscores.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    Discriminator,
    Field,
    FiniteFloat,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    field_validator,
    model_validator,
)

from autotune.document import Frozen, KeyPath, Misplaced, refuse
from autotune.errors import did_you_mean
from autotune.expression import Expression, parse_expression
from autotune.node import Accelerator, ContainerSettings, Mount, Node, strange_slots

__all__ = [
    "Accelerator",
    "Candidate",
    "Choices",
    "ContainerSettings",
    "FlagValue",
    "FloatRange",
    "IntRange",
    "LauncherKind",
    "Mount",
    "Node",
    "SearchSpace",
    "Tunable",
]

Scalar: TypeAlias = StrictBool | StrictInt | StrictFloat | StrictStr
FlagValue: TypeAlias = Scalar | tuple[StrictInt | StrictStr, ...]
RENDEZVOUS_PORTS = 128
"""How many ports from `rendezvous_port` on a slot may use, to meet at others in each launch."""


class LauncherKind(StrEnum):
    """What starts an engine."""

    DOCKER = "docker"
    PROCESS = "process"
    SIMULATED = "simulated"


class Numeric(Frozen):
    """What whole and fractional ranges share."""

    scale: Literal["linear", "log"] = "linear"
    when: str | None = None


class IntRange(Numeric):
    """Whole numbers from `int[0]` to `int[1]`, both included, that are multiples of `multiple_of`."""

    bounds: tuple[StrictInt, StrictInt] = Field(alias="int")
    multiple_of: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _bounds_hold_a_value(self) -> "IntRange":
        low, high = self.bounds
        _refuse_reversed(low, high, self.scale)
        if high // self.multiple_of * self.multiple_of < low:
            raise ValueError(f"no multiple of {self.multiple_of} lies within [{low}, {high}]")
        return self

    def snap(self, value: float) -> int:
        """Return the allowed value nearest to `value`."""
        low, high = self.bounds
        step = self.multiple_of
        return min(max(round(value / step), math.ceil(low / step)), high // step) * step

    def contains(self, value: FlagValue) -> bool:
        """Whether this exact value may be drawn."""
        return isinstance(value, int) and not isinstance(value, bool) and self.snap(value) == value

    def count(self) -> float:
        """Return how many values there are."""
        low, high = self.bounds
        return high // self.multiple_of - math.ceil(low / self.multiple_of) + 1


class FloatRange(Numeric):
    """Numbers from `float[0]` to `float[1]`, both included, on a grid of `step` from the lower bound."""

    bounds: tuple[FiniteFloat, FiniteFloat] = Field(alias="float")
    step: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> "FloatRange":
        _refuse_reversed(*self.bounds, self.scale)
        return self

    def snap(self, value: float) -> float:
        """Return the allowed value nearest to `value`, rounded so that it prints short."""
        low, high = self.bounds
        value = min(max(value, low), high)
        if self.step is None:
            return float(f"{value:.4g}") if low <= float(f"{value:.4g}") <= high else value
        steps = min(round((value - low) / self.step), math.floor((high - low) / self.step + 1e-9))
        return round(low + steps * self.step, 10)

    def contains(self, value: FlagValue) -> bool:
        """Whether this exact value may be drawn."""
        return isinstance(value, int | float) and math.isclose(self.snap(value), value)

    def count(self) -> float:
        """Return how many values there are, infinite without a step."""
        low, high = self.bounds
        return math.inf if self.step is None else math.floor((high - low) / self.step + 1e-9) + 1


class Choices(Frozen):
    """A closed set of values without an order."""

    choices: tuple[Scalar, ...] = Field(min_length=1)
    when: str | None = None

    @field_validator("choices")
    @classmethod
    def _choices_differ(cls, value: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        if len({json.dumps(choice) for choice in value}) < len(value):
            raise ValueError("a choice is given twice")
        return value

    def contains(self, value: FlagValue) -> bool:
        """Whether this exact value may be drawn."""
        return any(type(value) is type(choice) and value == choice for choice in self.choices)

    def count(self) -> float:
        """Return how many values there are."""
        return len(self.choices)


def _kind_of_tunable(value: object) -> str:
    if isinstance(value, IntRange | FloatRange | Choices):
        return {IntRange: "int", FloatRange: "float", Choices: "choices"}[type(value)]
    kinds = [kind for kind in ("int", "float", "choices") if isinstance(value, dict) and kind in value]
    return kinds[0] if len(kinds) == 1 else "unknown"


Tunable: TypeAlias = Annotated[
    Annotated[IntRange, Tag("int")]
    | Annotated[FloatRange, Tag("float")]
    | Annotated[Choices, Tag("choices")],
    Discriminator(
        _kind_of_tunable,
        custom_error_type="tunable",
        custom_error_message=(
            "a tunable flag is {int: [low, high]}, {float: [low, high]} or {choices: [a, b]}"
        ),
    ),
]


@dataclass(frozen=True)
class Candidate:
    """The flags that one trial sets, on top of the fixed ones; what it leaves out is the engine's choice."""

    flags: tuple[tuple[str, FlagValue], ...]

    @classmethod
    def of(cls, flags: Mapping[str, FlagValue]) -> "Candidate":
        """Return the candidate, independent of the order of the keys."""
        return cls(tuple(sorted(flags.items())))

    def to_dict(self) -> dict[str, FlagValue]:
        """Return flag to value, in alphabetical order."""
        return dict(self.flags)

    @cached_property
    def fingerprint(self) -> str:
        """A short stable hash: equal for equal flags, whatever their order."""
        text = json.dumps(self.flags, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.flags) or "(engine defaults)"


class SearchSpace(Frozen):
    """Everything about a study's engine: what is fixed, what may change, and where it runs.

    `preload`: launcher process imports the engine once and forks every launch from that; needs a `command`
    of the form [PYTHON, -m, MODULE], which the default is.
    One engine spans all nodes, unless `nodes_per_engine` says of how many it takes: the nodes are then dealt
    into slots of that many, in their order, and every slot runs a launch of its own at the same time.
    `try`: candidates that the search launches first, in this order, each written as the baseline is.
    """

    engine: Literal["sglang"] = "sglang"
    version: str
    model: str
    launcher: LauncherKind = LauncherKind.DOCKER
    image: str | None = None
    command: tuple[str, ...] | None = None
    preload: bool = False
    profile: str | None = None
    all_nodes: tuple[Node, ...] = Field(default=(Node(name="local"),), min_length=1, alias="nodes")
    nodes_per_engine: int | None = Field(default=None, ge=1)
    mounts: tuple[Mount, ...] = ()
    container: ContainerSettings = ContainerSettings()
    environment: dict[str, str] = Field(default={})
    environment_from: tuple[str, ...] = ()
    port: int = Field(default=30000, ge=1024, le=65535)
    rendezvous_port: int = Field(default=20000, ge=1024, le=65000)
    ready_timeout_s: float = Field(default=1800.0, gt=0)
    flags: dict[str, FlagValue] = Field(default={})
    tune: dict[str, Tunable] = Field(min_length=1)
    require: tuple[str, ...] = ()
    baseline: dict[str, FlagValue] = Field(default={})
    tried_first: tuple[dict[str, FlagValue], ...] = Field(default=(), alias="try")

    @field_validator("version", mode="before")
    @classmethod
    def _version_is_quoted(cls, value: object) -> object:
        if isinstance(value, float | int):
            raise ValueError('write the version in quotes, such as "0.5.23"')  # noqa: TRY004 - pydantic wants ValueError
        return value

    @model_validator(mode="after")
    def _parts_agree(self) -> "SearchSpace":
        refuse(
            (
                *self._doubly_set(),
                *self._strange_candidates(),
                *self._strange_requirements(),
                *self._strange_conditions(),
                *self._repeated_nodes(),
                *self._command_that_cannot_be_preloaded(),
                *strange_slots(self.all_nodes, self.nodes_per_engine, self.container),
            )
        )
        return self

    def _doubly_set(self) -> Iterator[Misplaced]:
        for name in self.tune:
            if name in self.flags:
                message = f"{name!r} is both fixed (flags) and tuned (tune)"
                yield Misplaced(message, at=("tune", name), remedy="Keep one of the two.")

    def _strange_candidates(self) -> Iterator[Misplaced]:
        for at, flags in self.written_candidates:
            for name in (each for each in flags if each not in self.tune):
                remedy = did_you_mean(name, self.tune) or "Put it under 'flags', or under 'tune' as well."
                yield Misplaced(f"{name!r} is not tuned", at=(*at, name), remedy=remedy)

    def _strange_requirements(self) -> Iterator[Misplaced]:
        known = {*self.flags, *self.tune}
        for index, text in enumerate(self.require):
            yield from _strange_expression(text, known, ("require", index))

    def _strange_conditions(self) -> Iterator[Misplaced]:
        earlier = set(self.flags)
        for name, tunable in self.tune.items():
            if tunable.when is not None:
                remedy = "Only fixed flags and flags tuned above it may be named."
                yield from _strange_expression(tunable.when, earlier, ("tune", name, "when"), remedy)
            earlier.add(name)

    def _repeated_nodes(self) -> Iterator[Misplaced]:
        names = [node.name for node in self.all_nodes]
        for index, name in enumerate(names):
            if name in names[:index]:
                remedy = "Give every node a name of its own."
                yield Misplaced(f"two nodes are {name!r}", at=("nodes", index, "name"), remedy=remedy)

    def _command_that_cannot_be_preloaded(self) -> Iterator[Misplaced]:
        if self.preload and self.command is not None and (len(self.command) != 3 or self.command[1] != "-m"):  # noqa: PLR2004 - as said
            message = f"preload imports a Python module, and the command is {' '.join(self.command)!r}"
            remedy = "Write command: [PYTHON, -m, sglang.launch_server], or leave preload out."
            yield Misplaced(message, at=("preload",), remedy=remedy)

    @property
    def written_candidates(self) -> tuple[tuple[KeyPath, Mapping[str, FlagValue]], ...]:
        """The candidates that the file spells out, each with where it stands there."""
        tried = ((("try", index), flags) for index, flags in enumerate(self.tried_first))
        return ((("baseline",), self.baseline), *tried)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes of one engine, in rank order; those of the first slot if there are several."""
        return self.all_nodes[: self.nodes_per_engine]

    @property
    def slots(self) -> "tuple[SearchSpace, ...]":
        """The same space on the nodes of each slot, with ports of its own beside others on its machines."""
        size = self.nodes_per_engine
        if size is None or len(self.all_nodes) == size:
            return (self,)
        groups = [self.all_nodes[first : first + size] for first in range(0, len(self.all_nodes), size)]
        return tuple(self._slot(group, groups[:index]) for index, group in enumerate(groups))

    def _slot(self, nodes: tuple[Node, ...], earlier: "list[tuple[Node, ...]]") -> "SearchSpace":
        machines = {node.docker for node in nodes}
        beside = sum(not machines.isdisjoint(node.docker for node in group) for group in earlier)
        return self.model_copy(
            update={
                "all_nodes": nodes,
                "port": self.port + beside,
                "rendezvous_port": self.rendezvous_port + beside * RENDEZVOUS_PORTS,
            }
        )

    @cached_property
    def requirements(self) -> tuple[Expression, ...]:
        """The parsed `require` lines."""
        return tuple(parse_expression(text) for text in self.require)

    @cached_property
    def conditions(self) -> dict[str, Expression | None]:
        """For every tunable flag its parsed `when`, None if it always takes part."""
        return {
            name: None if tunable.when is None else parse_expression(tunable.when)
            for name, tunable in self.tune.items()
        }

    def is_active(self, name: str, flags: Mapping[str, FlagValue]) -> bool:
        """Whether the tunable flag takes part, given the fixed flags and those drawn before it."""
        condition = self.conditions[name]
        if condition is None:
            return True
        values = {**self.flags, **flags}
        return condition.names <= values.keys() and condition.holds(values)

    def violated(self, candidate: Candidate) -> str | None:
        """Return the first `require` line that the candidate contradicts, None if there is none."""
        flags = {**self.flags, **candidate.to_dict()}
        return next((each.text for each in self.requirements if not each.holds(flags)), None)

    @property
    def size(self) -> float:
        """How many candidates there are, conditions and requirements ignored; may be infinite."""
        return math.prod(tunable.count() for tunable in self.tune.values())


def _refuse_reversed(low: float, high: float, scale: str) -> None:
    if low > high:
        raise ValueError(f"the bounds are reversed: write [{high}, {low}]")
    if scale == "log" and low <= 0:
        raise ValueError("a log scale needs a lower bound above 0")


def _strange_expression(
    text: str, known: Iterable[str], at: KeyPath, remedy: str | None = None
) -> Iterator[Misplaced]:
    """Yield what is wrong with an expression: it cannot be parsed, or it names what is not `known`."""
    try:
        expression = parse_expression(text)
    except ValueError as error:
        yield Misplaced(str(error), at=at)
        return
    spelled = {name.replace("-", "_") for name in known}
    for name in sorted(expression.names - set(known)):
        word = name.replace("-", "_")
        message = f"{text!r} names no flag of this space that it may name: {word!r}"
        names = f"It may name {', '.join(sorted(spelled))}."
        yield Misplaced(message, at=at, remedy=remedy or did_you_mean(word, spelled) or names)
