import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from autotune.failure import FailureKind
from autotune.live_values import NextLive
from autotune.load.records_file import read_records
from autotune.order import LiveValue, TrialOrder
from autotune.record import Outcome, Role, TrialRecord
from autotune.slo import Slo
from autotune.space import Candidate
from autotune.study import Study
from autotune.trial import TIME_IS_UP, run_trial
from tests.support.scripted import CRASH, Script, ScriptedLauncher
from tests.support.trials import STUDY

LIMIT = "max-running-requests"
HOST = TrialOrder(7, Role.SEARCH, Candidate.of({LIMIT: 32}), None, measure_all=False)


def beside(*values: int) -> TrialOrder:
    """The host's order with these values of the running limit to be measured live."""
    then = [
        replace(HOST, candidate=Candidate.of({LIMIT: value}), live=LiveValue(LIMIT, value))
        for value in values
    ]
    return replace(HOST, then=tuple(then))


def run(
    launcher: ScriptedLauncher,
    folder: Path,
    order: TrialOrder,
    *,
    deadline_s: float | None = None,
    choose_live: NextLive = lambda _, orders: orders[0],
    phases: list[str] | None = None,
    study: Study = STUDY,
) -> tuple[TrialRecord, ...]:
    return run_trial(
        study,
        order,
        launcher,
        folder,
        on_phase=([] if phases is None else phases).append,
        find_twin=lambda _: None,
        deadline_s=deadline_s,
        choose_live=choose_live,
    )


def engine(**script: object) -> ScriptedLauncher:
    return ScriptedLauncher(lambda *_: Script(running_limit=32, **script))  # type: ignore[arg-type]


def lives(launcher: ScriptedLauncher) -> list[str]:
    return [line for line in launcher.log if line.startswith("live")]


def test_values_are_measured_after_the_hosts_own_and_the_flag_is_set_back(tmp_path: Path) -> None:
    launcher, phases = engine(), list[str]()

    host, two, three = run(launcher, tmp_path, beside(2, 3), phases=phases)

    assert lives(launcher) == ["live 2", "live 32", "live 3", "live 32"]
    assert (host.measured_live_on, two.measured_live_on, three.measured_live_on) == (None, 7, 7)
    assert [record.candidate for record in (host, two, three)] == [{LIMIT: 32}, {LIMIT: 2}, {LIMIT: 3}]
    assert all(record.verdict and record.objectives for record in (host, two, three))
    assert two.effective is not None
    assert (two.effective.running_limit, two.effective.flags[LIMIT]) == (2, 2)
    assert host.effective is not None
    assert host.effective.running_limit == 32
    assert phases[2:-1] == [f"load: concurrency 4{live}" for live in ("", f", {LIMIT} 2", f", {LIMIT} 3")]


def test_the_engine_is_idle_whenever_the_flag_is_set(tmp_path: Path) -> None:
    launcher = engine()

    run(launcher, tmp_path, beside(2))

    assert all(before == "flush" for before, after in pairwise(launcher.log) if after.startswith("live"))


def test_raw_records_of_a_value_lie_with_the_hosts_and_have_prompts_of_their_own(tmp_path: Path) -> None:
    host, live = run(engine(), tmp_path, beside(2))

    assert live.points[0].file == "trials/0007/live-2/concurrency-4.npz"
    assert host.points[0].file == "trials/0007/concurrency-4.npz"
    assert read_records(tmp_path / live.points[0].file).records


def test_each_has_the_time_of_its_own_load_and_together_they_have_all_of_it(tmp_path: Path) -> None:
    launcher = engine()

    host, two, three = run(launcher, tmp_path, beside(2, 3))

    assert set(host.durations_s) == {"launch", "load", "teardown"}
    assert set(two.durations_s) == set(three.durations_s) == {"load"}
    assert host.durations_s["teardown"] == pytest.approx(5.0)
    total_s = sum(record.duration_s for record in (host, two, three))
    assert total_s == pytest.approx(launcher.clock.seconds)
    assert two.began_s == pytest.approx(host.began_s + host.duration_s)
    assert three.began_s == pytest.approx(two.began_s + two.duration_s)
    assert not any(record.is_launch for record in (two, three))


