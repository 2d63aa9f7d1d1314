"""The benchmarks of the load generator still run: tiny sizes, and no claim about their numbers."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.load_fuzz import fuzz
from tests.real_engine.cpu import FOLDER_VARIABLE

_ROOT = Path(__file__).parents[2]
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="the truth server needs a C compiler")


def told_by(module: str, *words: str) -> list[str]:
    """The lines that a benchmark prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{module}", *words],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_fuzzed_streams_end_in_records() -> None:
    outcomes = asyncio.run(fuzz(300, random.Random(3)))  # noqa: S311 - not a secret
    assert outcomes.total() == 300
    assert outcomes["good"] > 30
    assert len(outcomes) > 3


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(("kind", "requests"), [("burst", 4), ("steady", 6)])
def test_the_client_is_set_beside_the_truth(kind: str, requests: int) -> None:
    head, _, row = told_by("load_truth", "--streams", "2", "--kinds", kind)
    assert len(cells(row)) == len(cells(head))
    assert cells(row)[0] == f"2 {kind}"
    assert cells(row)[-2].startswith(f"{requests}/{requests}")


@pytest.mark.slow
@needs_compiler
def test_a_soak_prints_a_row_for_every_round() -> None:
    head, _, *rows = told_by("load_soak", "--minutes", "0.01", "--streams", "2", "--round-s", "0.5")
    assert rows
    assert len(cells(rows[0])) == len(cells(head))
    assert cells(rows[0])[1] == "0"


@pytest.mark.slow
@needs_compiler
def test_tools_are_set_side_by_side_and_one_that_cannot_be_had_is_skipped_with_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    skipped, head, _, row, spread = told_by("load_peers", "--tools", "ours,sglang", "--streams", "2")
    assert skipped.startswith("sglang: skipped: AUTOTUNE_SGLANG_CPU is not set")
    assert len(cells(row)) == len(cells(head))
    assert (cells(row)[0], cells(row)[1], cells(row)[-2]) == ("ours", "2/2", "4/4")
    assert spread.startswith("spread of the true TTFT")


@pytest.mark.engine
@pytest.mark.timeout(300)
@pytest.mark.skipif(not os.environ.get(FOLDER_VARIABLE), reason=f"{FOLDER_VARIABLE} is unset")
def test_both_clients_are_set_beside_the_engines_own_histograms() -> None:
    head, _, first, second, medians = told_by("load_engine", "--streams", "2", "--rounds", "1")
    assert [cells(row)[:2] for row in (first, second)] == [["sglang", "2"], ["ours", "2"]]
    assert all(len(cells(row)) == len(cells(head)) for row in (first, second))
    assert medians.startswith("medians at 2: ours/server TTFT ")
