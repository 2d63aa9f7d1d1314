"""The command line of `sglang serve` 0.5.23: what it accepts, and its own words for what it does not.

In: argv. Out: the flags that were given, by name (dashes kept, no leading dashes), or a BadArgumentError
with argparse's usage and error line. Flags that the simulator models are declared here; the others are in
`sglang_arguments.yaml` and have no effect. Reads package data, and the file that --config names.
"""

import argparse
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from autotune.document import Frozen, read_document
from autotune.errors import ConfigError
from autotune.space import FlagValue

_PROGRAM = "sglang serve"
_POLICIES = (
    "lpm",
    "random",
    "fcfs",
    "dfs-weight",
    "lof",
    "priority",
    "routing-key",
    "hrrn",
    "shortest-prefill-first",
)
_WORDS = ("host", "dist-init-addr", "served-model-name", "config")
_INTEGERS = (
    "chunked-prefill-size",
    "max-running-requests",
    "max-queued-requests",
    "max-total-tokens",
    "max-prefill-tokens",
    "prefill-max-requests",
    "prefill-decode-interval",
    "prefill-decode-interval-min-bs",
    "cuda-graph-max-bs-decode",
    "attn-dp-size",
    "nnodes",
    "node-rank",
    "dist-timeout",
    "port",
    "page-size",
    "context-length",
    "decode-log-interval",
    "random-seed",
    "stream-interval",
    "pp-max-micro-batch-size",
)
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "model-path": ("model",),
    "tp-size": ("tensor-parallel-size",),
    "pp-size": ("pipeline-parallel-size",),
    "dp-size": ("data-parallel-size",),
}
_NUMBERS = ("mem-fraction-static", "schedule-conservativeness")
_SWITCHES = (
    "enable-mixed-chunk",
    "disable-radix-cache",
    "enable-dp-attention",
    "disable-cuda-graph",
    "disable-decode-cuda-graph",
    "disable-prefill-cuda-graph",
    "enable-metrics",
    "incremental-streaming-output",
    "skip-server-warmup",
)
_GRAPH_BACKENDS = ("full", "breakable", "disabled")


class BadArgumentError(Exception):
    """The engine would refuse these arguments; `line` is its decisive line, `usage` comes before it."""

    def __init__(self, line: str, usage: str = "", exit_code: int = 2) -> None:
        self.line = line
        self.usage = usage
        self.exit_code = exit_code
        super().__init__(line)


class _Inert(Frozen):
    switches: tuple[str, ...]
    paired_switches: tuple[str, ...]
    integers: tuple[str, ...]
    numbers: tuple[str, ...]
    words: tuple[str, ...]
    lists: tuple[str, ...]
    choices: dict[str, tuple[str, ...]]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadArgumentError(f"{self.prog}: error: {message}", self.format_usage())


def parse_arguments(argv: Sequence[str]) -> dict[str, FlagValue]:
    """Return the flags given on a command line; the words before the first flag (the command) are ignored.

    Raises:
        BadArgumentError: argparse refuses the command line (exit code 2).
    """
    flags = _without_command(argv)
    given = vars(_parser().parse_args([*_configured(flags), *flags]))
    return {
        name.replace("_", "-"): tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
    }


def to_argv(flags: Mapping[str, FlagValue]) -> list[str]:
    """Return the words that set the flags; a false switch is left out."""
    words: list[str] = []
    for name, value in flags.items():
        match value:
            case False:
                continue
            case True:
                words += [f"--{name}"]
            case tuple():
                words += [f"--{name}", *map(str, value)]
            case _:
                words += [f"--{name}", str(value)]
    return words


def _without_command(argv: Sequence[str]) -> list[str]:
    first = next((index for index, word in enumerate(argv) if word.startswith("--")), len(argv))
    return list(argv[first:])


def _configured(flags: Sequence[str]) -> list[str]:
    """Return the words of the file that --config names; what stands on the command line comes after it."""
    if "--config" not in flags[:-1]:
        return []
    path = Path(flags[flags.index("--config") + 1])
    try:
        data = read_document(path).data
    except ConfigError as error:
        raise BadArgumentError(f"ValueError: {error}", exit_code=1) from error
    if not isinstance(data, dict):
        raise BadArgumentError(f"ValueError: {path} must contain a dictionary at root level", exit_code=1)
    settings = {str(name).replace("_", "-"): value for name, value in data.items() if value is not None}
    return to_argv(
        {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    )


@functools.cache
def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=_PROGRAM, argument_default=argparse.SUPPRESS)
    _add_modelled(parser)
    _add_inert(parser)
    return parser


def _add(parser: argparse.ArgumentParser, name: str, **options: Any) -> None:
    spellings = (f"--{each}" for each in (name, *_ALIASES.get(name, ())))
    parser.add_argument(*spellings, dest=name.replace("-", "_"), **options)


def _add_modelled(parser: argparse.ArgumentParser) -> None:
    _add(parser, "model-path", required=True)
    for name in ("tp-size", "pp-size", "dp-size", *_INTEGERS):
        _add(parser, name, type=int)
    for name in _NUMBERS:
        _add(parser, name, type=float)
    for name in _WORDS:
        _add(parser, name)
    for name in _SWITCHES:
        _add(parser, name, action="store_true")
    _add(parser, "schedule-policy", choices=_POLICIES)
    for stage in ("decode", "prefill"):
        _add(parser, f"cuda-graph-backend-{stage}", choices=_GRAPH_BACKENDS)


def _add_inert(parser: argparse.ArgumentParser) -> None:
    inert = read_document(Path(__file__).parent / "sglang_arguments.yaml").to_model(_Inert)
    for name in inert.switches:
        _add(parser, name, action="store_true")
    for name in inert.paired_switches:
        _add(parser, name, action=argparse.BooleanOptionalAction)
    for name in inert.integers:
        _add(parser, name, type=int)
    for name in inert.numbers:
        _add(parser, name, type=float)
    for name in inert.words:
        _add(parser, name)
    for name in inert.lists:
        _add(parser, name, nargs="*")
    for name, choices in inert.choices.items():
        _add(parser, name, choices=choices)
