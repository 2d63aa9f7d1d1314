"""What a study would cost and do, as text: the baseline's launch, the space's size, launches per night.

In: a study. Out: text for the terminal. Runs the baseline once in the simulator if the space names a profile;
that estimate is marked as simulated.
"""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

from autotune.engine.dialects import dialect_of
from autotune.engine.plan import plan_launch
from autotune.engine.simulated import SimulatedLauncher
from autotune.order import TrialOrder
from autotune.record import Role, TrialRecord
from autotune.report.commands import command_line
from autotune.report.units import duration, flag_value
from autotune.search.budget import Budget
from autotune.simulator.profile import read_profile
from autotune.space import Candidate
from autotune.study import Study
from autotune.trial import run_trial

NIGHT_S = 8 * 3600


def outlook(study: Study) -> str:
    """Return the text, one fact per line."""
    return "\n".join(_lines(study))


def _lines(study: Study) -> Iterator[str]:
    space = study.space
    baseline = Candidate.of(space.baseline)
    plan = plan_launch(space, baseline, study=study.name, trial="baseline")
    yield f"study {study.name}: {space.engine} {space.version}, {space.model}, {space.launcher} launcher"
    yield "the baseline's launch:"
    yield from (f"  {rank.node.name}: {command_line(rank)}" for rank in plan.ranks)
    if len(space.slots) > 1:
        names = (" and ".join(node.name for node in slot.nodes) for slot in space.slots)
        yield f"one launch at a time on each of {len(space.slots)} slots: {'; '.join(names)}"
    defaults = dialect_of(space.engine).known_defaults(space, baseline.to_dict())
    yield "what the engine would choose for the flags that the baseline leaves out:"
    yield from (f"  {name}: {flag_value(defaults.get(name))}" for name in space.tune)
    size = "infinitely many" if math.isinf(space.size) else f"{space.size:,.0f}"
    yield f"the space holds {size} candidates over {len(space.tune)} flags"
    yield from _cost(study)


def _cost(study: Study) -> Iterator[str]:
    if study.space.profile is None:
        yield "no 'profile' in the search space, so the cost of a trial is not foreseen"
        return
    record = _simulated_baseline(study)
    if record.failure is not None:
        yield f"SIMULATED: the baseline fails: {record.failure.line}"
        return
    launches = math.floor(NIGHT_S / record.duration_s) * len(study.space.slots)
    confirmation = Budget().confirmation_launches
    phases = ", ".join(f"{phase} {duration(spent)}" for phase, spent in record.durations_s.items())
    each = f"a trial takes {duration(record.duration_s)} ({phases})"
    yield f"SIMULATED by the profile {study.space.profile}: {each}"
    yield (
        f"SIMULATED: 8 hours hold {launches} launches: {max(launches - confirmation, 0)} for the search, "
        f"{min(confirmation, launches)} for the confirmation"
    )


def _simulated_baseline(study: Study) -> TrialRecord:
    """Run the baseline's trial in virtual time, in a folder that is thrown away."""
    launcher = SimulatedLauncher(read_profile(study.space.profile or ""), study.seed)
    order = TrialOrder(0, Role.BASELINE, Candidate.of(study.space.baseline), None, measure_all=True)
    with tempfile.TemporaryDirectory() as folder:
        (record,) = run_trial(
            study,
            order,
            launcher,
            Path(folder),
            on_phase=lambda _phase: None,
            find_twin=lambda _effective: None,
        )
    return record
