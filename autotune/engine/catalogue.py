"""The flags that one version of an engine accepts: type, choices, bounds, and what is dead or was removed.

In: `catalogues/<engine>-<version>.json`, generated from the engine's own parser, and what its parser cannot
tell (`Knowledge`). Out: `Catalogue`, which checks flag names and values.
A version that autotune does not bring is catalogued by the user with the engine's `generate_catalogue.py`;
its file is found in ./catalogues or in the folders that AUTOTUNE_CATALOGUES names. Only reads files.
"""

import functools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, ValidationError

from autotune.document import Frozen
from autotune.errors import ConfigError, Problem, did_you_mean
from autotune.space import FlagValue

FOLDERS_VARIABLE = "AUTOTUNE_CATALOGUES"
_OWN_FOLDER = Path(__file__).parent / "catalogues"

Scalar: TypeAlias = Literal["int", "float", "str"]


class FlagSpec(Frozen):
    """One flag.

    `item`: what the entries of a list are. `field`: the engine's own name where it is not the flag's with
    underscores. `constant`: what a flag without a value writes there. `negation`: the flag that says False;
    without it, False is said by leaving the flag out. `dead` says why setting it changes nothing;
    `deprecated` what replaces it; `reserved` who sets it instead of the user; `refused` why the engine fails
    with a choice that its parser admits.
    """

    type: Literal["int", "float", "str", "bool", "list"]
    item: Scalar = "str"
    default: FlagValue | None = None
    choices: tuple[FlagValue, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    field: str | None = None
    constant: str | None = None
    negation: str | None = None
    dead: str | None = None
    deprecated: str | None = None
    reserved: str | None = None
    refused: dict[str, str] = Field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    def wrong_value(self, value: FlagValue) -> str | None:
        """Return what is wrong with a value, None if the engine takes it."""
        if self.type == "list":
            return self._wrong_list(value)
        if self.type == "bool":
            return None if isinstance(value, bool) else f"takes true or false, not {value!r}"
        return self._wrong_scalar(value, self.type) or self._out_of_bounds(value)

    def _wrong_list(self, value: FlagValue) -> str | None:
        if not isinstance(value, tuple | list):
            return f"takes a list, write [{value}]"
        return next(filter(None, (self._wrong_scalar(item, self.item) for item in value)), None)

    def _wrong_scalar(self, value: FlagValue, kind: Scalar) -> str | None:
        if kind == "str" and isinstance(value, bool):
            return f"takes a word, not {value!r}: write it in quotes"
        if not _is_a(value, kind):
            return f"takes {_KIND_NAMES[kind]}, not {value!r}"
        if self.choices is not None and value not in self.choices:
            words = [str(choice) for choice in self.choices]
            near = did_you_mean(str(value), words)
            return f"does not take {value!r}, only {', '.join(words)}. {near or ''}".rstrip()
        if str(value) in self.refused:
            return f"does not take {value!r}: {self.refused[str(value)]}"
        return None

    def _out_of_bounds(self, value: FlagValue) -> str | None:
        if not isinstance(value, int | float):
            return None
        if self.minimum is not None and value < self.minimum:
            return f"must be at least {self.minimum:g}, not {value}"
        if self.maximum is not None and value > self.maximum:
            return f"must be at most {self.maximum:g}, not {value}"
        return None


class MemoryUse(Frozen):
    """How flags decide what GPU memory an engine takes; a flag that is not named may do anything.

    `heavier`: more memory the higher the value, all else equal. `neutral`: no influence. `fraction`: the flag
    whose least workable value the engine prints when its weights leave no room for the KV pool.
    """

    heavier: tuple[str, ...] = ()
    neutral: tuple[str, ...] = ()
    fraction: str | None = None


class LiveKnowledge(Frozen):
    """How a flag is changed while the engine runs: `{argument: {key: value}}` is posted to `path`.

    `state`: where the information page tells the `key`, once for each rank. `minimum`: of the flag's values.
    `needs`: what other flags must be, if they are set at all.
    """

    path: str
    argument: str
    key: str
    state: str
    minimum: int = 1
    needs: dict[str, FlagValue] = Field(default_factory=dict)


class Knowledge(Frozen):
    """What is known about an engine's flags beyond its parser, by flag name; the words of `FlagSpec`.

    `removed`: flags of other versions and what became of them. A flag that a version lacks is skipped.
    """

    memory: MemoryUse = MemoryUse()
    live: dict[str, LiveKnowledge] = Field(default_factory=dict)
    minimum: dict[str, float] = Field(default_factory=dict)
    maximum: dict[str, float] = Field(default_factory=dict)
    dead: dict[str, str] = Field(default_factory=dict)
    reserved: dict[str, str] = Field(default_factory=dict)
    refused: dict[str, dict[str, str]] = Field(default_factory=dict)
    removed: dict[str, str] = Field(default_factory=dict)

    def about(self, name: str) -> dict[str, object]:
        """Return the fields of the flag's `FlagSpec` that are known."""
        tables: Mapping[str, Mapping[str, object]] = {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "dead": self.dead,
            "reserved": self.reserved,
            "refused": self.refused,
        }
        return {field: table[name] for field, table in tables.items() if name in table}


class Catalogue(Frozen):
    """All flags of one engine version, and those of other versions with what became of them.

    `is_exact` is False if the catalogue is that of the nearest known version.
    """

    engine: str
    version: str
    source: str
    flags: dict[str, FlagSpec]
    removed: dict[str, str] = Field(default_factory=dict)
    is_exact: bool = True

    @classmethod
    def from_file(cls, path: Path) -> "Catalogue":
        """Read a generated catalogue.

        Raises:
            ConfigError: the file cannot be read or is no catalogue.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ConfigError([Problem(f"cannot be read: {error.strerror}", file=path)]) from error
        except ValidationError as error:
            raise ConfigError([Problem(f"is no flag catalogue: {error}", file=path)]) from error

    def check(self, name: str, value: FlagValue) -> str | None:
        """Return what is wrong with setting a flag to a value, None if it may be set."""
        spec = self.flags.get(name)
        if spec is None:
            return self._unknown(name)
        if spec.reserved:
            return f"{name!r} is not for you to set: {spec.reserved}"
        if spec.dead:
            return f"{name!r} changes nothing in {self.engine} {self.version}, take it out: {spec.dead}"
        wrong = spec.wrong_value(value)
        return f"{name!r} {wrong}" if wrong else None

    def warning(self, name: str) -> str | None:
        """Return what to use instead of a deprecated flag, None if it is not deprecated."""
        spec = self.flags.get(name)
        if spec is None or spec.deprecated is None:
            return None
        return f"{name!r} is deprecated in {self.engine} {self.version}: {spec.deprecated}"

    def flag_of(self, field: str) -> str:
        """Return the flag that sets one of the engine's own fields (`tp_size` gives `tp-size`)."""
        return self._flag_by_field.get(field, field.replace("_", "-"))

    def respelled(self, values: Mapping[str, FlagValue | None]) -> dict[str, FlagValue | None]:
        """Return what the deprecated spellings of some flags stand at, given the values of the flags."""
        return {
            name: values[flag] if spec.constant is None else values[flag] == spec.constant
            for name, spec in self.flags.items()
            if spec.deprecated and spec.field and (flag := self.flag_of(spec.field)) in values
        }

    @functools.cached_property
    def _flag_by_field(self) -> dict[str, str]:
        renamed = {name: spec for name, spec in self.flags.items() if spec.field and not spec.deprecated}
        return {str(spec.field): name for name, spec in renamed.items()}

    @functools.cached_property
    def _flag_by_alias(self) -> dict[str, str]:
        return {alias: name for name, spec in self.flags.items() for alias in spec.aliases}

    def _unknown(self, name: str) -> str:
        engine = f"{self.engine} {self.version}"
        if name in self._flag_by_alias:
            return f"{name!r} is another spelling of {self._flag_by_alias[name]!r}: write that"
        longer = [flag for flag in self.flags if flag.startswith(f"{name}-")]
        if len(longer) == 1:
            return f"{name!r} is short for {longer[0]!r}: write that"
        if name in self.removed:
            return f"{engine} has no flag {name!r}: {self.removed[name]}"
        near = did_you_mean(name.replace("_", "-"), self.flags)
        return f"{engine} has no flag {name!r}. {near or 'Take it out.'}"

    def completed(self, knowledge: Knowledge, others: Iterator["Catalogue"]) -> "Catalogue":
        """Return the catalogue with what its own parser could not tell."""
        flags = {name: spec.model_copy(update=knowledge.about(name)) for name, spec in self.flags.items()}
        elsewhere = {
            name: f"{other.version} has it" for other in others for name in other.flags
        } | knowledge.removed
        removed = {name: fate for name, fate in elsewhere.items() if name not in flags}
        return self.model_copy(update={"flags": flags, "removed": removed})


def find_catalogue(engine: str, version: str, knowledge: Knowledge) -> Catalogue:
    """Return the catalogue of an engine's version, or of the nearest known one with `is_exact` False.

    Raises:
        ConfigError: a catalogue file is damaged.
    """
    paths = _known_files(engine)
    nearest = version if version in paths else _nearest(version, list(paths))
    return _completed(paths[nearest], tuple(paths.values()), knowledge.model_dump_json()).model_copy(
        update={"is_exact": nearest == version}
    )


@functools.lru_cache(maxsize=8)
def _completed(path: Path, known: tuple[Path, ...], knowledge: str) -> Catalogue:
    others = (Catalogue.from_file(other) for other in known if other != path)
    return Catalogue.from_file(path).completed(Knowledge.model_validate_json(knowledge), others)


def _known_files(engine: str) -> dict[str, Path]:
    """Return version to file; the user's files go before autotune's own."""
    named = os.environ.get(FOLDERS_VARIABLE, "")
    folders = [_OWN_FOLDER, Path("catalogues"), *map(Path, filter(None, named.split(os.pathsep)))]
    return {
        path.stem.removeprefix(f"{engine}-"): path.resolve()
        for folder in folders
        for path in sorted(folder.glob(f"{engine}-*.json"))
    }


def _nearest(version: str, known: list[str]) -> str:
    """Return the known version nearest in number, the newest if `version` has no number."""
    wanted = _rank(version)
    return min(known, key=lambda other: abs(_rank(other) - wanted)) if wanted else max(known, key=_rank)


def _rank(version: str) -> int:
    """Return a number that orders versions: 0.5.23 gives 5023."""
    rank = 0
    for number in re.findall(r"\d+", version)[:3]:
        rank = 1000 * rank + int(number)
    return rank


_KIND_NAMES: Mapping[Scalar, str] = {"int": "a whole number", "float": "a number", "str": "a word"}


def _is_a(value: object, kind: Scalar) -> bool:
    if isinstance(value, bool):
        return False
    match kind:
        case "int":
            return isinstance(value, int)
        case "float":
            return isinstance(value, int | float)
        case "str":
            return isinstance(value, str | int | float)
