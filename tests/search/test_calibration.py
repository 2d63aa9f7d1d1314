from pathlib import Path

import numpy as np
import pytest

from autotune.engine.dialect import EffectiveFlags
from autotune.engine.simulated import SimulatedLauncher
from autotune.errors import ConfigError, StudyError
from autotune.failure import EngineFailure, FailureKind, StartPhase
from autotune.load.lengths import Draw, generator_for
from autotune.metrics import Metric
from autotune.record import Outcome
from autotune.request import OfferedLoad, Request
from autotune.search.budget import Budget
from autotune.search.calibration.calibrated import calibrated_profile, fit_table, write_profile
from autotune.search.calibration.case import Case, Statistic, statistics
from autotune.search.calibration.evidence import evidence_of
from autotune.search.calibration.fit import calibrate
from autotune.search.calibration.pool import PoolFact, fit_memory
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from autotune.simulator.arguments import to_argv
from autotune.simulator.profile import Profile, read_profile
from autotune.simulator.rehearsal import rehearse
from autotune.space import FlagValue
from autotune.tuner import tune
from tests.support.simulated import LLAMA, profile_without_noise
from tests.support.trials import STUDY, failed, measured, numbered

WANTED: tuple[Statistic, ...] = (
    (Metric.OUTPUT_THROUGHPUT, ""),
    (Metric.TTFT, "p50"),
    (Metric.TTFT, "p95"),
    (Metric.TPOT, "mean"),
)
TRUTH = profile_without_noise(
    extend_token_s=3.2e-5, extend_fixed_s=0.012, decode_fixed_s=8e-3, decode_context_s=3.4e-8
)
LAUNCHES: list[dict[str, FlagValue]] = [
    {},
    {"chunked-prefill-size": 1024},
    {"max-running-requests": 16},
    {"chunked-prefill-size": 2048, "max-running-requests": 24},
    {"max-total-tokens": 30000},
    {"enable-mixed-chunk": True, "chunked-prefill-size": 4096},
]


