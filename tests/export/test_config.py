import shlex
from collections.abc import Mapping

import yaml
from hypothesis import given
from hypothesis import strategies as st

from autotune.export.config import config_files
from autotune.export.selection import select
from tests.support import histories as made

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda word: not word.startswith("-")
)


def options_of(words: list[str]) -> list[tuple[str, ...]]:
    """Split words into flags with their values, in alphabetical order."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            groups.append([])
        groups[-1].append(word)
    return sorted(tuple(group) for group in groups)


def as_sglang_reads(config: Mapping[str, object]) -> list[str]:
    """Give the words that SGLang makes of its configuration file."""
    words: list[str] = []
    for name, value in config.items():
        match value:
            case True:
                words.append(f"--{name}")
            case list():
                words.extend([f"--{name}", *map(str, value)])
            case _:
                words.extend([f"--{name}", str(value)])
    return words


def together(space: Mapping[str, object], node: int) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the command before `--config`, and the flags of file and command together."""
    selection = select(made.improved(space), number=None, force=False)
    config, *scripts = config_files(selection)
    words = shlex.split(scripts[node].text.partition("set -eu\n\n")[2].replace(" \\\n  ", " "))
    place = words.index("--config")
    assert words[place + 1] == "$(dirname $0)/sglang.yaml"
    rest = words[place + 2 :]
    return words[1:place], options_of(as_sglang_reads(yaml.safe_load(config.text)) + rest)


def planned(space: Mapping[str, object], node: int) -> list[tuple[str, ...]]:
    argv = select(made.improved(space), number=None, force=False).plan.ranks[node].argv
    return options_of(list(argv[argv.index("--model-path") :]))


def test_file_and_command_together_are_the_launch_of_every_node() -> None:
    for node in (0, 1):
        command, flags = together(made.TWO_NODES, node)
        assert command == ["env", "NCCL_DEBUG=INFO", "python3", "-m", "sglang.launch_server"]
        assert flags == planned(made.TWO_NODES, node)


@given(model=WORDS, name=WORDS)
def test_no_word_changes_on_its_way_through_the_file(model: str, name: str) -> None:
    space: Mapping[str, object] = {"model": model, "flags": {"served-model-name": name}}
    assert together(space, 0)[1] == planned(space, 0)


def test_numbers_and_words_that_look_like_them_survive() -> None:
    for word in (
        "1e3",
        "1e-05",
        "007",
        "1.50",
        "0o17",
        "yes",
        "null",
        "1_000",
        "1:30",
        "inf",
        "1e400",
        "\x85",
        "a\u2028b",
    ):
        space: Mapping[str, object] = {"flags": {"served-model-name": word}}
        assert together(space, 0)[1] == planned(space, 0)


def test_numbers_are_written_as_numbers() -> None:
    selection = select(made.improved({"flags": {"mem-fraction-static": 0.85}}), number=None, force=False)
    config = yaml.safe_load(config_files(selection)[0].text)
    assert config["mem-fraction-static"] == 0.85
    assert config["chunked-prefill-size"] == 8192


def test_a_list_becomes_a_list() -> None:
    space: Mapping[str, object] = {"flags": {"cuda-graph-bs": [1, 2, 4]}}
    selection = select(made.improved(space), number=None, force=False)
    assert yaml.safe_load(config_files(selection)[0].text)["cuda-graph-bs"] == [1, 2, 4]
    assert together(space, 0)[1] == planned(space, 0)


def test_what_the_file_cannot_say_stays_on_the_command() -> None:
    space: Mapping[str, object] = {"flags": {"served-model-name": "-odd", "no-such-switch": True}}
    selection = select(made.improved(space), number=None, force=False)
    config, script = config_files(selection)
    assert not {"served-model-name", "no-such-switch"} & yaml.safe_load(config.text).keys()
    assert "--served-model-name=-odd" in script.text
    assert "--no-such-switch" in script.text


def test_without_environment_the_command_comes_first() -> None:
    assert together({"environment": {}}, 0)[0] == ["python3", "-m", "sglang.launch_server"]


def test_secrets_are_named_in_a_comment() -> None:
    script = config_files(select(made.improved(), number=None, force=False))[1].text
    assert "# HF_TOKEN is taken from the environment of this command." in script
