"""The launch commands of a candidate, one per node, as they can be pasted into a shell. Pure.

In: a `StudyHistory` and a trial. Out: `NodeCommand`s made from the launch plan. Invariant: splitting a text
as a shell does gives the plan's argv back, behind its environment.
"""

import shlex
from dataclasses import dataclass

from autotune.engine.plan import LaunchPlan, RankPlan, plan_launch
from autotune.search.confirmation import NumberedTrial
from autotune.study import Study


@dataclass(frozen=True)
class NodeCommand:
    """What runs on one node."""

    node: str
    text: str


def trial_plan(study: Study, trial: NumberedTrial) -> LaunchPlan:
    """Return the launch plan of a trial's candidate on the ports of the search space."""
    return plan_launch(study.space, trial.record.to_candidate(), study=study.name, trial=f"{trial.number:04}")


def launch_commands(study: Study, trial: NumberedTrial) -> tuple[NodeCommand, ...]:
    """Return the command of every node, in rank order."""
    return tuple(NodeCommand(rank.node.name, command_line(rank)) for rank in trial_plan(study, trial).ranks)


def command_line(rank: RankPlan) -> str:
    """Return the environment and the argv of a rank, quoted for a POSIX shell."""
    settings = [f"{name}={value}" for name, value in rank.environment]
    return shlex.join(["env", *settings, *rank.argv] if settings else rank.argv)