def _load(concurrency: int) -> OfferedLoad:
    sizes = generator_for(1, Draw.INPUT_TOKENS, 0).integers(300, 1500, size=(100, 2)).tolist()
    return OfferedLoad(
        tuple(Request(index, prompt, output // 8) for index, (prompt, output) in enumerate(sizes)),
        concurrency,
    )


def _case(truth: Profile, flags: dict[str, FlagValue], *, factor: float = 1.0) -> Case:
    argv, load = tuple(to_argv({"model-path": "m", **flags})), _load(40)
    return Case(
        "c", None, argv, load, {key: each * factor for key, each in _shown(truth, argv, load).items()}
    )


def _shown(profile: Profile, argv: tuple[str, ...], load: OfferedLoad) -> dict[Statistic, float]:
    rehearsal = rehearse(profile, argv, [load])
    assert rehearsal is not None
    served = rehearsal.schedules[0].replay(profile.step, profile.experts)
    return dict(zip(WANTED, statistics(served, WANTED).tolist(), strict=True))


def _errors(profile: Profile, cases: list[Case]) -> float:
    off = [np.log(list(_shown(profile, case.argv, case.load).values())) - case.logs for case in cases]
    return float(np.abs(off).max())


def test_three_launches_tell_enough_of_the_others() -> None:
    cases = [_case(TRUTH, flags) for flags in LAUNCHES]

    before = _errors(profile_without_noise(), cases[3:])
    fit = calibrate(profile_without_noise(), cases[:3])

    assert before > 0.2
    assert _errors(fit.profile, cases[3:]) < 0.05
    assert fit.noise == pytest.approx(0.05)
    assert not fit.unstarted


def test_without_launches_the_profile_stays_as_it_is() -> None:
    profile = profile_without_noise()

    fit = calibrate(profile, ())

    assert fit.profile == profile
    assert all(error == pytest.approx(0.7, abs=1e-6) for error in fit.deviations.values())


def test_every_launch_makes_the_fit_surer() -> None:
    cases = [_case(TRUTH, flags) for flags in LAUNCHES]

    few, many = (calibrate(profile_without_noise(), cases[:count]) for count in (1, 6))

    assert sum(many.deviations.values()) < sum(few.deviations.values())
    assert many.deviations["decode_fixed_s"] < 0.7
    low, high = (
        np.ptp([np.log(each.step.extend_token_s) for each in fit.draws(20, np.random.default_rng(0))])
        for fit in (many, few)
    )
    assert low < high


def test_one_odd_launch_does_not_bend_the_others() -> None:
    cases = [_case(TRUTH, flags) for flags in LAUNCHES]
    odd = _case(TRUTH, {"chunked-prefill-size": 8192, "max-running-requests": 200}, factor=3.0)

    fit = calibrate(profile_without_noise(), [*cases, odd])

    assert np.median([abs(residual).max() for residual in fit.residuals]) < 0.1


def test_a_launch_that_the_model_cannot_start_is_left_out_and_named() -> None:
    good, bad = _case(TRUTH, {}), _case(TRUTH, {"mem-fraction-static": 0.5})
    bad = Case("bad", 4, tuple(to_argv({"model-path": "m", "mem-fraction-static": 0.1})), bad.load, bad.shown)

    fit = calibrate(profile_without_noise(), [good, bad])

    assert [case.label for case in fit.unstarted] == ["bad"]
    assert len(fit.residuals) == 1


def test_the_pool_that_a_launch_had_moves_the_memory() -> None:
    profile = profile_without_noise()
    argv = tuple(to_argv({"model-path": "m", "mem-fraction-static": 0.8}))

    fitted = fit_memory(profile, [PoolFact(argv, tokens=350_000)])

    rehearsal = rehearse(fitted, argv, [])
    assert rehearsal is not None
    assert rehearsal.ready.capacity.pool_tokens == pytest.approx(350_000, rel=0.01)


def test_the_least_fraction_that_an_engine_asked_for_moves_the_weights() -> None:
    profile = profile_without_noise()
    argv = tuple(to_argv({"model-path": "m", "mem-fraction-static": 0.15}))

    fitted = fit_memory(profile, [PoolFact(argv, minimum_mem_fraction=0.25)])

    assert fitted.memory.weights_gib / fitted.memory.free_gib == pytest.approx(0.25, rel=0.01)


def test_a_pool_that_the_command_line_limits_says_nothing_and_neither_does_a_bad_one() -> None:
    profile = profile_without_noise()
    limited = PoolFact(tuple(to_argv({"model-path": "m", "max-total-tokens": 40_000})), tokens=40_000)
    bad = PoolFact(("--model-path", "m", "--max-total-tokens", "many"), tokens=1)

    assert fit_memory(profile, [limited, bad]) == profile


def test_only_real_launches_are_evidence() -> None:
    trials = [
        NumberedTrial(0, measured(1000.0)),
        NumberedTrial(1, measured(1000.0, same_as=0)),
        NumberedTrial(2, failed()),
        NumberedTrial(3, measured(1000.0).model_copy(update={"outcome": Outcome.INVALID})),
    ]

    evidence = evidence_of(STUDY.space, STUDY.slo, trials)

    assert [case.trial for case in evidence.cases] == [0]
    assert evidence.cases[0].label == "trial 0, concurrency 4"
    assert len(evidence.cases[0].load.requests) == 40


def test_what_was_measured_live_shows_its_own_steps_and_its_hosts_pool() -> None:
    live = measured(900.0, flags={"max-running-requests": 8}, measured_live_on=0)
    told = EffectiveFlags(flags={}, kv_tokens=5000)
    hosts = measured(1000.0, effective=told), live.model_copy(update={"effective": told})

    evidence = evidence_of(STUDY.space, STUDY.slo, numbered(*hosts))

    assert [case.trial for case in evidence.cases] == [0, 1]
    assert "8" in evidence.cases[1].argv
    assert [fact.tokens for fact in evidence.pools] == [5000]


def test_a_load_that_was_cut_short_is_simulated_as_far_as_it_went() -> None:
    record = measured(1000.0)
    (point,) = record.points
    short = point.model_copy(update={"summary": point.summary.model_copy(update={"sent": 25})})

    (case,) = evidence_of(
        STUDY.space, STUDY.slo, [NumberedTrial(0, record.model_copy(update={"points": (short,)}))]
    ).cases

    assert len(case.load.requests) == 25


def test_the_engines_own_words_about_memory_are_evidence() -> None:
    failure = EngineFailure(
        kind=FailureKind.NO_KV_MEMORY, phase=StartPhase.KV_POOL, line="minimum", minimum_mem_fraction=0.3
    )
    record = failed(failure=failure)

    (fact,) = evidence_of(STUDY.space, STUDY.slo, [NumberedTrial(0, record)]).pools

    assert fact.minimum_mem_fraction == 0.3


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> StudyHistory:
    folder = tmp_path_factory.mktemp("study")
    launcher = SimulatedLauncher(read_profile(LLAMA), 0)
    return tune(STUDY, launcher, Budget(launches=4, finalists=1), folder, observe=lambda _: None)


def test_a_studys_profile_says_where_it_comes_from_and_how_well_it_fits(
    history: StudyHistory, tmp_path: Path
) -> None:
    profile = calibrated_profile(history)
    write_profile(profile, tmp_path / "own.yaml")

    assert read_profile(str(tmp_path / "own.yaml")).fit == profile.fit
    assert profile.provenance.measured_by == "SIMULATED: autotune calibrate"
    assert "study s, trials 0" in profile.provenance.source
    assert profile.fit is not None
    assert all(abs(each.output_throughput or 0) < 0.1 for each in profile.fit.loads)
    table = fit_table(profile)
    assert "SIMULATED" in table
    assert "trial 0, concurrency 4" in table
    assert "what these launches do not tell" in table


def test_a_study_without_a_profile_is_told_to_name_one(history: StudyHistory) -> None:
    space = STUDY.space.model_copy(update={"profile": None})
    bare = StudyHistory(STUDY.model_copy(update={"space": space}), history.folder, history.trials, 0, None)

    with pytest.raises(ConfigError, match="--profile"):
        calibrated_profile(bare)
    assert calibrated_profile(bare, base=LLAMA).name == f"{LLAMA}-calibrated"


def test_a_study_without_launches_has_nothing_to_fit_to(history: StudyHistory) -> None:
    with pytest.raises(StudyError, match="nothing to fit"):
        calibrated_profile(StudyHistory(STUDY, history.folder, (), 0, None))


def test_a_profiles_file_must_be_told_from_a_shipped_profile(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends with \.yaml"):
        write_profile(profile_without_noise(), tmp_path / "own.txt")
