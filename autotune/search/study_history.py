"""A study as its storage tells it: what reports and exports read. Pure data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autotune.search.answer import Answer
from autotune.search.confirmation import NumberedTrial
from autotune.search.repeats import SearchEnd
from autotune.study import Study


@dataclass(frozen=True)
class JudgedAgain:
    """That a history is no longer told under the SLO for which its launches were made.

    `file`: the SLO instead; `study`: as it is stored. `not_judged`: which launches were measured and could
    not be judged again, by the reason.
    """

    file: Path
    study: Study
    not_judged: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class StudyHistory:
    """A study as its storage tells it; the only thing that reports and exports read.

    `trials`: finished trials in order of their numbers. `running`: how many are under way or were cut off.
    `quarantine`: why nodes are out of use, by their names.
    `search_end`: why the search ended, None while it goes on or after its controller was killed.
    `expected_gain`: what a further launch of it promised, as a share of the best value, if that ended it.
    `judged_again`: None for a study as it is stored (`search.rejudged`).
    """

    study: Study
    folder: Path
    trials: tuple[NumberedTrial, ...]
    running: int
    answer: Answer | None
    search_end: SearchEnd | None = None
    expected_gain: float | None = None
    quarantine: Mapping[str, str] = field(default_factory=dict)
    judged_again: JudgedAgain | None = None
