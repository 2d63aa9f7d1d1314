from pathlib import Path

import pytest

from autotune.document import Frozen, read_document, to_yaml
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


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    assert "file.yaml:2: many: key given twice" in _problems(tmp_path, "many: [1]\nmany: [2]\n")


@pytest.mark.parametrize(
    ("text", "expected"), [("a: [1", "is not YAML"), ("", "is empty"), ("\tx", "is not YAML")]
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
