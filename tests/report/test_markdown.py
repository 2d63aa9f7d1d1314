import re
from pathlib import Path

import pytest

from autotune.failure import FailureKind
from autotune.report.markdown import render_markdown, write_markdown
from tests.support import histories as made


def tables_of(text: str) -> list[list[str]]:
    """The tables of a text, each as its lines."""
    blocks = re.sub(r"^(`{3,})\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE).split("\n\n")
    return [block.splitlines() for block in blocks if block.startswith("|")]


def columns(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line)) - 1


@pytest.mark.parametrize(
    "name", ["improved", "kept", "nothing_meets", "not_confirmed", "unfinished", "empty", "front_answered"]
)
def test_every_kind_of_study_has_whole_tables(name: str, tmp_path: Path) -> None:
    write_markdown(getattr(made, name)(), tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# r1\n\n## ")
    assert tables_of(text)
    for table in tables_of(text):
        assert len({columns(line) for line in table}) == 1


def test_the_answer_the_commands_and_the_inputs_are_there_in_order() -> None:
    text = render_markdown(made.improved(is_simulated=True))
    order = [
        text.index(part)
        for part in (
            "**SIMULATED: these numbers",
            "## Improved: a better candidate",
            "| schedule-policy |",
            "- **Gain**: maximise output",
            "### Launch on node0",
            "## Candidates",
            "### Time by phase",
            "| no_kv_memory | 2 |",
            "### SLO",
        )
    ]
    assert order == sorted(order)


def test_text_from_outside_stays_in_its_cell_and_its_block() -> None:
    hostile = "a | b\n# head `x` <img src=x> [link](javascript:x)\n```\nend"
    history = made.improved({"model": hostile})
    text = render_markdown(
        made.history(history.study, *history.trials, made.failed(9, FailureKind.CRASHED, hostile))
    )
    for table in tables_of(text):
        assert len({columns(line) for line in table}) == 1
    assert "<img" not in re.sub(r"^(`{3,})\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"^# head", text, flags=re.MULTILINE)
