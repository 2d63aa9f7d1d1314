"""SGLang's own configuration file: the flags that all ranks share, and the command of each node. Pure.

In: a `Selection`. Out: `sglang.yaml` for `--config` and one launch script per node. Invariant: file and
command together give the words of the launch plan; what the file cannot say stays on the command.
Source of the file's rules: sglang 0.5.23, srt/utils/server_args_config_parser.py: a switch is `true` if the
parser stores true for it, a list is several words, everything else is one word, and the command wins.
"""

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autotune.document import dump_yaml
from autotune.engine.catalogue import Catalogue
from autotune.engine.dialects import dialect_of
from autotune.engine.plan import RankPlan
from autotune.export.file import ExportFile, comments
from autotune.export.selection import Selection

_CONFIG_NAME = "sglang.yaml"


@dataclass(frozen=True)
class _Option:
    """A flag and the words that belong to it, as they stand in an argv."""

    words: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.words[0].removeprefix("--")

    def fits_file(self, catalogue: Catalogue) -> bool:
        """Whether the configuration file can say the same."""
        if "=" in self.name:
            return False
        spec = catalogue.flags.get(self.name)
        is_stored_true = spec is not None and spec.type == "bool" and spec.negation is None
        return len(self.words) > 1 or is_stored_true

    @property
    def value(self) -> object:
        """What the file says."""
        values = [_typed(word) for word in self.words[1:]]
        return True if not values else values[0] if len(values) == 1 else values


def config_files(selection: Selection) -> tuple[ExportFile, ...]:
    """Return `sglang.yaml` and `launch-NODE.sh` for every node."""
    plan, space = selection.plan, selection.history.study.space
    dialect = dialect_of(space.engine)
    command = space.command or dialect.command
    options = [_options(rank.argv[len(command) :]) for rank in plan.ranks]
    shared = _shared(options, dialect.catalogue(space.version))
    head = selection.head
    values = dump_yaml({option.name: option.value for option in shared})
    return (
        ExportFile(_CONFIG_NAME, comments(head) + values),
        *(
            _script(
                rank, command, [option for option in own if option not in shared], head, plan.environment_from
            )
            for rank, own in zip(plan.ranks, options, strict=True)
        ),
    )


def _options(words: Sequence[str]) -> list[_Option]:
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(word)
    return [_Option(tuple(group)) for group in groups]


def _shared(options: Sequence[Sequence[_Option]], catalogue: Catalogue) -> list[_Option]:
    """Return what the file can say and every rank is told."""
    return [
        option
        for option in options[0]
        if option.fits_file(catalogue) and all(option in rank for rank in options)
    ]


def _typed(word: str) -> object:
    """Return a word as a number if that is printed exactly so: the engine makes it a word again."""
    for kind in (int, float):
        try:
            number = kind(word)
        except ValueError:
            continue
        if str(number) == word and math.isfinite(number):
            return number
    return word


def _script(
    rank: RankPlan,
    command: Iterable[str],
    options: Iterable[_Option],
    head: Iterable[str],
    environment_from: Iterable[str],
) -> ExportFile:
    settings = [f"{name}={value}" for name, value in rank.environment]
    start = shlex.join([*(["env", *settings] if settings else []), *command])
    rest = [shlex.join(option.words) for option in options]
    words = " \\\n  ".join([f'exec {start} --config "$(dirname "$0")/{_CONFIG_NAME}"', *rest])
    notes = (
        *head,
        f"Rank {rank.rank}, for {rank.node.name} ({rank.node.address}).",
        *(f"{name} is taken from the environment of this command." for name in environment_from),
    )
    text = f"#!/bin/sh\n{comments(notes)}set -eu\n\n{words}\n"
    return ExportFile(f"launch-{rank.node.name}.sh", text, is_executable=True)
