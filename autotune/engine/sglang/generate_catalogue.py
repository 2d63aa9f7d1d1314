"""Prints the flag catalogue of the SGLang that is installed where this file runs.

In: SGLang's own argparse parser. Out: JSON on stdout, one flag a line, as `catalogue.Catalogue` reads it.
Imports only the standard library and sglang, so that the file can be copied into an image and run there:
`python3 generate_catalogue.py > catalogues/sglang-0.5.25.json`. What the parser cannot tell (dead flags,
minimum values) is in knowledge.yaml and survives a regeneration.
"""

import argparse
import importlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

_NUMBERS = {"int": "int", "float": "float", "human_readable_int": "int"}
_MANY = ("+", "*")
_DEPRECATED = re.compile(r"^[\[(]?deprecated[\])]?[.:,\s]*", re.IGNORECASE)


def main() -> None:
    """Print the catalogue."""
    version, parser = read_parser()
    sys.stdout.write(render(version, flags_of(parser)))


def read_parser() -> tuple[str, argparse.ArgumentParser]:
    """Return SGLang's version and a parser with all its arguments.

    Raises:
        ImportError: SGLang is not installed here.
    """
    parser = argparse.ArgumentParser()
    # Imported by name: this file must also be readable where SGLang is not installed.
    importlib.import_module("sglang.srt.server_args").ServerArgs.add_cli_args(parser)
    return importlib.import_module("sglang").__version__, parser


def flags_of(parser: argparse.ArgumentParser) -> dict[str, dict[str, object]]:
    """Return flag name to what the parser says about it, in alphabetical order."""
    # argparse offers no public way to list what a parser accepts.
    actions = [action for action in parser._actions if action.dest != "help"]  # noqa: SLF001
    return dict(sorted(_flag_of(action) for action in actions if action.option_strings))


def render(version: str, flags: Mapping[str, Mapping[str, object]]) -> str:
    """Return the catalogue as JSON with one flag a line, so that versions can be compared line by line."""
    head = {
        "engine": "sglang",
        "version": version,
        "source": f"the argparse parser of sglang {version}",
    }
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(flag)}" for name, flag in flags.items())
    start = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    return f'{{\n{start},\n  "flags": {{\n{lines}\n  }}\n}}\n'


def _flag_of(action: argparse.Action) -> tuple[str, dict[str, object]]:
    names = [option.removeprefix("--") for option in action.option_strings]
    name, others = names[0], names[1:]
    flag: dict[str, object] = {"type": _type_of(action)}
    if flag["type"] == "list":
        flag["item"] = _scalar_type(action)
    if isinstance(action, argparse.BooleanOptionalAction):
        flag["negation"] = next(other for other in others if other.startswith("no-"))
    if action.default not in (None, argparse.SUPPRESS):
        flag["default"] = _plain(action.default)
    if action.choices is not None:
        flag["choices"] = _choices(action.choices)
    if action.dest != name.replace("-", "_"):
        flag["field"] = action.dest
        constant = _constant(action)
        if constant:
            flag["constant"] = constant
    aliases = [other for other in others if other != flag.get("negation")]
    if aliases:
        flag["aliases"] = aliases
    deprecated = _deprecation(action)
    if deprecated:
        flag["deprecated"] = deprecated
    return name, flag


def _constant(action: argparse.Action) -> str | None:
    """Return the word that a flag without a value stands for (`use --backend=disabled`), None if for True."""
    if action.nargs != 0:
        return None
    if isinstance(action.const, str):
        return action.const
    return str(getattr(action, "new_flag", None) or "").partition("=")[2] or None


def _type_of(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "bool"
    return "list" if action.nargs in _MANY else _scalar_type(action)


def _scalar_type(action: argparse.Action) -> str:
    return _NUMBERS.get(getattr(action.type, "__name__", "str"), "str")


def _choices(choices: Iterable[Any]) -> list[object]:
    # SGLang gives lists, tuples and (without an order of their own) sets.
    return sorted(choices) if isinstance(choices, set | frozenset) else list(choices)


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | str | list) else str(value)


def _deprecation(action: argparse.Action) -> str | None:
    """Return what SGLang says instead of a deprecated flag, None if the flag is not deprecated."""
    replacement = getattr(action, "new_flag", None)
    if replacement:
        return f"use {replacement}"
    text = " ".join((action.help or "").split())
    if type(action).__name__.startswith("Deprecated") or _DEPRECATED.match(text):
        return _DEPRECATED.sub("", text).split(") ")[0].rstrip(".") or "deprecated"
    return None


if __name__ == "__main__":
    main()
