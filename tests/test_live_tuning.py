from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from autotune.engine.simulated import SimulatedLauncher
from autotune.record import Outcome, Role
from autotune.search.budget import Budget, launches_used
from autotune.search.ledger import read_history
from autotune.search.sampler import SamplerKind
from autotune.search.study_history import StudyHistory
from autotune.simulator.profile import read_profile
from autotune.slo import Slo
from autotune.space import FlagValue
from autotune.study import Study
from autotune.tuner import TrialEnded, tune
from tests.benchmarks import live_values
from tests.benchmarks.live_values import Live
from tests.support.scripted import Script, ScriptedLauncher
from tests.support.simulated import LLAMA
from tests.support.trials import STUDY

LIMIT = "max-running-requests"
TUNE: dict[str, Any] = {
    LIMIT: {"int": [2, 256], "scale": "log"},
    "chunked-prefill-size": {"int": [512, 8192], "scale": "log", "multiple_of": 64},
}
SMALL = Budget(launches=3, finalists=2)


def study_of(nodes: int = 1) -> Study:
    keys: dict[str, Any] = {"tune": TUNE}
    if nodes > 1:
        names = [f"n{index}" for index in range(nodes)]
        keys["nodes"] = [{"name": name, "docker": f"ssh://{name}", "gpus": 1} for name in names]
        keys["nodes_per_engine"] = 1
    space = STUDY.space.model_validate(STUDY.space.model_dump(by_alias=True) | keys)
    slo = Slo.model_validate(
        {
            "workload": {"input_tokens": 256, "output_tokens": 32},
            "load": [{"concurrency": 32, "requests": 64}],
            "ceilings": ["ttft p95 < 60s at concurrency 32"],
            "objective": "maximise output_throughput at concurrency 32",
        }
    )
    return STUDY.model_copy(update={"space": space, "slo": slo})


def simulated(
    folder: Path,
    *,
    nodes: int = 1,
    budget: Budget = SMALL,
    sampler: SamplerKind = SamplerKind.TPE,
    ended: list[TrialEnded] | None = None,
) -> StudyHistory:
    launchers = [SimulatedLauncher(read_profile(LLAMA), seed) for seed in range(nodes)]
    return tune(
        study_of(nodes),
        launchers[0],
        budget,
        folder,
        sampler=sampler,
        observe=lambda event: (
            None if ended is None or not isinstance(event, TrialEnded) else ended.append(event)
        ),
        more_launchers=launchers[1:],
    )


def lives_of(history: StudyHistory) -> list[tuple[int, int]]:
    """Trials that were measured live, each with its host."""
    found = ((trial.number, trial.record.measured_live_on) for trial in history.trials)
    return [(number, host) for number, host in found if host is not None]


@pytest.mark.parametrize("sampler", [SamplerKind.TPE, SamplerKind.GP])
def test_a_launch_measures_further_values_of_what_its_engine_can_change(
    tmp_path: Path, sampler: SamplerKind
) -> None:
    ended: list[TrialEnded] = []

    history = simulated(tmp_path, sampler=sampler, ended=ended)

    trials = {trial.number: trial.record for trial in history.trials}
    lives = lives_of(history)
    assert [host for _, host in lives][:2] == [0, 0]
    assert launches_used(history.trials) == 3
    for number, host in lives:
        live, own = trials[number], trials[host]
        assert (live.role, live.outcome, live.is_simulated) == (Role.SEARCH, Outcome.MEASURED, True)
        assert {**live.candidate, LIMIT: None} == {**own.candidate, LIMIT: None}
        assert live.effective is not None
        assert own.effective is not None
        assert live.effective.running_limit == live.candidate[LIMIT]
        assert live.effective.running_limit < (own.effective.running_limit or 0)
    assert [event.trial.number for event in ended] == sorted(trials)
    assert read_history(tmp_path).trials == history.trials


def test_without_it_a_launch_measures_what_it_was_launched_for(tmp_path: Path) -> None:
    budget = Budget(launches=3, finalists=2, measures_live=False)

    assert lives_of(simulated(tmp_path, budget=budget)) == []


def test_slots_beside_each_other_measure_no_candidate_twice(tmp_path: Path) -> None:
    history = simulated(tmp_path, nodes=2, budget=Budget(launches=6, finalists=1))

    searched = [each.record for each in history.trials if each.record.role is Role.SEARCH]
    counts = Counter(each.to_candidate() for each in searched)
    assert lives_of(history)
    assert max(counts.values()) == 1
    hosts = {each.number: each.record.nodes for each in history.trials}
    assert all(
        hosts[host] == each.record.nodes
        for each in history.trials
        if (host := each.record.measured_live_on) is not None
    )


def test_the_time_of_what_was_measured_live_counts_once(tmp_path: Path) -> None:
    launcher = SimulatedLauncher(read_profile(LLAMA), 0)

    history = tune(study_of(), launcher, SMALL, tmp_path, observe=lambda _: None)

    assert lives_of(history)
    spent_s = sum(trial.record.duration_s for trial in history.trials)
    assert spent_s == pytest.approx(launcher.clock.now_s())


def faster_live(flags: dict[str, str], _: int) -> Script:
    return Script(running_limit=int(flags.get(LIMIT, 256)), slower_live=0.1, ttft_s=0.1)


def test_a_finalist_that_was_measured_live_is_launched_to_be_confirmed(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(faster_live)

    history = tune(study_of(), launcher, SMALL, tmp_path, observe=lambda _: None)

    trials = {trial.number: trial.record for trial in history.trials}
    finalists = {record.confirms for record in trials.values() if record.confirms}
    live = {number for number, _ in lives_of(history)}
    assert finalists
    assert finalists <= live
    launched: list[dict[str, FlagValue]] = [trials[number].candidate for number in finalists]
    assert {str(flags[LIMIT]) for flags in launched} <= {flags.get(LIMIT) for flags in launcher.launches}


def test_an_engine_that_refuses_ends_no_study_and_its_candidate_may_be_launched(tmp_path: Path) -> None:
    launcher = ScriptedLauncher(lambda *_: Script(running_limit=256, refuses_live=True))

    history = tune(study_of(), launcher, SMALL, tmp_path, observe=lambda _: None)

    spoilt = [trial.record for trial in history.trials if trial.record.measured_live_on is not None]
    assert spoilt
    assert all(record.outcome is Outcome.INVALID for record in spoilt)
    assert launches_used(history.trials) == 3
    assert history.answer is not None


def test_a_later_call_goes_on_with_what_was_measured_live(tmp_path: Path) -> None:
    first = simulated(tmp_path, budget=Budget(launches=2, finalists=1))

    history = simulated(tmp_path, budget=Budget(launches=4, finalists=1))

    assert history.trials[: len(first.trials)] == first.trials
    searched = [each.record for each in history.trials if each.record.role is Role.SEARCH]
    assert max(Counter(each.to_candidate() for each in searched).values()) == 1


def test_where_the_limit_matters_a_study_needs_fewer_launches_with_live_values() -> None:
    launches, worth = 6, 2850.0  # 95 % of the best that is known

    def needed(seed: int, live: Live) -> float:
        history = live_values.history(SamplerKind.GP, seed, live=live, launches=launches)
        return min(live_values.reached(history, worth).launches, launches + 1)

    without, within = (sum(needed(seed, live) for seed in (4, 5)) for live in (Live.NONE, Live.PROMISE))

    assert within < without
