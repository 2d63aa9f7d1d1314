import io
import re
import shlex

import pytest
from rich.console import Console, RenderableType

from autotune.failure import FailureKind
from autotune.report import terminal
from autotune.report.commands import trial_plan
from tests.support import histories as made


def printed(renderable: RenderableType) -> str:
    output = io.StringIO()
    Console(file=output, width=250).print(renderable, soft_wrap=False)
    return output.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "improved",
        "kept",
        "nothing_meets",
        "not_confirmed",
        "unfinished",
        "empty",
        "pareto",
        "front_answered",
        "undecided",
    ],
)
def test_every_kind_of_study_has_a_report(name: str) -> None:
    history = getattr(made, name)()
    assert "r1: answer" in printed(terminal.terminal_report(history))


def test_simulated_numbers_are_marked_in_every_title_and_in_the_answer() -> None:
    text = printed(terminal.terminal_report(made.improved(is_simulated=True)))
    assert "SIMULATED: these numbers come from a model of the engine" in text
    for title in ("answer", "candidates", "not measured"):
        assert f"SIMULATED r1: {title}" in text
    assert "SIMULATED" not in printed(terminal.terminal_report(made.improved()))


def test_the_finalists_stand_beside_the_baseline() -> None:
    text = printed(terminal.candidates_table(made.improved()))
    assert re.search(r"chunked-prefill-size.*8192", text)
    assert re.search(r"schedule-policy.*lpm", text)
    assert "+12.0 % [+8.10 % .. +16.0 %]" in text
    assert "ttft p95: room of 28.0 %" in text
    assert "2 of 2" in text
    assert "trial 0 baseline" in text


def test_points_of_the_front_show_their_gain_in_every_objective() -> None:
    text = printed(terminal.candidates_table(made.front_answered()))
    assert text.count("on the front") == 3
    assert "+30.0 % [+20.0 % .. +40.0 %]; -40.0 % [-50.0 % .. -30.0 %]" in text


def test_without_an_answer_the_leaders_are_shown_as_not_confirmed() -> None:
    text = printed(terminal.candidates_table(made.unfinished()))
    assert text.count("not confirmed") == 3
    assert "undecided" in text


def test_failures_are_counted_by_kind_with_the_last_decisive_line() -> None:
    text = printed(terminal.failures_table(made.improved()))
    assert "RuntimeError: Not enough memory. Raise mem-fraction-static" in text
    assert "trial 3 crashed with less" in text


def test_hostile_text_is_neither_markup_nor_a_terminal_command() -> None:
    study = made.make_study()
    line = "[bold red]boom[/bold red] \x1b[2J\x07 [link=x]y[/link]"
    text = printed(terminal.terminal_report(made.history(study, made.failed(0, FailureKind.CRASHED, line))))
    assert "[bold red]boom[/bold red]" in text
    assert "[link=x]y[/link]" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_the_winners_commands_can_be_pasted() -> None:
    history = made.improved(made.TWO_NODES)
    lines = terminal.commands_text(history).plain.splitlines()
    assert lines[:2] == ["Launch commands of trial 2:", "# node0"]
    plan = trial_plan(history.study, history.trials[2])
    assert tuple(shlex.split(lines[2])[2:]) == plan.ranks[0].argv
    assert tuple(shlex.split(lines[4])[2:]) == plan.ranks[1].argv


def test_without_a_winner_there_is_no_command() -> None:
    assert terminal.commands_text(made.nothing_meets()).plain == ""
