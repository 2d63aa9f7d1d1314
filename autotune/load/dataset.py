"""Datasets: JSONL files of prompts, autotune's own form or ShareGPT's. Reads the disk.

In: a path. Out: `Talk`s, in the file's order; every bad line is named. Forms of a line:
    {"prompt": text, "output_tokens": 128}                              output_tokens may be left out
    {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": text}, ...]}
    {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}, ...]}
Of a conversation every question with its answer is a turn, and the answer tells the length asked for; what
nobody asked or answered, and what a system said, is left out, as vLLM's and SGLang's benches do
(benchmark/datasets, ShareGPT), and so is a conversation without a turn.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError

from autotune.document import Frozen
from autotune.errors import ConfigError, Problem

_SHOWN_PROBLEMS = 20
_LINE_FORM = (
    'A line is {"prompt": "some text"}, with an optional "output_tokens": 128, or in ShareGPT\'s form.'
)
_ASKS = frozenset({"human", "user"})
_ANSWERS = frozenset({"gpt", "assistant", "chatgpt", "bing", "bard"})


class Turn(Frozen):
    """One text to be sent; `answer` is the text that once answered it, whose length is to be asked for."""

    prompt: str = Field(min_length=1)
    output_tokens: PositiveInt | None = None
    answer: str | None = None


class Talk(Frozen):
    """What one line says: one turn, or those of a conversation in their order."""

    turns: tuple[Turn, ...] = Field(min_length=1)


class _Line(Frozen):
    """A line of the own form."""

    prompt: str = Field(min_length=1)
    output_tokens: PositiveInt | None = None


class _Said(Frozen):
    """One turn; other keys that datasets carry are of no use here."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    who: str
    text: str


class _ShareGpt(Frozen):
    """A line of ShareGPT's form: who said what."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    turns: tuple[_Said, ...]

    @property
    def talk(self) -> Talk | None:
        """Every question with its answer, None if there is no such pair."""
        turns = tuple(
            Turn(prompt=asked.text, answer=answered.text)
            for asked, answered in pairwise(self.turns)
            if asked.who in _ASKS and answered.who in _ANSWERS and asked.text and answered.text
        )
        return Talk(turns=turns) if turns else None


_JSON = TypeAdapter(dict[str, Any])


def read_dataset(path: Path) -> tuple[Talk, ...]:
    """Read a JSONL file of prompts; blank lines are skipped.

    Raises:
        ConfigError: the file cannot be read or has no prompt, or lines are not of a known form (all named).
    """
    talks, problems = [], []
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            try:
                talks.append(_talk(line))
            except ValidationError as error:
                problems.append(_line_problem(path, number, error))
    if problems:
        raise ConfigError(problems[:_SHOWN_PROBLEMS])
    known = tuple(talk for talk in talks if talk is not None)
    if not known:
        raise ConfigError([Problem("the dataset is empty", path, remedy=_LINE_FORM)])
    return known


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise ConfigError([Problem("no such dataset", path, remedy="correct workload.dataset")]) from None
    except (OSError, UnicodeDecodeError) as error:
        remedy = "a dataset is a readable UTF-8 file with one JSON object per line"
        raise ConfigError([Problem(f"cannot be read: {error}", path, remedy=remedy)]) from error


def _talk(line: str) -> Talk | None:
    value = _JSON.validate_json(line, strict=True)
    if "conversations" in value:
        return _said(value["conversations"], "from", "value").talk
    if "messages" in value:
        return _said(value["messages"], "role", "content").talk
    own = _Line.model_validate(value, strict=True)
    return Talk(turns=(Turn(prompt=own.prompt, output_tokens=own.output_tokens),))


def _said(turns: object, who: str, text: str) -> _ShareGpt:
    """Read the turns of a conversation whose keys have these names."""
    if isinstance(turns, list):
        turns = [
            {"who": turn.get(who), "text": turn.get(text)} if isinstance(turn, dict) else turn
            for turn in turns
        ]
    return _ShareGpt.model_validate({"turns": turns})


def _line_problem(path: Path, number: int, error: ValidationError) -> Problem:
    detail = error.errors()[0]
    key = ".".join(map(str, detail["loc"])) or None
    match detail["type"]:
        case "json_invalid":
            message = "is not JSON"
        case "missing":
            message = "is missing"
        case "extra_forbidden":
            message = "unknown key"
        case _:
            message = detail["msg"]
    return Problem(message, path, number, key, _LINE_FORM)
