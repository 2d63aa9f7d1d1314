from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from autotune.search import CrashAwareSampler

SUITES = (BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase)


def _numbered(suite: type) -> None:
    """Optuna's suites name their cases '<lambda>', which strict pytest takes for duplicates."""
    for test in vars(suite).values():
        marks = getattr(test, "pytestmark", [])
        for mark in marks:
            mark.kwargs.setdefault("ids", [str(index) for index in range(len(mark.args[1]))])


for each in SUITES:
    _numbered(each)


class TestConformance(*SUITES):  # type: ignore[misc] # mypy wants the three names; this keeps one list
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: CrashAwareSampler(seed=1)
