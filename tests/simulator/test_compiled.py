"""The simulator's inner loop compiled by mypyc: the tests of the scheduler pass on it as they stand."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]["include"]
SETUP = f"""
from mypyc.build import mypycify
from setuptools import setup

setup(name="compiled", packages=[], py_modules=[], ext_modules=mypycify({MODULES!r}, opt_level="0"))
"""
CHECK = "from autotune.simulator import scheduler; assert not scheduler.__file__.endswith('.py')"
TESTS = [
    f"tests/simulator/test_{name}.py" for name in ("golden", "virtual", "scheduler", "replay", "service")
]


def run(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_compiled_modules_do_what_the_plain_ones_do(tmp_path: Path) -> None:
    pytest.importorskip("mypyc", reason="needs mypy, from the extra `lint`")
    pytest.importorskip("setuptools", reason="needs setuptools, which mypyc builds with")
    shutil.copytree(ROOT / "autotune", tmp_path / "autotune", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "setup.py").write_text(SETUP)
    run(tmp_path, "setup.py", "-q", "build_ext", "--inplace")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    run(tmp_path, "-c", CHECK)
    run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)
