from pathlib import Path

import pytest

from tests.support.docker_faults import is_as_promised
from tests.support.docker_ordeal import endure
from tests.testbed.bed import Bed

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def test_launches_with_random_faults_leave_nothing_and_touch_nothing_foreign(
    bed: Bed, tmp_path: Path
) -> None:
    for launched in endure(bed, 4, seed=20, folder=tmp_path):
        assert launched.changed == (), launched.fault.name
        assert is_as_promised(launched.fault, launched.seen), launched
