"""Whether a candidate still answers as the baseline does: more than the baseline differs from itself, or not.

In: the answers of fresh launches of both (`load.answers`). Out: an `Alikeness` per finalist. Reads raw files
in `alikeness_of` only. Method: every pair of launches is compared prompt by prompt, whichever way the prompts
were asked, a finalist's launches with the baseline's and the baseline's with one another. Prompts are
independent of each other, so the differences between both, one a prompt, are judged by Student's one-sided t.
Invariants: what was not asked is unknown, never alike; a difference that the baseline shows by itself, from
launch to launch or from batch to batch, is not the candidate's.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, product
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autotune.document import Frozen
from autotune.interval import student_quantile
from autotune.load.answers import AnswerSheet, AnswerUnit, GivenAnswer, read_sheet
from autotune.search.confirmation import Contest

LEAST_DRIFT_NATS = 1e-3
"""A drift of log-probabilities below it changes no probability by more than a tenth of a percent."""
_LEAST_LAUNCHES = 2
_LEAST_PROMPTS = 3
_MEASURES = 2

Array: TypeAlias = NDArray[np.float64]


class AnswersVerdict(StrEnum):
    """ALIKE: no difference beyond the baseline's own was shown. UNKNOWN: there was nothing to compare."""

    ALIKE = "alike"
    DIFFERENT = "different"
    UNKNOWN = "unknown"


class AnswerDifference(Frozen):
    """How far answers of two launches lie apart, on average over pairs of launches.

    `equal_ratio`: the share of an answer before the first token that differs. `changed_ratio`: the share of
    prompts whose answers are not all equal. `first_divergence`: the earliest position of a token that
    differs, from 0, None if none does. `drift_nats`: the mean absolute difference of log-probabilities over
    the equal beginnings, None if the engine gives none.
    """

    equal_ratio: float
    changed_ratio: float
    first_divergence: int | None
    drift_nats: float | None


class Alikeness(Frozen):
    """A finalist's answers against the baseline's (`cross`), and the baseline's against its own (`own`).

    `reason`: why it is UNKNOWN.
    """

    verdict: AnswersVerdict
    unit: AnswerUnit | None = None
    prompts: int = 0
    cross: AnswerDifference | None = None
    own: AnswerDifference | None = None
    reason: str | None = None


def alikeness_of(contest: Contest, folder: Path, *, error_rate: float = 0.05) -> dict[int, Alikeness]:
    """Return the alikeness of every finalist of a contest; `folder` is the study's.

    Raises:
        OSError: a raw file cannot be read.
        StudyError: a raw file is damaged.
    """
    own = None if contest.baseline is None else contest.baseline.number
    sheets: dict[int, list[AnswerSheet]] = {each.number: [] for each in contest.contenders}
    reasons: dict[int, str] = {}
    for record in contest.fresh:
        answers = record.answers
        if record.confirms not in sheets or answers is None:
            continue
        if answers.file is not None:
            sheets[record.confirms].append(read_sheet(folder / answers.file))
        elif answers.reason is not None:
            reasons[record.confirms] = answers.reason
    side = error_rate / max(len(contest.finalists), 1)
    return {
        each.number: _unknown(_why_unknown(each.number, own, sheets, reasons))
        or compare(sheets[each.number], sheets[own or 0], error_rate=side)
        for each in contest.finalists
    }


def compare(
    candidate: Sequence[AnswerSheet], baseline: Sequence[AnswerSheet], *, error_rate: float
) -> Alikeness:
    """Return whether a candidate's answers differ by more than the baseline's own, of two launches or more.

    Wrong with at most `error_rate` if both are the same engine in effect: half of it for the tokens and half
    for the log-probabilities.
    """
    units = {answer.unit for sheet in (*candidate, *baseline) for answer in (*sheet.alone, *sheet.together)}
    if len(units) != 1:
        return Alikeness(verdict=AnswersVerdict.UNKNOWN, reason="the launches were answered in other forms")
    cross, own = _Apart(product(candidate, baseline)), _Apart(combinations(baseline, 2))
    side = error_rate / _MEASURES
    is_different = _exceeds(cross.diverged, own.diverged, 0.0, side) or _exceeds(
        cross.drifts, own.drifts, LEAST_DRIFT_NATS, side
    )
    return Alikeness(
        verdict=AnswersVerdict.DIFFERENT if is_different else AnswersVerdict.ALIKE,
        unit=units.pop(),
        prompts=len(cross.diverged),
        cross=cross.difference(),
        own=own.difference(),
    )


