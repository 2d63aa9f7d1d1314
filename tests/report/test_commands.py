import shlex

from hypothesis import given
from hypothesis import strategies as st

from autotune.report.commands import launch_commands, trial_plan
from tests.support import histories as made

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def test_every_node_has_its_command_in_rank_order() -> None:
    history = made.improved(made.TWO_NODES)
    commands = launch_commands(history.study, history.trials[2])
    assert [command.node for command in commands] == ["node0", "node1"]
    assert "--node-rank 0" in commands[0].text
    assert "--node-rank 1" in commands[1].text
    assert commands[0].text.startswith("env NCCL_DEBUG=INFO python3 -m sglang.launch_server ")


def test_without_environment_a_command_is_the_bare_argv() -> None:
    history = made.improved({"environment": {}})
    command = launch_commands(history.study, history.trials[2])[0]
    assert tuple(shlex.split(command.text)) == trial_plan(history.study, history.trials[2]).ranks[0].argv


@given(model=WORDS, value=WORDS)
def test_a_shell_reads_back_exactly_the_words_of_the_plan(model: str, value: str) -> None:
    study = made.make_study({"model": model, "environment": {"NAME": value}})
    trial = made.trial(study, 0, {}, 1000.0, 8.0)
    command = launch_commands(study, trial)[0]
    assert shlex.split(command.text) == ["env", f"NAME={value}", *trial_plan(study, trial).ranks[0].argv]
