"""What an OpenAI-compatible server says of itself before any load: its models and their context.

In: a base URL and headers. Out: `ServedModel`s. Talks HTTP, one GET of /v1/models. Headers are never shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import httpx

from autotune.errors import ConfigError, InfrastructureError

_PATIENCE_S = 20.0
_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model's name, and how many tokens a prompt and its answer may have together if that is told.

    `owner`: engines name themselves here ("sglang", "vllm").
    """

    name: str
    context_tokens: int | None
    owner: str | None = None


def served_models(base_url: str, headers: Mapping[str, str]) -> tuple[ServedModel, ...]:
    """Return the models that a server lists, none if it has no such page.

    Raises:
        ConfigError: the server wants another API key.
        InfrastructureError: it cannot be reached.
    """
    try:
        with httpx.Client(trust_env=False, timeout=_PATIENCE_S, headers=dict(headers)) as client:
            response = client.get(f"{base_url}/v1/models")
    except httpx.HTTPError as error:
        raise InfrastructureError(f"{base_url}: no answer: {type(error).__name__}: {error}") from error
    if response.status_code in _REFUSALS:
        raise ConfigError(
            f"{base_url}: HTTP {response.status_code}: give the environment variable that holds its API key "
            "with --api-key-env"
        )
    return _models(response) if response.is_success else ()


def _models(response: httpx.Response) -> tuple[ServedModel, ...]:
    try:
        body = response.json()
    except ValueError:
        return ()
    listed = body.get("data") if isinstance(body, dict) else None
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    return tuple(
        ServedModel(
            row["id"],
            context if isinstance(context := row.get("max_model_len"), int) else None,
            owner if isinstance(owner := row.get("owned_by"), str) else None,
        )
        for row in rows
        if isinstance(row.get("id"), str)
    )
