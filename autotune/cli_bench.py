"""The command `bench`, whose options are as many as those of all others; `cli.py` registers it."""

from pathlib import Path
from typing import Annotated

import typer


def bench(
    url: Annotated[str, typer.Argument(metavar="URL", help="SGLang or any OpenAI-compatible server.")],
    concurrency: Annotated[str | None, typer.Option(help="Requests in flight, such as 10,20,50.")] = None,
    rate: Annotated[str | None, typer.Option(help="Requests per second, such as 1,2,4.")] = None,
    lengths: Annotated[str | None, typer.Option(help="Prompt lengths for one user, or all.")] = None,
    search: Annotated[
        str | None, typer.Option(help="Largest load that keeps the ceilings: concurrency:1-512, rate:1-32.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="article: lengths, 10..100 users, 500 users.")] = None,
    ceiling: Annotated[list[str] | None, typer.Option(help="Such as 'ttft p95 < 10s'; repeatable.")] = None,
    slo: Annotated[
        Path | None, typer.Option(help="Verify this SLO file: its load points and ceilings.")
    ] = None,
    workload: Annotated[Path | None, typer.Option(help="A YAML file like an SLO's workload.")] = None,
    input_tokens: Annotated[int, typer.Option(min=1, help="Prompt tokens without a workload.")] = 1024,
    output_tokens: Annotated[int, typer.Option(min=1, help="Answer tokens without a workload.")] = 256,
    requests: Annotated[
        int | None, typer.Option(min=1, help="Requests per point, one per user or more.")
    ] = None,
    duration: Annotated[float | None, typer.Option(min=0.1, help="Seconds per point instead.")] = None,
    steps: Annotated[
        str | None, typer.Option(help="One load whose rate climbs through these, such as 1,2,4.")
    ] = None,
    ramp: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds over which a concurrency's first requests start.")
    ] = None,
    arrivals: Annotated[str | None, typer.Option(help="poisson, constant or gamma, for rates.")] = None,
    burstiness: Annotated[float | None, typer.Option(help="Shape of gamma arrivals; 1 is Poisson.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Replay this JSONL or CSV file's arrivals.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="generate, completions or chat.")] = None,
    model: Annotated[str | None, typer.Option(help="The model's name, if several are served.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="tokenizer.json, for texts of exact length.")] = None,
    ignore_eos: Annotated[
        bool | None, typer.Option(help="Ask for full-length answers; default: of SGLang and vLLM.")
    ] = None,
    vocabulary_size: Annotated[int | None, typer.Option(min=1, help="If the server tells none.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with the API key.")] = None,
    stall_below: Annotated[float, typer.Option(help="A stall is fewer tokens/s than this ...")] = 1.0,
    stall_after: Annotated[float, typer.Option(help="... for more than these seconds.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same requests.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for JSON, CSV, HTML and PNG.")] = None,
) -> None:
    """Measure a running server: sweeps of concurrency, rate and prompt length, or a search for the most."""
    from rich.console import Console

    from autotune.bench.ask import Options
    from autotune.bench.command import bench as run_bench

    options = Options(
        concurrency=concurrency, rate=rate, steps=steps, ramp_s=ramp, lengths=lengths, search=search,
        protocol=protocol, workload=workload, slo=slo, endpoint=endpoint, tokenizer=tokenizer,
        input_tokens=input_tokens, output_tokens=output_tokens, requests=requests, duration_s=duration,
        arrivals=arrivals, burstiness=burstiness, trace=trace, ceilings=tuple(ceiling or ()),
        ignore_eos=ignore_eos, stall_below_tps=stall_below, stall_longer_than_s=stall_after, seed=seed,
    )  # fmt: skip
    code = run_bench(
        url, options, Console(),
        out=out, model=model, api_key_env=api_key_env, vocabulary_size=vocabulary_size,
    )  # fmt: skip
    raise typer.Exit(code)
