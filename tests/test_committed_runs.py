"""The studies that lie in runs/ stay readable."""

from pathlib import Path

import pytest

from autotune.failure import FailureKind
from autotune.record import Outcome
from autotune.search.ledger import read_history

_MEASURED = {
    "tpot": 11,
    "chat": 5,
    "edge": 2,
    "peers": 3,
    "peers-random": 3,
    "peers-grid": 4,
    "peers-contest": 6,
}
_RUNS = Path(__file__).parents[1] / "runs"


@pytest.mark.parametrize(("name", "measured"), _MEASURED.items())
def test_the_h100s_studies_are_measured_ones_and_can_be_read(name: str, measured: int) -> None:
    records = [trial.record for trial in read_history(_RUNS / f"h100-llama-8b-{name}").trials]
    assert sum(record.outcome is Outcome.MEASURED for record in records) == measured
    assert not any(record.is_simulated for record in records)


def test_the_launch_at_the_edge_of_memory_failed_for_memory() -> None:
    records = [trial.record for trial in read_history(_RUNS / "h100-llama-8b-edge").trials]
    (failure,) = [record.failure for record in records if record.failure is not None]
    assert failure.kind is FailureKind.OUT_OF_MEMORY_LOADING
