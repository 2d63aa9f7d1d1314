import argparse
import json
import sys
import types
from pathlib import Path

import pytest

from autotune.engine.catalogue import Catalogue
from autotune.engine.sglang import generate_catalogue
from autotune.engine.sglang.generate_catalogue import flags_of, render


class DeprecatedAliasStoreAction(argparse.Action):
    def __init__(self, new_flag: str | None = None, **keywords: object) -> None:
        self.new_flag = new_flag
        super().__init__(**keywords)  # type: ignore[arg-type] # argparse's own keywords

    def __call__(self, *_: object) -> None:
        raise AssertionError


def json_list_type(text: str) -> object:
    return json.loads(text)


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser()
    result.add_argument("--tp-size", "--tensor-parallel-size", type=int, default=1)
    result.add_argument("--fraction", type=float)
    result.add_argument("--policy", type=str, choices=["b", "a"], default="b")
    result.add_argument("--sampling", choices={"y", "x"})
    result.add_argument("--on", action="store_true")
    result.add_argument("--both", action=argparse.BooleanOptionalAction, default=True)
    result.add_argument("--sizes", type=int, nargs="+")
    result.add_argument("--config", type=json_list_type, default=[])
    result.add_argument("--gemm-backend", dest="gemm_runner_backend")
    result.add_argument("--old", action=DeprecatedAliasStoreAction, new_flag="--new")
    result.add_argument(
        "--no-gemm",
        action=DeprecatedAliasStoreAction,
        nargs=0,
        dest="gemm_runner_backend",
        new_flag="--gemm-backend=none",
    )
    result.add_argument("--fast-gemm", action="store_const", const="fast", dest="gemm_runner_backend")
    result.add_argument("--elder", action="store_true", help="[Deprecated] Use --younger instead.")
    result.add_argument("--secret", default=argparse.SUPPRESS)
    return result


def test_every_kind_of_argument_is_told_by_its_type_and_choices() -> None:
    assert flags_of(parser()) == {
        "both": {"type": "bool", "negation": "no-both", "default": True},
        "config": {"type": "str", "default": []},
        "elder": {"type": "bool", "default": False, "deprecated": "Use --younger instead"},
        "fraction": {"type": "float"},
        "gemm-backend": {"type": "str", "field": "gemm_runner_backend"},
        "no-gemm": {
            "type": "bool",
            "field": "gemm_runner_backend",
            "constant": "none",
            "deprecated": "use --gemm-backend=none",
        },
        "fast-gemm": {"type": "bool", "field": "gemm_runner_backend", "constant": "fast"},
        "old": {"type": "str", "deprecated": "use --new"},
        "on": {"type": "bool", "default": False},
        "policy": {"type": "str", "default": "b", "choices": ["b", "a"]},
        "sampling": {"type": "str", "choices": ["x", "y"]},
        "secret": {"type": "str"},
        "sizes": {"type": "list", "item": "int"},
        "tp-size": {"type": "int", "default": 1, "aliases": ["tensor-parallel-size"]},
    }


def test_what_is_printed_is_a_catalogue_with_one_flag_a_line() -> None:
    text = render("1.2.3", flags_of(parser()))
    catalogue = Catalogue.model_validate_json(text)
    assert (catalogue.engine, catalogue.version) == ("sglang", "1.2.3")
    assert catalogue.check("tp-size", 2) is None
    assert sum(line.startswith("    ") for line in text.splitlines()) == len(catalogue.flags)


def test_the_installed_engine_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ServerArgs:
        @staticmethod
        def add_cli_args(target: argparse.ArgumentParser) -> None:
            target.add_argument("--model-path")

    package = types.ModuleType("sglang")
    package.__version__ = "9.9.9"  # type: ignore[attr-defined] # a stand-in
    module = types.ModuleType("sglang.srt.server_args")
    module.ServerArgs = ServerArgs  # type: ignore[attr-defined] # a stand-in
    monkeypatch.setitem(sys.modules, "sglang", package)
    monkeypatch.setitem(sys.modules, "sglang.srt.server_args", module)
    generate_catalogue.main()
    assert json.loads(capsys.readouterr().out)["flags"] == {"model-path": {"type": "str"}}


def test_the_generator_needs_nothing_but_the_standard_library() -> None:
    source = Path(generate_catalogue.__file__).read_text()
    imports = [line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert {name.partition(".")[0] for name in imports} <= sys.stdlib_module_names
