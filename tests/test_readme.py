"""Every command of the README is run, as it stands, in a copy of what a clone holds."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()
]
SET_UP = "python3 -m venv .venv && . .venv/bin/activate && pip install . && "
TESTS = "pip install -e '.[test]' && pytest"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    for name in ("search_spaces", "slo"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def _environment(folder: Path) -> dict[str, str]:
    """Put an `autotune` first on the path that runs this very checkout."""
    program = folder / "bin" / "autotune"
    if not program.exists():
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable}\nfrom autotune.cli import main\nmain()\n")
        program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }


def test_the_readme_sets_up_with_two_commands_that_ci_runs_too() -> None:
    ci = (ROOT / ".ci" / "run").read_text()

    assert COMMANDS[0].startswith(SET_UP)
    assert COMMANDS[-1] == TESTS
    assert "python3 -m venv --clear .venv" in ci
    assert "\npytest\n" in ci
    assert sum("pip install" in command for command in COMMANDS) == 2


def test_the_readme_compiles_the_simulator_with_the_builds_own_switch() -> None:
    hooks = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert "`HATCH_BUILD_HOOK_ENABLE_MYPYC=1 pip install .`" in README
    assert hooks["hooks"]["mypyc"]["enable-by-default"] is False


def test_every_command_works_in_the_order_of_the_readme(clone: Path) -> None:
    commands = [command.removeprefix(SET_UP) for command in COMMANDS if command != TESTS]
    finite = [command for command in commands if not re.match("autotune (simulate-server|bench)", command)]
    for command in finite:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=clone, env=_environment(clone), check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert list((clone / "runs").glob("*/report.html"))
    assert list((clone / "production").iterdir())


def test_the_simulated_server_answers_and_is_measured(clone: Path) -> None:
    command = next(command for command in COMMANDS if "simulate-server" in command)
    bench = next(command for command in COMMANDS if command.startswith("autotune bench"))
    with subprocess.Popen(
        ["sh", "-c", f"exec {command}"], cwd=clone, env=_environment(clone), stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if "ready to roll" in line:
                break
        with urllib.request.urlopen("http://127.0.0.1:30000/health") as answer:
            assert answer.status == 200
        done = subprocess.run(
            ["sh", "-c", bench],
            cwd=clone, env=_environment(clone), check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (clone / "bench" / "bench.html").exists()
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
    assert server.returncode == 0


def test_the_readmes_two_files_are_valid(tmp_path: Path, clone: Path) -> None:
    space, slo = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "space.yaml").write_text(space + "profile: llama-8b-1xh100\n")
    (tmp_path / "slo.yaml").write_text(slo)

    done = subprocess.run(
        ["autotune", "check", "space.yaml", "slo.yaml", "--launcher", "simulated"],
        cwd=tmp_path, env=_environment(clone), check=False, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr


def test_the_transcript_is_what_the_command_prints(clone: Path) -> None:
    shown = re.search(r"```\n(╭.*?)```", README, re.DOTALL)
    assert shown is not None
    done = subprocess.run(
        ["autotune", "report", "deepseek-r1-2x8h100--ttft-p95-10s-at-50"],
        cwd=clone, env={**_environment(clone), "COLUMNS": "80"}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    printed = done.stdout.replace("\n", " ")
    for line in shown[1].splitlines()[1:-1]:
        words = line.strip("│ ").removesuffix("...").strip()
        assert words in printed, words
