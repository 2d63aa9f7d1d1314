"""One systemd unit per node, which runs the container in the foreground, or the command without one. Pure.

In: a `Selection`. Out: unit files. Invariant: systemd gives the program exactly the words of the plan; in a
word of a unit `%` and `$` stand twice, and what it would take for anything but text is escaped.
Sources: systemd 252: man systemd.service (command lines), systemd.syntax (quoting), systemd.unit (%).
"""

import re
from collections.abc import Iterable, Sequence

from autotune.export.container import Container, containers, rank_advice
from autotune.export.docker import run_options
from autotune.export.file import ExportFile, comments
from autotune.export.selection import Selection

_PLAIN = re.compile(r"[A-Za-z0-9_./:=,@+-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$"}
_STOP_S = 30
_LAST_OF_BYTE, _LAST_OF_PAIR = 0x7F, 0xFFFF


def systemd_files(selection: Selection) -> tuple[ExportFile, ...]:
    """Return `ENGINE-STUDY-NODE.service` for every node."""
    if selection.history.study.space.image is None:
        return tuple(_plain_unit(selection, rank) for rank in range(len(selection.plan.ranks)))
    return tuple(_container_unit(selection, container) for container in containers(selection))


def unit_words(words: Iterable[str]) -> str:
    """Return words as they stand in a command of a unit."""
    return " ".join(map(_word, words))


def _word(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else f'"{"".join(map(_character, text))}"'


def _character(character: str) -> str:
    """Return a character inside double quotes; a line's end or what is invisible as its code."""
    code = ord(character)
    if character in _ESCAPES or character.isprintable():
        return _ESCAPES.get(character, character)
    if code <= _LAST_OF_BYTE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _LAST_OF_PAIR else f"\\U{code:08x}"


def _container_unit(selection: Selection, container: Container) -> ExportFile:
    lines = [
        ("docker", "run"),
        ("--rm", "--init"),
        ("--name", container.name),
        *run_options(container),
        (container.image, *container.argv),
    ]
    service = [
        f"ExecStartPre=-docker rm --force {container.name}",
        _command(lines),
        f"ExecStop=docker stop --time {_STOP_S} {container.name}",
    ]
    needs = ["Requires=docker.service", "After=docker.service"]
    return _unit(selection, container.rank, needs, service)


def _plain_unit(selection: Selection, rank: int) -> ExportFile:
    plan = selection.plan.ranks[rank]
    lines = [
        ("/usr/bin/env",),
        *((f"{name}={value}",) for name, value in plan.environment),
        plan.argv,
    ]
    service = ["# Runs as root unless a line User= is added.", _command(lines), "LimitMEMLOCK=infinity"]
    return _unit(selection, rank, [], service)


def _command(lines: Iterable[Sequence[str]]) -> str:
    return "ExecStart=" + " \\\n  ".join(map(unit_words, lines))


def _unit(selection: Selection, rank: int, needs: Iterable[str], service: Iterable[str]) -> ExportFile:
    study = selection.history.study
    nodes, secrets = study.space.nodes, study.space.environment_from
    name = f"{study.space.engine}-{study.name}-{nodes[rank].name}"
    folder = f"/etc/{study.space.engine}-{study.name}"
    notes = [
        *rank_advice(selection, rank),
        "Restart=always: a service comes back by itself, a trial must not.",
        *(f"{secret} is taken from {folder}/secrets.env, a line {secret}=..." for secret in secrets),
    ]
    lines = [
        "[Unit]",
        f"Description={study.space.engine} {study.name}, rank {rank} of {len(nodes)}",
        "Wants=network-online.target",
        "After=network-online.target",
        *needs,
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        *([f"EnvironmentFile={folder}/secrets.env"] if secrets else []),
        *service,
        "Restart=always",
        "RestartSec=10",
        f"TimeoutStopSec={2 * _STOP_S}",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return ExportFile(f"{name}.service", comments(notes) + "\n".join(lines) + "\n")