def _why_unknown(
    number: int,
    own: int | None,
    sheets: Mapping[int, Sequence[AnswerSheet]],
    reasons: Mapping[int, str],
) -> str | None:
    if own is None:
        return "there is no baseline to compare with"
    if not sheets[number] or not sheets[own]:
        return reasons.get(number) or reasons.get(own) or "no launch was asked"
    if len(sheets[own]) < _LEAST_LAUNCHES:
        return "only one launch of the baseline was asked, so its own difference is not known"
    return None


def _unknown(reason: str | None) -> Alikeness | None:
    return None if reason is None else Alikeness(verdict=AnswersVerdict.UNKNOWN, reason=reason)


class _Apart:
    """How far pairs of launches lie apart, prompt by prompt: means over the pairs and the ways of asking.

    `diverged`: the share of an answer from the first difference on. `drifts`: NaN where nothing is to be
    told of a prompt.
    """

    def __init__(self, pairs: Iterable[tuple[AnswerSheet, AnswerSheet]]) -> None:
        asked = [both for one, other in pairs for both in product(one.passes, other.passes)]
        rows = [[_Pair.of(one, other) for one, other in zip(*both, strict=True)] for both in asked]
        self._equal = np.array([[pair.equal for pair in row] for row in rows], dtype=np.float64)
        self._lengths = np.array([[pair.length for pair in row] for row in rows], dtype=np.float64)
        drifts = np.array([[pair.drift_nats for pair in row] for row in rows], dtype=np.float64)
        is_known = np.isfinite(drifts)
        known = np.maximum(is_known.sum(0), 1)
        self.diverged: Array = (1 - self._equal / self._lengths).mean(0)
        self.drifts: Array = np.where(is_known.any(0), np.where(is_known, drifts, 0).sum(0) / known, np.nan)

    def difference(self) -> AnswerDifference:
        is_changed = self._equal < self._lengths
        known = self.drifts[np.isfinite(self.drifts)]
        return AnswerDifference(
            equal_ratio=float(1 - self.diverged.mean()),
            changed_ratio=float(is_changed.any(0).mean()),
            first_divergence=int(self._equal[is_changed].min()) if is_changed.any() else None,
            drift_nats=float(known.mean()) if len(known) else None,
        )


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two answers to one prompt: how many tokens at the beginning are equal, and their drift."""

    equal: int
    length: int
    drift_nats: float

    @classmethod
    def of(cls, one: GivenAnswer, other: GivenAnswer) -> "_Pair":
        both = list(zip(one.tokens, other.tokens, strict=False))
        equal = next((index for index, (a, b) in enumerate(both) if a != b), len(both))
        length = max(len(one.tokens), len(other.tokens))
        if one.logprobs is None or other.logprobs is None or not equal:
            return cls(equal, length, math.nan)
        drift = np.abs(np.subtract(one.logprobs[:equal], other.logprobs[:equal])).mean()
        return cls(equal, length, float(drift))


def _exceeds(cross: Array, own: Array, least: float, error_rate: float) -> bool:
    """Whether the mean of `cross` less `own` over the prompts lies above `least` for certain."""
    excess = cross - own
    excess = excess[np.isfinite(excess)]
    if len(excess) < _LEAST_PROMPTS:
        return False
    reach = student_quantile(1 - error_rate, len(excess) - 1) * excess.std(ddof=1) / math.sqrt(len(excess))
    return bool(excess.mean() - reach > least)
