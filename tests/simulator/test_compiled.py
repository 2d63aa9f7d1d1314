"""The simulator's inner loop compiled by mypyc: the tests of the scheduler pass on it as they stand."""

import shutil
from pathlib import Path

import pytest

from tests.support.compiled import compiled_copy, run

CHECK = "from autotune.simulator import scheduler; assert not scheduler.__file__.endswith('.py')"
TESTS = [
    f"tests/simulator/test_{name}.py"
    for name in ("golden", "virtual", "scheduler", "replay", "service", "costs", "flags", "pool", "ordering")
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_compiled_modules_do_what_the_plain_ones_do(tmp_path: Path) -> None:
    pytest.importorskip("mypyc", reason="needs mypy, from the extra `lint`")
    pytest.importorskip("setuptools", reason="needs setuptools, which mypyc builds with")
    compiled_copy(tmp_path, optimised=False)
    run(tmp_path, "-c", CHECK)
    run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)
