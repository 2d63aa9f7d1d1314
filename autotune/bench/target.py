"""What is benchmarked: a URL, its model, and how requests reach it.

In: a URL and what the user says of it. Out: a `Target`. Talks to the server: its list of models and, if it is
an SGLang without a gateway in front, its own pages.
Invariant: an API key comes from the environment, goes out as a header, and is neither stored nor shown.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from autotune.engine.dialects import dialect_of
from autotune.engine.http_api import EngineApi, NoAnswerError
from autotune.errors import ConfigError, did_you_mean
from autotune.load.probe import ServedModel, served_models
from autotune.load.workload import Wire

_ENGINES = ("sglang", "vllm")
COMMON_VOCABULARY = 32_000
"""Ids below it exist in practically every model; used where a server does not tell the size."""


@dataclass(frozen=True)
class Target:
    """A server as requests see it.

    `is_sglang`: it has SGLang's own pages (to flush its cache). `is_engine`: it is known to take what SGLang
    and vLLM take beyond OpenAI's interface; a strict gateway may refuse a request for it. `is_simulated`: it
    is the simulator, which says so on its pages.
    """

    base_url: str
    model: str
    context_tokens: int | None
    vocabulary_size: int
    is_sglang: bool
    is_engine: bool = True
    is_simulated: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def wire(self) -> Wire:
        """The endpoint that takes prompts of exact length without a tokenizer."""
        return Wire.GENERATE if self.is_sglang else Wire.COMPLETIONS

    def flush(self) -> None:
        """Empty the prefix cache, if this server lets us; prompts of different points differ in any case."""
        if self.is_sglang:
            with EngineApi(self.base_url, dialect_of("sglang")) as api:
                try:
                    api.flush_cache()
                except NoAnswerError:
                    return


def find_target(
    url: str, *, model: str | None = None, api_key_env: str | None = None, vocabulary_size: int | None = None
) -> Target:
    """Look at a server.

    Raises:
        ConfigError: no such environment variable, no such model, or several and none was named.
        InfrastructureError: the server cannot be reached.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url!r} is not an http or https URL")
    if any(mark in url.split("//")[1] for mark in "@?#"):
        raise ConfigError("the URL ends with its path here, since it is stored; a key goes by --api-key-env")
    base_url = url.rstrip("/").removesuffix("/v1")
    headers = _authorization(api_key_env)
    served = _chosen(served_models(base_url, headers), model, base_url)
    pages = _sglang(base_url)
    return Target(
        base_url=base_url,
        model=served.name,
        context_tokens=served.context_tokens,
        vocabulary_size=vocabulary_size or pages.vocabulary_size or COMMON_VOCABULARY,
        is_sglang=pages.are_there,
        is_engine=pages.are_there or served.owner in _ENGINES,
        is_simulated=pages.are_simulated,
        headers=headers,
    )


def _authorization(variable: str | None) -> Mapping[str, str]:
    if variable is None:
        return {}
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"--api-key-env: the environment variable {variable} is not set")
    return {"Authorization": f"Bearer {key}"}


def _chosen(models: tuple[ServedModel, ...], asked: str | None, base_url: str) -> ServedModel:
    names = [each.name for each in models]
    if asked is not None:
        found = next((each for each in models if each.name == asked), None)
        if models and found is None:
            raise ConfigError(
                f"{base_url} serves no model {asked!r}. {did_you_mean(asked, names) or _list(names)}"
            )
        return found or ServedModel(asked, None)
    if len(models) != 1:
        told = _list(names) if models else "It lists no models."
        raise ConfigError(f"{base_url}: name the model with --model. {told}")
    return models[0]


def _list(names: list[str]) -> str:
    return f"It serves: {', '.join(sorted(names)[:20])}."


@dataclass(frozen=True)
class _Pages:
    """SGLang's own pages: whether they are there, whether the simulator serves them, the vocabulary."""

    are_there: bool = False
    are_simulated: bool = False
    vocabulary_size: int | None = None


def _sglang(base_url: str) -> _Pages:
    with EngineApi(base_url, dialect_of("sglang")) as api:
        try:
            states = api.info().get("internal_states")
            if not isinstance(states, list):
                return _Pages()
            are_simulated = any(isinstance(state, dict) and bool(state.get("simulated")) for state in states)
            return _Pages(True, are_simulated, api.vocabulary_size())  # noqa: FBT003 - its first field
        except NoAnswerError:
            return _Pages()
