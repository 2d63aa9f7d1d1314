from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, StrictBool, model_validator

from autotune.document import Frozen, Misplaced, Misplacements, read_document, refuse, to_yaml
from autotune.errors import ConfigError


class _Inner(Frozen):
    limit_s: float
    name: str = "x"


class _Outer(Frozen):
    inner: _Inner
    many: tuple[int, ...] = ()


def _problems(folder: Path, text: str) -> str:
    path = folder / "file.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_document(path).to_model(_Outer)
    return str(caught.value)


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_word(tmp_path: Path) -> None:
    message = _problems(tmp_path, "inner:\n  limit_s: 1\n  limt_s: 2\n")

    assert "file.yaml:3: inner.limt_s: unknown key" in message
    assert "Did you mean 'limit_s'?" in message


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    message = _problems(tmp_path, "inner: {limit_s: fast, name: 3}\nmany: [1, two]\n")

    assert "inner.limit_s" in message
    assert "inner.name" in message
    assert "file.yaml:2: many.1" in message
    assert "'two'" in message


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert "the key 'limit_s' is missing" in _problems(tmp_path, "inner: {}\n")


class _Worded(Frozen):
    kind: Literal["fast", "slow"] = "fast"
    share: float = Field(default=0.5, ge=0, le=1)
    pair: tuple[int, int] = (1, 2)
    some: tuple[str, ...] = Field(default=("a",), min_length=1)
    name: str = Field(default="a", min_length=1)
    is_on: StrictBool = True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: slw", "kind: must be 'fast' or 'slow' (got 'slw')\n    Did you mean 'slow'?"),
        ("share: 2", "share: must be at most 1.0 (got 2)"),
        ("share: -1", "share: must be at least 0.0 (got -1)"),
        ("share: much", "share: must be a number (got 'much')"),
        ("pair: [1]", "pair: holds too few values (got [1])"),
        ("pair: [1, 1.5]", "pair.1: must be a whole number (got 1.5)"),
        ("some: []", "some: must not be empty (got [])"),
        ("some: [3]", "some.0: must be text; write it in quotes (got 3)"),
        ("name: ''", "name: must not be empty (got '')"),
        ("is_on: 3", "is_on: must be true or false (got 3)"),
        ("wholly: other", "wholly: unknown key\n    Take it out; 'autotune schema' prints"),
    ],
)
def test_a_wrong_value_is_told_in_the_words_of_the_file(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "file.yaml").write_text(text)

    with pytest.raises(ConfigError) as caught:
        read_document(tmp_path / "file.yaml").to_model(_Worded)

    assert expected in str(caught.value)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    assert "file.yaml:2: many: key given twice" in _problems(tmp_path, "many: [1]\nmany: [2]\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "is not YAML"),
        ("", "is empty"),
        ("\tx", "is not YAML"),
        ("a: \x01", "is not YAML"),
        ("a: 2026-99-99", "is not YAML"),
    ],
)
def test_what_is_not_yaml_is_said(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in _problems(tmp_path, text)


def test_a_file_that_is_missing_or_unreadable_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_document(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_document(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_document(tmp_path / "binary")


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    assert "..." in _problems(tmp_path, f"inner: {{limit_s: {'x' * 200}}}\n")


def test_a_model_written_as_yaml_reads_back_equal(tmp_path: Path) -> None:
    model = _Outer(inner=_Inner(limit_s=1.5, name="yes: no # 'quoted'"), many=(1, 2))
    (tmp_path / "m.yaml").write_text(to_yaml(model))

    assert read_document(tmp_path / "m.yaml").to_model(_Outer) == model


class _Judged(Frozen):
    low: int
    high: int
    many: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _is_ordered(self) -> "_Judged":
        if self.low == 99:
            raise ValueError("the lot is odd")
        found = [Misplaced("negative", at=("many", i)) for i, each in enumerate(self.many) if each < 0]
        if self.high < self.low:
            found.append(Misplaced("below low", at=("high",), remedy="Raise it."))
        refuse(found)
        return self


class _Holder(Frozen):
    judged: _Judged


def _judged(folder: Path, text: str) -> tuple[str, ConfigError]:
    path = folder / "file.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_document(path).to_model(_Holder)
    return str(caught.value).replace(str(folder), ""), caught.value


def test_what_a_model_finds_wrong_as_a_whole_has_its_own_line_and_key(tmp_path: Path) -> None:
    text = "judged:\n  low: 5\n  high: 1\n  many:\n    - 1\n    - -1\n    - -2\n"

    message, error = _judged(tmp_path, text)

    assert message == (
        "/file.yaml:6: judged.many.1: negative\n"
        "/file.yaml:7: judged.many.2: negative\n"
        "/file.yaml:3: judged.high: below low\n    Raise it."
    )
    assert [problem.key for problem in error.problems] == ["judged.many.1", "judged.many.2", "judged.high"]


def test_a_single_misplaced_value_needs_no_collection() -> None:
    with pytest.raises(Misplaced, match="wrong"):
        refuse([Misplaced("wrong", at=("a",))])
    with pytest.raises(Misplacements, match=r"one\ntwo"):
        refuse([Misplaced("one", at=("a",)), Misplaced("two", at=("b",))])
    refuse([])


def test_a_whole_model_is_never_shown_as_the_value_that_is_wrong(tmp_path: Path) -> None:
    message, _ = _judged(tmp_path, "judged:\n  low: 99\n  high: 100\n")

    assert message == "/file.yaml:1: judged: the lot is odd"
