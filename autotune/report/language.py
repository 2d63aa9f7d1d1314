"""The language that reports are written in: English, or what a catalogue says in its place.

In: an English sentence with named gaps. Out: the sentence in the language of the moment, the gaps filled.
Reads the package's own catalogues (`catalogues/zh.json`: English to Chinese). Invariant: English needs no
catalogue, and a sentence that a catalogue lacks stays English; a test finds every such sentence.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from functools import cache
from importlib.resources import files

from autotune.errors import parse_choice


class Language(StrEnum):
    """The languages that there are; the value is that of HTML's `lang`."""

    ENGLISH = "en"
    CHINESE = "zh"


_SPOKEN: ContextVar[Language] = ContextVar("language", default=Language.ENGLISH)


def parse_language(name: str) -> Language:
    """Return the language of that name.

    Raises:
        ConfigError: there is none.
    """
    return parse_choice(Language, "--lang", name)


@contextmanager
def speaking(language: Language) -> Iterator[None]:
    """Let every sentence inside be in this language."""
    token = _SPOKEN.set(language)
    try:
        yield
    finally:
        _SPOKEN.reset(token)


def spoken() -> Language:
    """Return the language of the moment."""
    return _SPOKEN.get()


def say(sentence: str, **gaps: object) -> str:
    """Return a sentence in the language of the moment, `{name}` in it replaced by the gap of that name."""
    return phrases(spoken()).get(sentence, sentence).format(**gaps)


def mark(sentence: str) -> str:
    """Return the sentence as it is: one that is said later, and that catalogues must have."""
    return sentence


def word(name: str) -> str:
    """Return a word of the design (a verdict, a phase, a kind of failure) in the language of the moment."""
    return phrases(spoken()).get(name, name)


@cache
def phrases(language: Language) -> Mapping[str, str]:
    """Return a language's catalogue, empty for English."""
    if language is Language.ENGLISH:
        return {}
    text = files("autotune.report").joinpath(f"catalogues/{language}.json").read_text(encoding="utf-8")
    return {str(sentence): str(translation) for sentence, translation in json.loads(text).items()}
