import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from autotune.bench import command
from autotune.bench.ask import Options
from autotune.bench.rows import BenchReport
from autotune.bench.run import Bench
from autotune.cli import main
from autotune.load.text import text_maker
from tests.support.gateway import KEY, TEMPLATE_TOKENS, Gateway, running
from tests.support.simulated_server import simulated_server
from tests.support.tokenizer import write_tokenizer

PROGRAM = "from autotune.cli import main; main()"
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def simulated() -> Iterator[str]:
    with simulated_server() as url:
        yield url


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["autotune", "bench", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def report_in(folder: Path) -> BenchReport:
    return BenchReport.model_validate_json((folder / "bench.json").read_text())


def test_sweeps_are_measured_shown_and_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], simulated: str, tmp_path: Path
) -> None:
    code = run(
        monkeypatch, f"{simulated}/v1", "--concurrency", "3", "--lengths", "16,300", "--requests", "8",
        "--output-tokens", "8", "--ceiling", "ttft max < 60s", "--out", str(tmp_path),
    )  # fmt: skip
    told = capsys.readouterr().out
    assert "SIMULATED: any/model at http://127.0.0.1" in told
    assert report_in(tmp_path).is_simulated
    assert "concurrency 3" in told
    rows = report_in(tmp_path).rows
    assert code == int(any(row.invalid for row in rows))  # a busy machine may spoil a point
    assert [row.x for row in rows] == [16, 300, 3]
    assert all(row.figures.succeeded == 8 and row.template_tokens == 0 for row in rows)
    assert rows[1].figures.input_tokens == 8 * 300
    assert rows[2].figures.output_tokens == 8 * 8
    assert all(row.client is not None for row in rows)
    assert {path.name for path in tmp_path.iterdir()} >= {"bench.json", "bench.csv", "bench.html"}


def test_a_missed_ceiling_is_exit_code_1_and_a_search_that_finds_is_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], simulated: str
) -> None:
    few = ("--requests", "6", "--output-tokens", "4", "--input-tokens", "32")
    assert run(monkeypatch, simulated, "--concurrency", "2", *few, "--ceiling", "e2e max < 1us") == 1
    assert "e2e max < 1us: missed" in capsys.readouterr().out
    ceiling = ("--ceiling", "e2e max < 60s")
    assert run(monkeypatch, simulated, "--search", "concurrency:1-2", *few, *ceiling) == 0
    assert "search: concurrency 2 keeps the ceilings" in capsys.readouterr().out


def test_the_same_seed_sends_a_gateway_the_same_texts_of_exact_length_and_its_key_stays_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("tokenizers")
    monkeypatch.setenv("GATEWAY_KEY", KEY)
    tokenizer = write_tokenizer(tmp_path)
    sent: list[list[str]] = []
    for name in ("one", "two"):
        with running(Gateway()) as gateway:
            code = run(
                monkeypatch, gateway.url, "--concurrency", "2", "--requests", "6", "--endpoint", "chat",
                "--tokenizer", str(tokenizer), "--input-tokens", "20", "--output-tokens", "3",
                "--api-key-env", "GATEWAY_KEY", "--out", str(tmp_path / name),
            )  # fmt: skip
        assert code == 0
        first = gateway.bodies[: 2 + 6]  # the warm-up and the point, which a busy machine may do again
        sent.append(sorted(body["messages"][0]["content"] for body in first))
    assert sent[0] == sent[1]
    assert {text_maker(tokenizer).count(text, special=False) for text in sent[0]} == {20}
    row = report_in(tmp_path / "one").rows[0]
    assert row.template_tokens == TEMPLATE_TOKENS
    captured = capsys.readouterr()
    assert f"the server counts +{TEMPLATE_TOKENS}.0 prompt tokens per request" in captured.out
    written = [path.read_bytes() for path in tmp_path.rglob("bench.*")]
    assert not any(KEY.encode() in content for content in written)
    assert KEY not in captured.out + captured.err


def test_completions_of_a_gateway_get_token_ids_that_every_model_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with running(Gateway(key=None)) as gateway:
        words = ("--concurrency", "1", "--requests", "3", "--output-tokens", "2", "--input-tokens", "9")
        assert run(monkeypatch, gateway.url, *words, "--out", str(tmp_path)) == 0
    prompts = [body["prompt"] for body in gateway.bodies]
    assert {len(prompt) for prompt in prompts} == {9}
    assert max(max(prompt) for prompt in prompts) < 32_000
    assert json.loads((tmp_path / "bench.json").read_text())["model"] == "m"


def test_what_was_measured_before_ctrl_c_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measure = Bench.measure

    def once(bench: Bench, point: object) -> object:
        if bench.rows:
            raise KeyboardInterrupt
        return measure(bench, point)  # type: ignore[arg-type]  # what it was called with

    monkeypatch.setattr(Bench, "measure", once)
    shown = io.StringIO()
    with running(Gateway(key=None)) as gateway:
        code = command.bench(
            gateway.url,
            Options(concurrency="1,2", requests=3, output_tokens=2, input_tokens=8),
            Console(file=shown),
            out=tmp_path,
        )
    assert code == command.STOPPED_EXIT_CODE
    assert "stopped before its end" in shown.getvalue()
    assert "no PNG" in shown.getvalue()
    assert len(report_in(tmp_path).rows) == 1
