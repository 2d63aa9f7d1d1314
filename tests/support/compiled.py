"""A copy of the checkout whose simulator is compiled by mypyc, as the wheel's build hook does it.

In: an empty folder. Out: `autotune` and `tests` in it, with the modules that pyproject.toml names as
extension modules beside their sources. Runs a C compiler.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
_MODULES = _PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]["include"]
_SETUP = """
from mypyc.build import mypycify
from setuptools import setup

setup(name="compiled", packages=[], py_modules=[], ext_modules=mypycify({modules!r}, opt_level="{level}"))
"""


def compiled_copy(folder: Path, *, optimised: bool) -> None:
    """Make the copy; optimised code takes longer to build."""
    for name in ("autotune", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "setup.py").write_text(_SETUP.format(modules=_MODULES, level=3 if optimised else 0))
    run(folder, "setup.py", "-q", "build_ext", "--inplace")
    shutil.copy(ROOT / "pyproject.toml", folder)


def run(folder: Path, *arguments: str) -> str:
    """Run Python in a copy and return what it prints; nothing may go wrong."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout
