"""The command line of one SGLang rank: one word per entry, no shell in mind, always in the same order.

In: a search space, a candidate, a rank and its ports. Out: argv. Pure.
"""

from collections.abc import Iterator, Mapping

from autotune.engine.catalogue import FlagSpec
from autotune.engine.sglang.flags import LaunchFlags
from autotune.errors import ConfigError, Problem
from autotune.space import Candidate, FlagValue, LauncherKind, SearchSpace

COMMAND = ("python3", "-m", "sglang.launch_server")


def render_argv(
    space: SearchSpace, candidate: Candidate, *, rank: int, port: int, rendezvous_port: int
) -> tuple[str, ...]:
    """Return the complete argv of a rank; a flag of the candidate replaces the fixed one.

    Ranks started as processes share one machine, so each serves on a port of its own: `port + rank`.

    Raises:
        ConfigError: a flag is false that this version cannot switch off.
    """
    flags = LaunchFlags.of(space, candidate.to_dict())
    return (
        *(space.command or COMMAND),
        *("--model-path", space.model),
        *_served_at(space, rank, port),
        *_place_among_nodes(space, rank, rendezvous_port),
        *_words(flags.flags, flags.catalogue.flags),
    )


def _served_at(space: SearchSpace, rank: int, port: int) -> tuple[str, ...]:
    if space.launcher is LauncherKind.PROCESS:
        return ("--host", space.nodes[rank].address, "--port", str(port + rank))
    return ("--host", "0.0.0.0", "--port", str(port))  # noqa: S104 - inside a container


def _place_among_nodes(space: SearchSpace, rank: int, rendezvous_port: int) -> tuple[str, ...]:
    if len(space.nodes) == 1:
        return ()
    meeting_point = f"{space.nodes[0].address}:{rendezvous_port}"
    return (
        *("--nnodes", str(len(space.nodes))),
        *("--node-rank", str(rank)),
        *("--dist-init-addr", meeting_point),
    )


def _words(flags: Mapping[str, FlagValue], specs: Mapping[str, FlagSpec]) -> Iterator[str]:
    for name, value in flags.items():
        match value:
            case bool():
                yield from _switch(name, specs.get(name), is_on=value)
            case tuple():
                yield from (f"--{name}", *map(str, value))
            case str() if value.startswith("-"):
                yield f"--{name}={value}"  # argparse would take the value for a flag
            case _:
                yield from (f"--{name}", str(value))


def _switch(name: str, spec: FlagSpec | None, *, is_on: bool) -> tuple[str, ...]:
    if is_on:
        return (f"--{name}",)
    if spec is None or (spec.negation is None and spec.default is not True):
        return ()
    if spec.negation is None:
        raise ConfigError([Problem("is on by default and SGLang has no flag to switch it off", key=name)])
    return (f"--{spec.negation}",)
