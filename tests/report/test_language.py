"""No sentence of a report lacks a translation, and every translation has the gaps of its sentence."""

import ast
import re
import string
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest

import autotune.report
from autotune.errors import ConfigError
from autotune.failure import FailureKind, StartPhase
from autotune.load.answers import AnswerUnit
from autotune.record import Outcome, Role
from autotune.report.answer import answer_text
from autotune.report.html import render_report
from autotune.report.language import Language, mark, parse_language, phrases, say, speaking, spoken, word
from autotune.slo import Decision
from tests.support import histories as made

PACKAGE = Path(autotune.report.__file__).parent
WORDS: tuple[type[StrEnum], ...] = (AnswerUnit, Decision, FailureKind, StartPhase, Outcome, Role)
PHASES = {"launch", "load", "teardown", "cut off"}
SPEAKERS = {"say", "mark", "word"}


def sentences_of(source: str) -> Iterator[str]:
    """Yield the literal sentences that a module says, chosen ones (`a if b else c`) too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SPEAKERS:
            for part in ast.walk(node.args[0]):
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value:
                    yield part.value


def all_sentences() -> set[str]:
    found = {
        sentence
        for path in PACKAGE.rglob("*.py")
        if not path.name.startswith("compare")
        for sentence in sentences_of(path.read_text(encoding="utf-8"))
    }
    for path in [*PACKAGE.glob("page/*.js"), *PACKAGE.glob("page/*.jinja")]:
        if "plotly" not in path.name:
            found.update(re.findall(r'say\("((?:[^"\\]|\\.)*)"', path.read_text(encoding="utf-8")))
    return found | {str(member) for words in WORDS for member in words} | PHASES


def gaps_of(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None}


@pytest.mark.parametrize("language", [each for each in Language if each is not Language.ENGLISH])
def test_no_sentence_lacks_a_translation_and_no_translation_is_left_over(language: Language) -> None:
    assert all_sentences() == set(phrases(language))


@pytest.mark.parametrize("language", [each for each in Language if each is not Language.ENGLISH])
def test_every_translation_has_the_gaps_of_its_sentence(language: Language) -> None:
    for sentence, translation in phrases(language).items():
        assert gaps_of(sentence) == gaps_of(translation), sentence


def test_a_sentence_is_said_in_the_language_of_the_moment() -> None:
    assert say("Nothing meets the SLO.") == "Nothing meets the SLO."
    with speaking(Language.CHINESE):
        assert spoken() is Language.CHINESE
        assert say("Nothing meets the SLO.") == "没有候选配置满足 SLO。"
        assert word("met") == "满足"
    assert spoken() is Language.ENGLISH
    assert mark("as it is") == "as it is"


def test_a_language_that_there_is_not_is_refused() -> None:
    assert parse_language("zh") is Language.CHINESE
    with pytest.raises(ConfigError, match="--lang 'fr': there are en, zh"):
        parse_language("fr")


@pytest.mark.parametrize("name", ["improved", "nothing_meets", "front_answered", "undecided", "empty"])
def test_a_chinese_report_has_no_english_sentence_left(name: str) -> None:
    with speaking(Language.CHINESE):
        text, page = answer_text(getattr(made, name)()), render_report(getattr(made, name)())
    assert '<html lang="zh">' in page
    assert not re.search(r"\b(the|candidate|baseline|launches)\b", text), text
