import json

import pytest

from autotune.bench.target import COMMON_VOCABULARY, find_target
from autotune.errors import ConfigError, InfrastructureError
from autotune.load.workload import Wire
from tests.support.gateway import KEY, Gateway, running
from tests.support.ports import free_port


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_KEY", KEY)


def test_a_gateway_is_used_with_its_key_and_its_only_model() -> None:
    with running(Gateway()) as gateway:
        target = find_target(f"{gateway.url}/v1/", api_key_env="GATEWAY_KEY")
    assert (target.base_url, target.model, target.context_tokens) == (gateway.url, "m", 4096)
    assert (target.is_sglang, target.wire, target.vocabulary_size) == (
        False,
        Wire.COMPLETIONS,
        COMMON_VOCABULARY,
    )
    assert KEY not in repr(target)
    target.flush()


def test_a_wrong_or_missing_key_is_told_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Gateway(key="another")) as gateway:
        for variable in (None, "GATEWAY_KEY"):
            with pytest.raises(ConfigError, match="HTTP 401: give the environment variable") as caught:
                find_target(gateway.url, api_key_env=variable)
            assert KEY not in str(caught.value)
        monkeypatch.delenv("GATEWAY_KEY")
        with pytest.raises(ConfigError, match="GATEWAY_KEY is not set"):
            find_target(gateway.url, api_key_env="GATEWAY_KEY")


def test_a_model_is_named_where_there_are_several_or_none() -> None:
    models = [{"id": "llama", "max_model_len": None}, {"id": "qwen"}, {"name": 3}, 4]
    with running(Gateway(key=None, models=models)) as gateway:  # type: ignore[arg-type]  # a bad list on purpose
        with pytest.raises(ConfigError, match="It serves: llama, qwen"):
            find_target(gateway.url)
        with pytest.raises(ConfigError, match="Did you mean 'qwen'"):
            find_target(gateway.url, model="qwenn")
        assert find_target(gateway.url, model="qwen", vocabulary_size=99).vocabulary_size == 99
    for pages in ({"/v1/models": b"<html>"}, {"/v1/models": b"[]"}):
        with running(Gateway(key=None, pages=pages)) as gateway:
            with pytest.raises(ConfigError, match="It lists no models"):
                find_target(gateway.url)
            assert find_target(gateway.url, model="any").model == "any"


def test_sglang_is_known_by_its_own_pages() -> None:
    pages = {
        "/server_info": json.dumps({"internal_states": []}).encode(),
        "/model_info": json.dumps({"vocab_size": 2048}).encode(),
    }
    with running(Gateway(key=None, pages=pages)) as gateway:
        target = find_target(gateway.url)
        assert (target.is_sglang, target.wire, target.vocabulary_size) == (True, Wire.GENERATE, 2048)
    with running(Gateway(key=None, pages={"/server_info": b"{}"})) as gateway:
        assert not find_target(gateway.url).is_sglang


@pytest.mark.parametrize(
    ("owner", "is_engine"), [("vllm", True), ("sglang", True), ("openai", False), (3, False)]
)
def test_an_engine_behind_a_plain_interface_is_known_by_the_owner_of_its_model(
    owner: object, is_engine: bool
) -> None:
    with running(Gateway(key=None, models=[{"id": "m", "owned_by": owner}])) as gateway:
        assert find_target(gateway.url).is_engine is is_engine


def test_the_simulator_is_known_by_what_its_pages_say() -> None:
    for states, is_simulated in (([{"simulated": True}], True), ([{}], False), (["odd"], False)):
        pages = {
            "/server_info": json.dumps({"internal_states": states}).encode(),
            "/model_info": b'{"vocab_size": 9}',
        }
        with running(Gateway(key=None, pages=pages)) as gateway:
            target = find_target(gateway.url)
            assert (target.is_sglang, target.is_simulated) == (True, is_simulated)


@pytest.mark.parametrize("url", ["http://user:secret@h", "http://h/v1?key=secret", "http://h#secret"])
def test_a_key_in_the_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="--api-key-env") as caught:
        find_target(url)
    assert "secret" not in str(caught.value)


def test_a_server_that_cannot_be_reached_is_told() -> None:
    with pytest.raises(InfrastructureError, match="no answer"):
        find_target(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ConfigError, match="not an http or https URL"):
        find_target("localhost:30000")
