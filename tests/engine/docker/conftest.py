"""The test bed for tests: up once a session, wiped at its end; skipped where there can be none."""

import os
from collections.abc import Iterator

import pytest

from tests.testbed.bed import Bed, reason_against
from tests.testbed.image import load_everywhere

REQUIRED = "AUTOTUNE_BED_REQUIRED"


@pytest.fixture(scope="session")
def session_bed() -> Iterator[Bed]:
    reason = reason_against()
    if reason is not None:
        text = f"no Docker hosts can be had on this machine: {reason}"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    bed = Bed(f"t{os.getpid() % 100000}")
    path = os.environ["PATH"]
    try:
        bed.up()
        load_everywhere(bed)
        os.environ["PATH"] = f"{bed.folder}/bin:{path}"
        yield bed
    finally:
        os.environ["PATH"] = path
        bed.wipe()


@pytest.fixture
def bed(session_bed: Bed) -> Bed:
    """Both nodes up and linked, whatever an earlier test did to them."""
    for host in session_bed.hosts:
        host.heal()
        host.up()
        (host.folder / "gpu-fail").unlink(missing_ok=True)
    return session_bed
