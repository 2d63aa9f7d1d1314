"""A YAML file read into a frozen pydantic model, with the line of every key kept for error messages.

In: a path and a model. Out: the model, or a ConfigError that lists every problem with file, line, key,
value and remedy. Talks to the disk; the only importer of yaml. Unknown and duplicate keys are refused.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from autotune.errors import ConfigError, Problem, did_you_mean
from autotune.uninterrupted import signals_held

KeyPath: TypeAlias = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class Misplaced(ValueError):  # noqa: N818 - it says what it is of: a misplaced value
    """What a validator of a whole model finds wrong with one of its keys; becomes a problem at that key.

    `at`: the path of the key inside the validated model, as the file spells it (`("require", 0)`).
    """

    def __init__(self, message: str, *, at: KeyPath, remedy: str | None = None) -> None:
        super().__init__(message)
        self.at = at
        self.remedy = remedy


class Misplacements(ValueError):  # noqa: N818 - the plural of the one above
    """Several of them at once."""

    def __init__(self, each: Iterable[Misplaced]) -> None:
        self.each = tuple(each)
        super().__init__("\n".join(str(one) for one in self.each))


def refuse(found: Iterable[Misplaced]) -> None:
    """Raise what was found, if anything was: `Misplaced` for one, `Misplacements` for several."""
    match tuple(found):
        case ():
            return
        case (one,):
            raise one
        case several:
            raise Misplacements(several)


_NO_SUCH_KEY = "Take it out; 'autotune schema' prints the keys that there are."
_WORDING: Mapping[str, str] = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "enum": "must be {expected}",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "string_type": "must be text; write it in quotes",
    "too_short": "must not be empty",
}
"""What pydantic's errors (pydantic 2, its error types and their context) say in the words of a YAML file."""


class Frozen(BaseModel):
    """Base of everything that is read from outside: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


@dataclass(frozen=True)
class Document:
    """A parsed YAML file: plain data, and where each key stands (1-based lines)."""

    path: Path
    data: object
    lines: Mapping[KeyPath, int]

    def line_of(self, key: KeyPath) -> int:
        """Return the line of a key, or of its nearest enclosing key that was written."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)

    def problem(self, key: KeyPath, message: str, remedy: str | None = None) -> Problem:
        """Return a problem located at `key`."""
        return Problem(
            message, file=self.path, line=self.line_of(key), key=_dotted(key) or None, remedy=remedy
        )

    def to_model(self, model: type[Model]) -> Model:
        """Validate the data.

        Raises:
            ConfigError: with one problem for each thing that is wrong.
        """
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            details = error.errors()
        raise ConfigError(problem for detail in details for problem in self._problems_of(detail, model))

    def _problems_of(self, detail: ErrorDetails, model: type[BaseModel]) -> Iterator[Problem]:
        key = self._written_key(detail["loc"])
        match detail.get("ctx", {}).get("error"):
            case Misplaced() as one:
                yield self.problem((*key, *one.at), str(one), one.remedy)
            case Misplacements(each=each):
                yield from (self.problem((*key, *one.at), str(one), one.remedy) for one in each)
            case _:
                yield self._problem_of(detail, key, model)

    def _problem_of(self, detail: ErrorDetails, key: KeyPath, model: type[BaseModel]) -> Problem:
        last = detail["loc"][-1] if detail["loc"] else ""
        match detail["type"]:
            case "extra_forbidden":
                remedy = did_you_mean(str(last), _known_keys(model))
                return self.problem(key, "unknown key", remedy or _NO_SUCH_KEY)
            case "missing" if isinstance(last, int):
                return self.problem(key, "holds too few values" + _shown(detail["input"]))
            case "missing":
                return self.problem(key, f"the key {last!r} is missing", f"Add a line '{last}: ...'.")
            case "enum" | "literal_error":
                known = re.findall("'([^']*)'", detail["ctx"]["expected"])
                remedy = did_you_mean(str(detail["input"]), known)
                return self.problem(key, _worded(detail) + _shown(detail["input"]), remedy)
            case _:
                return self.problem(key, _worded(detail) + _shown(detail["input"]))

    def _written_key(self, location: KeyPath) -> KeyPath:
        """Drop what pydantic adds to a location (the names of union members)."""
        key: KeyPath = ()
        for part in location:
            if (*key, part) in self.lines:
                key = (*key, part)
        return key


def read_document(path: Path) -> Document:
    """Parse a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or repeats a key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.load(text, Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise ConfigError([Problem("no such file", file=path)]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(f"cannot be read: {error}", file=path)]) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([Problem(f"is not YAML: {error.problem}", file=path, line=line)]) from None
    except (yaml.YAMLError, ValueError) as error:  # a control character, a date that is none
        raise ConfigError([Problem(f"is not YAML: {error}", file=path)]) from None
    if root is None:
        raise ConfigError([Problem("is empty", file=path)])
    lines: dict[KeyPath, int] = {}
    for key, line in _walk(root, ()):
        if key in lines:
            raise ConfigError([Problem("key given twice", path, line, _dotted(key))])
        lines[key] = line
    return Document(path, data, lines)


class _CautiousDumper(yaml.SafeDumper):
    """Quotes what other readers take for a number (1e3, 0o17) or a truth (y), and escapes line breaks."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Return a string's node, in double quotes where only those can carry it."""
        style = '"' if set(text) & set("\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_CautiousDumper.add_representer(str, _CautiousDumper.represent_text)
_CautiousDumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:\d+[eE][-+]?\d+|0o[0-7]+)$"), list("-+0123456789")
)
_CautiousDumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]$"), list("yYnN"))


@signals_held()  # pydantic makes an error of its own of an interrupt in the middle
def to_yaml(model: BaseModel) -> str:
    """Return the model as YAML that `read_document` reads back to an equal model."""
    data = model.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return str(yaml.dump(data, Dumper=_CautiousDumper, sort_keys=False, allow_unicode=True, width=100))


def dump_yaml(data: Mapping[str, object]) -> str:
    """Return plain data as YAML, quoted wherever a reader could take a string for something else."""
    text = yaml.dump(dict(data), Dumper=_CautiousDumper, sort_keys=False, allow_unicode=True, width=10_000)
    return str(text)


def _walk(node: yaml.Node, key: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    match node:
        case yaml.MappingNode():
            for name, value in node.value:
                child = (*key, str(name.value))
                yield child, name.start_mark.line + 1
                yield from _walk(value, child)
        case yaml.SequenceNode():
            for index, value in enumerate(node.value):
                yield (*key, index), value.start_mark.line + 1
                yield from _walk(value, (*key, index))
        case _:
            return


def _worded(detail: ErrorDetails) -> str:
    """Return what is wrong in our words, in pydantic's where there are none."""
    if detail["type"] in _WORDING:
        return _WORDING[detail["type"]].format(**detail.get("ctx", {}))
    return detail["msg"].removeprefix("Value error, ")


def _known_keys(model: type[BaseModel]) -> set[str]:
    """Return every key of the model and of the models its schema refers to."""
    schema: Mapping[str, Any] = model.model_json_schema(by_alias=True)
    models = [schema, *schema.get("$defs", {}).values()]
    return {name for part in models for name in part.get("properties", {})}


def _dotted(key: KeyPath) -> str:
    return ".".join(str(part) for part in key)


def _shown(value: object, limit: int = 80) -> str:
    """Return the value in brackets, a long word cut; nothing for a collection of more than one entry."""
    if isinstance(value, Mapping | list | tuple) and len(value) > 1:
        return ""
    text = repr(value)
    return f" (got {text if len(text) <= limit else text[: limit - 3] + '...'})"
