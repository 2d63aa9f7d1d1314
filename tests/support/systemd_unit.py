"""What systemd makes of a unit file: a reader after its manual, and the words of its own dump.

Written after systemd 252: systemd.syntax(7) for lines and quotes, systemd.unit(5) for specifiers (`%%`),
systemd.service(5) for `$$`. Everything else that starts with `%` or `$` is refused: no test means it.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}
_CODES = {"x": 2, "u": 4, "U": 8}


def settings(text: str) -> dict[str, list[str]]:
    """Return the raw values of every key."""
    found: dict[str, list[str]] = {}
    lines = [line for line in text.split("\n") if not line.lstrip().startswith(("#", ";"))]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).split("\n"):
        key, equals, value = line.partition("=")
        if equals and not line.startswith("["):
            found.setdefault(key.strip(), []).append(value.strip())
    return found


def words(value: str) -> list[str]:
    """Return the words that a program gets from a command."""
    return [_substituted(word) for word in _split(value)]


def dumped(path: Path) -> list[list[str]]:
    """Let systemd load the unit, complain about nothing, and tell the words of its commands."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)],
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "debug"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    complaints = [line for line in done.stderr.splitlines() if line.startswith(f"{path}:")]
    assert complaints == []
    lines = re.findall(r"^\s*Command Line: (.*)$", done.stdout, re.MULTILINE)
    return [[word.replace("$$", "$") for word in _shell_words(line)] for line in lines]


def _shell_words(line: str) -> list[str]:
    """Split a dumped command, in which systemd writes what cannot be seen as C does."""
    plain = re.sub(r"\\([abfnrtv])", lambda found: _ESCAPES[found[1]], line.replace("\\\\", "\0"))
    plain = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), plain)
    plain = re.sub(r"\\([$`])", r"\1", plain)  # the one thing that shlex does not undo in double quotes
    return shlex.split(plain.replace("\0", "\\\\"))


def _split(value: str) -> list[str]:
    found: list[str] = []
    rest = value
    while rest := rest.lstrip(" \t"):
        word, rest = _quoted(rest[1:]) if rest[0] == '"' else _bare(rest)
        assert rest[:1] in {"", " ", "\t"}
        found.append(word)
    return found


def _bare(text: str) -> tuple[str, str]:
    found = re.match(r"[^ \t]+", text)
    assert found is not None
    assert not set(found[0]) & set("\"'\\;%$")
    return found[0], text[found.end() :]


def _quoted(text: str) -> tuple[str, str]:
    word = ""
    while not text.startswith('"'):
        character, text = text[0], text[1:]
        assert character not in "\n\r\0"
        if character == "\\":
            character, text = _escaped(text)
        word += character
    return word, text[1:]


def _escaped(text: str) -> tuple[str, str]:
    kind, rest = text[0], text[1:]
    if kind in _CODES:
        length = _CODES[kind]
        return chr(int(rest[:length], 16)), rest[length:]
    return _ESCAPES.get(kind, kind), rest


def _substituted(word: str) -> str:
    for sign in "%$":
        assert sign not in word.replace(2 * sign, "")
        word = word.replace(2 * sign, sign)
    return word
