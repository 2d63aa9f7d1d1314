"""Reads what SGLang really runs with out of its /server_info page.

In: the page's JSON (0.5.16 and 0.5.23 differ only in which arguments there are). Out: `EffectiveFlags`.
Pure, but for the catalogue's file.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from autotune.engine.dialect import EffectiveFlags
from autotune.engine.sglang.flags import load_catalogue
from autotune.space import FlagValue

# Beside the arguments the page has the scheduler's state, and it shows secrets in clear.
_NO_ARGUMENTS = {
    "status",
    "version",
    "launch_command",
    "max_total_num_tokens",
    "max_req_input_len",
    "internal_states",
    "frontend",
    "kv_events",
}
_SECRETS = {"api_key", "admin_api_key", "ssl_keyfile_password", "watermark_key", "watermark_key_b"}


def parse_effective(info: Mapping[str, Any]) -> EffectiveFlags:
    """Return the resolved value of every scalar argument, by flag name; also by its deprecated spellings.

    Where max-running-requests or a graph's limit was left to the engine, what it chose stands in; with
    attention data parallelism the running limit is that of one rank.
    """
    version = _text(info.get("version"))
    catalogue = load_catalogue(version or "")
    states = info.get("internal_states")
    limit = _whole(_first(states).get("effective_max_running_requests_per_dp"))
    flags = {
        catalogue.flag_of(field): _scalar(value)
        for field, value in info.items()
        if field not in _NO_ARGUMENTS | _SECRETS and not field.startswith("_") and _is_argument(value)
    }
    if flags.get("max-running-requests") is None and limit is not None:
        flags["max-running-requests"] = limit
    for name, value in _graph_flags(info.get("cuda_graph_config")):
        flags[name] = value if flags.get(name) is None else flags[name]
    tokens = _whole(info.get("max_total_num_tokens"))
    flags |= catalogue.respelled(flags)
    return EffectiveFlags(flags=flags, kv_tokens=tokens, running_limit=limit, version=version)


def _graph_flags(config: object) -> Iterator[tuple[str, FlagValue]]:
    """Yield what was chosen for each phase's CUDA graphs; without graphs there is no limit."""
    phases = config if isinstance(config, dict) else {}
    for phase in ("decode", "prefill"):
        chosen = phases.get(phase, {})
        backend, limit = chosen.get("backend"), chosen.get("max_bs")
        if backend is not None:
            yield f"cuda-graph-backend-{phase}", backend
        if limit is not None and backend != "disabled":
            yield f"cuda-graph-max-bs-{phase}", limit


def _is_argument(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str) or _is_plain_list(value)


def _is_plain_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, int | str) for item in value)


def _scalar(value: Any) -> FlagValue | None:
    return tuple(value) if isinstance(value, list) else value


def _first(states: object) -> Mapping[str, object]:
    return states[0] if isinstance(states, list) and states and isinstance(states[0], dict) else {}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