@pytest.mark.parametrize("value", [0, 4, 31, 32, 64])
def test_a_value_that_changes_nothing_or_cannot_be_set_is_left_out(tmp_path: Path, value: int) -> None:
    launcher = engine()  # 4 requests at a time never reach a limit of 4

    assert len(run(launcher, tmp_path, beside(value, 2))) == 2
    assert lives(launcher) == ["live 2", "live 32"]


def test_what_is_chosen_is_measured_until_nothing_is(tmp_path: Path) -> None:
    seen: list[list[tuple[float, ...] | None]] = []

    def last_of_three(records: Sequence[TrialRecord], orders: Sequence[TrialOrder]) -> TrialOrder | None:
        seen.append([each.objectives for each in records])
        return orders[-1] if len(orders) > 1 else None

    measured = run(engine(), tmp_path, beside(1, 2, 3), choose_live=last_of_three)

    assert [record.candidate[LIMIT] for record in measured] == [32, 3, 2]
    values = [each.objectives for each in measured]
    assert seen == [values[:1], values[:2], values[:3]]


def test_a_limit_that_only_a_load_beside_the_point_reaches_is_left_out(tmp_path: Path) -> None:
    load = [{"concurrency": 4, "requests": 40}, {"concurrency": 16, "requests": 160}]
    slo = Slo.model_validate(STUDY.slo.model_dump() | {"load": load})
    missing = Slo.model_validate(slo.model_dump() | {"ceilings": ["ttft p95 < 1s at concurrency 16"]})

    def measured(slo: Slo, folder: str, ttft_s: float = 0.5) -> list[object]:
        study = STUDY.model_copy(update={"slo": slo})
        records = run(engine(ttft_s=ttft_s, start_s=900.0), tmp_path / folder, beside(8, 2), study=study)
        return [record.candidate[LIMIT] for record in records]

    assert measured(slo, "met") == [32, 2]
    assert measured(missing, "missed", ttft_s=3.0) == [32, 8, 2]


def test_an_engine_that_can_change_nothing_is_measured_as_it_was_launched(tmp_path: Path) -> None:
    assert len(run(ScriptedLauncher(lambda *_: Script()), tmp_path, beside(2))) == 1


def test_a_value_that_the_engine_refuses_is_spoilt_and_the_last(tmp_path: Path) -> None:
    launcher = engine(refuses_live=True)

    host, spoilt = run(launcher, tmp_path, beside(2, 3))

    assert host.outcome is Outcome.MEASURED
    assert (spoilt.outcome, spoilt.reason, spoilt.measured_live_on) == (Outcome.INVALID, "[false]", 7)
    assert spoilt.points == ()


def test_an_engine_that_dies_under_another_value_leaves_the_host_as_it_was(tmp_path: Path) -> None:
    whole = run(engine(), tmp_path / "whole", HOST)[0]
    runs = 1 + whole.points[0].summary.sent // 40

    host, spoilt = run(engine(dies=CRASH, dies_after=runs), tmp_path, beside(2, 3))

    assert host == whole
    assert spoilt.outcome is Outcome.INVALID
    assert spoilt.reason == f"{FailureKind.CRASHED}: {CRASH.line}"
    assert spoilt.failure is None


def test_there_is_no_value_for_which_the_time_does_not_suffice(tmp_path: Path) -> None:
    whole = run(engine(), tmp_path / "whole", HOST)[0]
    measured_s = whole.durations_s["launch"] + whole.durations_s["load"]

    (host,) = run(engine(), tmp_path, beside(2), deadline_s=measured_s + 1.0)

    assert host == whole


def test_a_value_that_is_cut_off_leaves_nothing_but_its_time(tmp_path: Path) -> None:
    whole = run(engine(), tmp_path / "whole", HOST)[0]
    load_s = whole.durations_s["load"]
    launcher = engine(slower_live=9.0)
    deadline_s = whole.durations_s["launch"] + 2.2 * load_s

    (host,) = run(launcher, tmp_path, beside(2), deadline_s=deadline_s)

    assert host.outcome is Outcome.MEASURED
    assert host.reason != TIME_IS_UP
    assert host.durations_s["live"] >= load_s
    assert host.duration_s == pytest.approx(launcher.clock.seconds)
    assert math.isclose(host.durations_s["teardown"], 5.0)
