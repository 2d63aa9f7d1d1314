"""SGLang's command line: what it accepts in any catalogued version, and its own words for what it does not.

In: argv. Out: the flags that were given, by name (dashes kept, no leading dashes; a deprecated spelling gives
the flag that replaced it), or a BadArgumentError with argparse's usage and error line. What there is to
accept is read from the flag catalogues; flags that the simulator does not model have no effect. Reads
package data, and the file that --config names.
"""

import argparse
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict

from autotune.document import read_document
from autotune.errors import ConfigError
from autotune.space import FlagValue

_PROGRAM = "sglang serve"
_TYPES: Mapping[str, type] = {"int": int, "float": float, "str": str}
# Data only: the code that checks a user's flags against it belongs to the engine, which stands above.
_CATALOGUES = Path(__file__).parents[1] / "engine" / "catalogues"


class BadArgumentError(Exception):
    """The engine would refuse these arguments; `line` is its decisive line, `usage` comes before it."""

    def __init__(self, line: str, usage: str = "", exit_code: int = 2) -> None:
        self.line = line
        self.usage = usage
        self.exit_code = exit_code
        super().__init__(line)


class _Flag(BaseModel):
    """What a catalogue says of a flag, as far as a parser needs it; see `engine.catalogue.FlagSpec`."""

    model_config = ConfigDict(frozen=True)

    type: Literal["int", "float", "str", "bool", "list"]
    item: Literal["int", "float", "str"] = "str"
    choices: tuple[FlagValue, ...] | None = None
    field: str | None = None
    constant: str | None = None
    negation: str | None = None
    deprecated: str | None = None
    aliases: tuple[str, ...] = ()

    def with_older(self, older: "_Flag") -> "_Flag":
        """Return the flag with what only an older version calls it or takes."""
        choices = self.choices and older.choices and tuple(dict.fromkeys((*self.choices, *older.choices)))
        aliases = tuple(dict.fromkeys((*self.aliases, *older.aliases)))
        return self.model_copy(update={"choices": choices, "aliases": aliases})


class _Catalogue(BaseModel):
    version: str
    flags: dict[str, _Flag]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadArgumentError(f"{self.prog}: error: {message}", self.format_usage())


def parse_arguments(argv: Sequence[str]) -> dict[str, FlagValue]:
    """Return the flags given on a command line; the words before the first flag (the command) are ignored.

    Raises:
        BadArgumentError: argparse refuses the command line (exit code 2).
    """
    flags = _without_command(argv)
    given = vars(_parser().parse_args([*_configured(flags), *flags]))
    return {
        name.replace("_", "-"): tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
    }


def to_argv(flags: Mapping[str, FlagValue]) -> list[str]:
    """Return the words that set the flags; a false switch is left out."""
    words: list[str] = []
    for name, value in flags.items():
        match value:
            case False:
                continue
            case True:
                words += [f"--{name}"]
            case tuple():
                words += [f"--{name}", *map(str, value)]
            case _:
                words += [f"--{name}", str(value)]
    return words


def _without_command(argv: Sequence[str]) -> list[str]:
    first = next((index for index, word in enumerate(argv) if word.startswith("--")), len(argv))
    return list(argv[first:])


def _configured(flags: Sequence[str]) -> list[str]:
    """Return the words of the file that --config names; what stands on the command line comes after it."""
    if "--config" not in flags[:-1]:
        return []
    path = Path(flags[flags.index("--config") + 1])
    try:
        data = read_document(path).data
    except ConfigError as error:
        raise BadArgumentError(f"ValueError: {error}", exit_code=1) from error
    if not isinstance(data, dict):
        raise BadArgumentError(f"ValueError: {path} must contain a dictionary at root level", exit_code=1)
    settings = {str(name).replace("_", "-"): value for name, value in data.items() if value is not None}
    return to_argv(
        {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    )


@functools.cache
def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=_PROGRAM, argument_default=argparse.SUPPRESS)
    flags = _known_flags()
    flag_of = {flag.field: name for name, flag in flags.items() if flag.field and not flag.deprecated}
    for name, flag in flags.items():
        field = flag.field if flag.deprecated else None
        meant = name if field is None else flag_of.get(field, field)
        spellings = [f"--{each}" for each in (name, *flag.aliases)]
        parser.add_argument(
            *spellings, dest=meant.replace("-", "_"), required=name == "model-path", **_options(flag)
        )
    return parser


def _options(flag: _Flag) -> dict[str, Any]:
    match flag.type:
        case "bool" if flag.constant is not None:
            return {"action": "store_const", "const": flag.constant}
        case "bool" if flag.negation is not None:
            return {"action": argparse.BooleanOptionalAction}
        case "bool":
            return {"action": "store_true"}
        case "list":
            return {"nargs": "*", "type": _TYPES[flag.item]}
        case kind:
            return {"type": _TYPES[kind], "choices": flag.choices}


def _known_flags() -> dict[str, _Flag]:
    """Return the flags of all catalogued versions; where they differ, the newest decides."""
    known: dict[str, _Flag] = {}
    for catalogue in _newest_first():
        for name, flag in catalogue.flags.items():
            known[name] = known[name].with_older(flag) if name in known else flag
    return known


def _newest_first() -> Iterator[_Catalogue]:
    read = [_Catalogue.model_validate_json(path.read_bytes()) for path in _CATALOGUES.glob("sglang-*.json")]
    yield from sorted(read, key=lambda each: [int(n) for n in re.findall(r"\d+", each.version)], reverse=True)
