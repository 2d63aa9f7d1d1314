"""The service-level objectives: what was promised (ceiling, promise), and whether it is kept (verdict)."""

from autotune.slo.ceiling import Ceiling, Objective, Quantity, parse_ceiling, parse_objective
from autotune.slo.chance import Course
from autotune.slo.decidable import undecidable
from autotune.slo.early import EarlyJudge, Stop, StopKind, judge_stopped
from autotune.slo.promise import Slo
from autotune.slo.verdict import (
    ERROR_RATE,
    FRESH_LAUNCHES,
    LOOKS,
    CeilingVerdict,
    Decision,
    Verdict,
    is_within_reach,
    judge,
    pool,
    violation,
    violations,
)

__all__ = [
    "ERROR_RATE",
    "FRESH_LAUNCHES",
    "LOOKS",
    "Ceiling",
    "CeilingVerdict",
    "Course",
    "Decision",
    "EarlyJudge",
    "Objective",
    "Quantity",
    "Slo",
    "Stop",
    "StopKind",
    "Verdict",
    "is_within_reach",
    "judge",
    "judge_stopped",
    "parse_ceiling",
    "parse_objective",
    "pool",
    "undecidable",
    "violation",
    "violations",
]
