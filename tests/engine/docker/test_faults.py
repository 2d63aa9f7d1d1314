"""The fault matrix: whatever happens is noticed in time, named rightly, and nothing is left or disturbed."""

from pathlib import Path

import pytest

from tests.support.docker_faults import CLEAN, faults, happen
from tests.testbed.bed import Bed

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(180),
]

_ROWS = faults(Bed("names"))


@pytest.mark.parametrize("name", [fault.name for fault in _ROWS])
def test_a_fault_is_noticed_in_time_and_leaves_nothing(bed: Bed, tmp_path: Path, name: str) -> None:
    fault = next(each for each in faults(bed) if each.name == name)
    seen = happen(bed, fault, tmp_path)

    assert (seen.kind in fault.kinds, seen.left) == (True, ()), seen
    assert fault.ends in seen.ends if fault.ends != CLEAN else seen.ends == CLEAN, seen
    assert seen.kind is None or seen.detection_s <= fault.limit_s, seen
