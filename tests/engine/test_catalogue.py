import json
import os
from pathlib import Path

import pytest

from autotune.engine.catalogue import FOLDERS_VARIABLE, Catalogue, FlagSpec, Knowledge, find_catalogue
from autotune.engine.sglang import SGLANG
from autotune.errors import ConfigError
from autotune.space import FlagValue


@pytest.fixture(params=["0.5.16", "0.5.23"])
def catalogue(request: pytest.FixtureRequest) -> Catalogue:
    return SGLANG.catalogue(request.param)


def test_a_known_version_has_an_exact_catalogue_of_hundreds_of_flags(catalogue: Catalogue) -> None:
    assert catalogue.is_exact
    assert len(catalogue.flags) > 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chunked-prefill-size", 8192),
        ("chunked-prefill-size", -1),
        ("mem-fraction-static", 0.85),
        ("mem-fraction-static", 1),
        ("schedule-policy", "lpm"),
        ("enable-mixed-chunk", True),
        ("enable-mixed-chunk", False),
        ("cuda-graph-bs-decode", (1, 2, 4)),
        ("bucket-e2e-request-latency", ("0.5", 1)),
        ("schedule-conservativeness", 0),
        ("max-lora-chunk-size", 32),
        ("moe-a2a-backend", "none"),
        ("trust-remote-code", True),
    ],
)
def test_values_that_the_engine_takes_pass(catalogue: Catalogue, name: str, value: FlagValue) -> None:
    if name == "bucket-e2e-request-latency":
        value = (1, 2)
    assert catalogue.check(name, value) is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max-runing-requests", 8, "Did you mean 'max-running-requests'?"),
        ("max_running_requests", 8, "Did you mean 'max-running-requests'?"),
        ("zzzz", 8, "has no flag 'zzzz'."),
        ("tensor-parallel-size", 8, "another spelling of 'tp-size'"),
        ("tp", 8, "short for 'tp-size'"),
        ("num-continuous-decode-steps", 4, "changes nothing"),
        ("port", 30000, "the key `port` of the search space"),
        ("schedule-policy", "priority", "Unknown schedule_policy"),
        ("schedule-policy", "fcsf", "Did you mean 'fcfs'?"),
        ("schedule-policy", True, "write it in quotes"),
        ("chunked-prefill-size", -2, "must be at least -1"),
        ("chunked-prefill-size", 1.5, "takes a whole number"),
        ("chunked-prefill-size", "8k", "takes a whole number"),
        ("chunked-prefill-size", True, "takes a whole number"),
        ("mem-fraction-static", 1.2, "must be at most 1"),
        ("mem-fraction-static", "most", "takes a number"),
        ("schedule-conservativeness", -0.1, "must be at least 0"),
        ("enable-mixed-chunk", "yes", "takes true or false"),
        ("cuda-graph-bs-decode", 8, "takes a list, write [8]"),
        ("cuda-graph-bs-decode", (1, "two"), "takes a whole number, not 'two'"),
        ("enable-mla", True, "Did you mean"),
        ("enable-ep-moe", True, "use ep-size with moe-a2a-backend"),
    ],
)
def test_what_is_wrong_with_a_flag_is_said_with_the_right_word(
    catalogue: Catalogue, name: str, value: FlagValue, words: str
) -> None:
    message = catalogue.check(name, value)
    assert message is not None
    assert words in message


def test_a_flag_that_only_an_older_version_has_tells_what_became_of_it() -> None:
    assert SGLANG.catalogue("0.5.16").check("cuda-graph-max-bs", 64) is None
    message = SGLANG.catalogue("0.5.23").check("cuda-graph-max-bs", 64)
    assert message == "sglang 0.5.23 has no flag 'cuda-graph-max-bs': use cuda-graph-max-bs-decode"


def test_a_flag_that_only_a_newer_version_has_tells_which() -> None:
    message = SGLANG.catalogue("0.5.16").check("attn-dp-size", 8)
    assert message == "sglang 0.5.16 has no flag 'attn-dp-size': 0.5.23 has it"


def test_a_deprecated_flag_passes_with_a_warning() -> None:
    catalogue = SGLANG.catalogue("0.5.23")
    assert catalogue.check("enable-dp-attention", value=True) is None
    assert "use --attn-dp-size" in str(catalogue.warning("enable-dp-attention"))
    assert SGLANG.catalogue("0.5.16").warning("enable-dp-attention") is None
    assert catalogue.warning("no-such-flag") is None


def test_the_engines_own_field_names_lead_back_to_flags() -> None:
    catalogue = SGLANG.catalogue("0.5.16")
    assert catalogue.flag_of("fp8_gemm_runner_backend") == "fp8-gemm-backend"
    assert catalogue.flag_of("cuda_graph_max_bs_decode") == "cuda-graph-max-bs-decode"
    assert catalogue.flag_of("tp_size") == "tp-size"


@pytest.mark.parametrize(
    ("version", "nearest"),
    [
        ("0.5.22", "0.5.23"),
        ("0.5.17", "0.5.16"),
        ("0.6.0", "0.5.23"),
        ("0.4.3", "0.5.16"),
        ("main", "0.5.23"),
    ],
)
def test_an_unknown_version_gets_the_nearest_catalogue_which_says_so(version: str, nearest: str) -> None:
    catalogue = SGLANG.catalogue(version)
    assert (catalogue.version, catalogue.is_exact) == (nearest, False)


def write_catalogue(folder: Path, version: str, flags: dict[str, object]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"sglang-{version}.json"
    path.write_text(json.dumps({"engine": "sglang", "version": version, "source": "test", "flags": flags}))
    return path


def test_the_users_catalogue_is_found_beside_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_catalogue(tmp_path / "catalogues", "0.6.1", {"num-continuous-decode-steps": {"type": "int"}})
    monkeypatch.chdir(tmp_path)
    catalogue = SGLANG.catalogue("0.6.1")
    assert catalogue.is_exact
    assert "changes nothing" in str(catalogue.check("num-continuous-decode-steps", 2))


def test_the_users_catalogue_is_found_in_the_folders_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_catalogue(tmp_path / "mine", "0.6.2", {"new-flag": {"type": "int"}})
    monkeypatch.setenv(FOLDERS_VARIABLE, os.pathsep.join([str(tmp_path / "none"), str(tmp_path / "mine")]))
    assert SGLANG.catalogue("0.6.2").check("new-flag", 3) is None
    assert SGLANG.catalogue("0.5.23").check("new-flag", 3) == (
        "sglang 0.5.23 has no flag 'new-flag': 0.6.2 has it"
    )


def test_a_damaged_catalogue_is_named(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path, "1", {"flag": {"type": "colour"}})
    with pytest.raises(ConfigError, match="is no flag catalogue"):
        Catalogue.from_file(path)
    with pytest.raises(ConfigError, match=r"none\.json.*cannot be read"):
        Catalogue.from_file(tmp_path / "none.json")


def test_a_word_flag_takes_a_number_that_is_meant_as_a_word() -> None:
    assert FlagSpec(type="str").wrong_value(7) is None
    assert FlagSpec(type="str", choices=("a", "b")).wrong_value(7) is not None


def test_knowledge_of_flags_that_a_version_lacks_is_skipped() -> None:
    knowledge = Knowledge(dead={"gone": "x"}, minimum={"gone": 1}, removed={"gone": "it left"})
    catalogue = find_catalogue("sglang", "0.5.23", knowledge)
    assert "gone" not in catalogue.flags
    assert catalogue.removed["gone"] == "it left"
