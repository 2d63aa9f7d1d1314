from typing import Any

from autotune.engine.sglang import SGLANG


def page(version: str, **fields: object) -> dict[str, Any]:
    return {
        "model_path": "/models/tiny",
        "tp_size": 1,
        "mem_fraction_static": 0.83,
        "chunked_prefill_size": 8192,
        "schedule_policy": "fcfs",
        "enable_mixed_chunk": False,
        "max_running_requests": None,
        "fp8_gemm_runner_backend": "auto",
        "cuda_graph_bs_decode": None,
        "cuda_graph_backend_prefill": None,
        "cuda_graph_max_bs_decode": None,
        "cuda_graph_config": {
            "decode": {"backend": "full", "max_bs": 256, "bs": [1, 2, 4]},
            "prefill": {"backend": "disabled", "max_bs": 8192},
        },
        "api_key": "secret",
        "status": "ready",
        "max_total_num_tokens": 410620,
        "max_req_input_len": 131066,
        "internal_states": [{"effective_max_running_requests_per_dp": 2048, "last_gen_throughput": 154.1}],
        "version": version,
        **fields,
    }


def test_the_page_of_the_older_version_is_read() -> None:
    effective = SGLANG.parse_effective(page("0.5.16", kv_events=None))
    assert (effective.version, effective.kv_tokens, effective.running_limit) == ("0.5.16", 410620, 2048)
    assert effective.flags["mem-fraction-static"] == 0.83
    assert effective.flags["enable-mixed-chunk"] is False
    assert effective.flags["fp8-gemm-backend"] == "auto"


def test_the_page_of_the_newer_version_is_read() -> None:
    startup = {"load_weight": 0.01, "cuda_graph": {"decode": 0.0}}
    effective = SGLANG.parse_effective(
        page(
            "0.5.23",
            launch_command="--model-path x",
            startup_time=startup,
            _radix_explicit=True,
            attn_dp_size=1,
        )
    )
    assert effective.flags["attn-dp-size"] == 1
    assert not {"launch-command", "startup-time", "status", "version", "cuda-graph-config"} & set(
        effective.flags
    )
    assert not any(name.startswith("-") for name in effective.flags)


def test_a_running_limit_that_the_engine_chose_is_shown_as_the_flag() -> None:
    assert SGLANG.parse_effective(page("0.5.23")).flags["max-running-requests"] == 2048
    asked = SGLANG.parse_effective(page("0.5.23", max_running_requests=64))
    assert asked.flags["max-running-requests"] == 64
    assert asked.running_limit == 2048


def test_flags_that_were_left_unset_are_none_and_lists_are_kept() -> None:
    assert SGLANG.parse_effective(page("0.5.23")).flags["cuda-graph-bs-decode"] is None
    read = SGLANG.parse_effective(page("0.5.23", cuda_graph_bs_decode=[1, 2], sizes=[{"a": 1}]))
    assert read.flags["cuda-graph-bs-decode"] == (1, 2)
    assert "sizes" not in read.flags


def test_secrets_do_not_reach_the_record() -> None:
    assert "secret" not in SGLANG.parse_effective(page("0.5.23", admin_api_key="secret")).flags.values()


def test_what_the_page_does_not_tell_is_none() -> None:
    effective = SGLANG.parse_effective({"internal_states": [], "max_total_num_tokens": True})
    assert (effective.version, effective.kv_tokens, effective.running_limit) == (None, None, None)
    assert effective.flags == {}


def test_what_was_chosen_for_graphs_is_shown_as_flags() -> None:
    flags = SGLANG.parse_effective(page("0.5.23")).flags
    assert flags["cuda-graph-max-bs-decode"] == 256
    assert flags["cuda-graph-backend-decode"] == "full"
    assert flags["cuda-graph-backend-prefill"] == "disabled"
    assert flags.get("cuda-graph-max-bs-prefill") is None
    asked = SGLANG.parse_effective(page("0.5.23", cuda_graph_max_bs_decode=64)).flags
    assert asked["cuda-graph-max-bs-decode"] == 64


def test_a_deprecated_spelling_stands_at_what_the_engine_reports_for_the_new_one() -> None:
    flags = SGLANG.parse_effective(page("0.5.16", cuda_graph_max_bs_decode=64, stream_interval=1)).flags

    assert flags["cuda-graph-max-bs"] == 64
    assert flags["disable-piecewise-cuda-graph"] is True
    assert flags["enable-breakable-cuda-graph"] is False
    assert "stream-output" not in flags
    assert "cuda-graph-max-bs" not in SGLANG.parse_effective(page("0.5.23")).flags


def test_every_deprecated_spelling_of_a_catalogued_version_can_be_read_back() -> None:
    for version in ("0.5.16", "0.5.23"):
        catalogue = SGLANG.catalogue(version)
        respelled = {name: spec for name, spec in catalogue.flags.items() if spec.deprecated and spec.field}
        fields = {str(spec.field): "seen" for spec in respelled.values()}

        flags = SGLANG.parse_effective({"version": version, **fields}).flags

        assert respelled.keys() <= flags.keys()
        assert {flags[name] for name, spec in respelled.items() if spec.constant is None} == {"seen"}
