"""A study's launches as a simulator profile: fitted, with its provenance, and how well it explains them.

In: a `StudyHistory`. Out: a `Profile`, the same as a file, and a table of what the fit leaves over. Runs the
simulated scheduler; writes one file. Invariant: numbers of simulated launches say so in the profile.
"""

import datetime as dt
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from autotune.document import to_yaml
from autotune.errors import ConfigError, Problem, StudyError
from autotune.metrics import Metric
from autotune.search.calibration.case import Statistic
from autotune.search.calibration.constants import SPREAD
from autotune.search.calibration.evidence import evidence_of
from autotune.search.calibration.fit import Calibration, calibrate
from autotune.search.calibration.pool import fit_memory
from autotune.search.study_history import StudyHistory
from autotune.simulator.profile import Fit, FittedLoad, Profile, Provenance, read_profile

_HARDLY_LEARNT = 0.8
_TOLD: dict[str, Statistic] = {
    "output_throughput": (Metric.OUTPUT_THROUGHPUT, ""),
    "ttft_p95": (Metric.TTFT, "p95"),
    "tpot_mean": (Metric.TPOT, "mean"),
}


def calibrated_profile(history: StudyHistory, *, base: str | None = None) -> Profile:
    """Return a profile that explains the study's launches; `base`: the profile that it begins with.

    Raises:
        ConfigError: the study names no profile and none is given, or there is no such profile.
        StudyError: no launch was measured yet.
    """
    space, slo = history.study.space, history.study.slo
    name = base or space.profile
    if name is None:
        remedy = "Give the one that is nearest to it with --profile; a calibration moves its constants."
        raise ConfigError(
            [Problem("the study's search space names no profile", key="profile", remedy=remedy)]
        )
    believed = read_profile(name)
    evidence = evidence_of(space, slo, history.trials, folder=history.folder)
    if not evidence.cases and not evidence.steps:
        raise StudyError(f"{history.folder} has no measured launch yet: there is nothing to fit to")
    fit = calibrate(fit_memory(believed, evidence.pools), evidence.cases, evidence.steps)
    update = {
        "name": f"{believed.name}-calibrated",
        "provenance": _provenance(history, believed, fit),
        "fit": _fit(history, fit),
    }
    return fit.profile.model_copy(update=update)


def write_profile(profile: Profile, path: Path) -> None:
    """Write the profile as a file that `read_profile` reads.

    Raises:
        ConfigError: the name does not end with .yaml, by which a file is told from a shipped profile.
        OSError: it cannot be written.
    """
    if path.suffix != ".yaml":
        raise ConfigError(f"--out {path}: a profile's file ends with .yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_yaml(profile), encoding="utf-8")


def fit_table(profile: Profile) -> str:
    """Return how far off the fit is, a line a load point."""
    if profile.fit is None:
        raise AssertionError("a calibrated profile has a fit")
    header = f"{'expected against measured':44}{'tok/s':>9}{'TTFT p95':>10}{'TPOT':>9}"
    lines = [
        f"{each.load:44}{_percent(each.output_throughput, 9)}{_percent(each.ttft_p95, 10)}"
        f"{_percent(each.tpot_mean, 9)}"
        for each in profile.fit.loads
    ]
    if profile.fit.decode_step is not None:
        off = f"{profile.fit.decode_step:.1%}"
        lines.append(f"decode steps by {profile.fit.log_lines} lines of the engines' logs: usually {off} off")
    return "\n".join((profile.provenance.measured_by, header, *lines, profile.provenance.assumed))


def _percent(ratio: float | None, width: int) -> str:
    return f"{'-' if ratio is None else f'{ratio:+.1%}':>{width}}"


def _fit(history: StudyHistory, fit: Calibration) -> Fit:
    loads = []
    for case, residuals in zip(fit.cases, fit.residuals, strict=True):
        off = dict(zip(case.shown, np.expm1(residuals).tolist(), strict=True))
        told = {name: round(off[key], 4) for name, key in _TOLD.items() if key in off}
        loads.append(FittedLoad(load=case.label, **told))
    deviations = {name: round(error, 3) for name, error in fit.deviations.items()}
    return Fit(
        study=history.study.name,
        loads=tuple(loads),
        noise_ratio=round(fit.noise, 4),
        deviations=deviations,
        log_lines=sum(group.lines for group in fit.steps),
        decode_step=round(float(np.median(np.expm1(np.abs(fit.step_residuals)))), 4) if fit.steps else None,
    )


def _provenance(history: StudyHistory, believed: Profile, fit: Calibration) -> Provenance:
    records = [trial.record for trial in history.trials if trial.record.effective is not None]
    mark = "SIMULATED: " if any(record.is_simulated for record in records) else ""
    versions = {str(each.effective.version) for each in records if each.effective and each.effective.version}
    trials = sorted(
        {case.trial for case in fit.cases if case.trial is not None} | {group.trial for group in fit.steps}
    )
    lines = sum(group.lines for group in fit.steps)
    logs = f" and {lines} lines of their logs" if lines else ""
    unlearnt = [name for name, error in fit.deviations.items() if error > _HARDLY_LEARNT * SPREAD]
    source = (
        f"{mark}study {history.study.name}, trials {_listed(trials)}: bounded least squares on their "
        f"summaries{logs}, begun with the profile {believed.name}"
    )
    if fit.unstarted:
        source += f"; left out, as the model cannot start them: {_listed(c.label for c in fit.unstarted)}"
    return Provenance(
        measured_by=f"{mark}autotune calibrate",
        engine_version=_listed(sorted(versions)) or history.study.space.version,
        hardware=believed.provenance.hardware,
        date=f"{dt.datetime.now(dt.UTC):%Y-%m-%d}",
        source=source,
        assumed=f"as in {believed.name}: reserves, start-up times, noise"
        + (f"; and what these launches do not tell: {_listed(unlearnt)}" if unlearnt else ""),
    )


def _listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))
