"""The commands. Only here is printed; a command parses its arguments, calls the package and shows.

Commands import what they need when they run, so that `autotune --help` stays instant.
"""

import gc
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotune import __version__
from autotune.cli_bench import bench
from autotune.errors import AutotuneError, ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from autotune.search.study_history import StudyHistory
    from autotune.study import StudyDraft

INTERRUPTED_EXIT_CODE = 130
COLLECT_AFTER_ALLOCATIONS = 50_000
"""Python's 700 costs a simulated study a tenth of its time, for records that are no garbage."""
app = typer.Typer(
    name="autotune",
    help="Search the launch flags of an LLM engine against service-level objectives.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SpaceFile = Annotated[Path, typer.Argument(metavar="SPACE", help="search_spaces/*.yaml")]
SloFile = Annotated[Path, typer.Argument(metavar="SLO", help="slo/*.yaml")]
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="A study's name, or its folder.")]
RunsFolder = Annotated[Path, typer.Option("--runs", help="Where studies are kept.")]
Lang = Annotated[str, typer.Option("--lang", help="The report's language: en or zh.")]
Launcher = Annotated[
    str | None, typer.Option("--launcher", help="simulated, process or docker, not the space's.")
]


def main() -> None:
    """Run the command line; turn errors into one message and an exit code."""
    try:
        app(prog_name="autotune")
    except AutotuneError as error:
        print(f"autotune: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Search the launch flags of an LLM engine against service-level objectives."""
    if show:
        print(__version__)
        raise typer.Exit


@app.command()
def check(space: SpaceFile, slo: SloFile, launcher: Launcher = None, runs: RunsFolder = Path("runs")) -> None:
    """Look for what would stop a study, without starting an engine."""
    from autotune.preflight import preflight

    draft = _read(space, slo, launcher)
    console = _console()
    problems = preflight(draft.study, runs)
    for problem in problems:
        console.print(f"problem: {problem}", markup=False, highlight=False)
    if problems:
        raise typer.Exit(3)
    console.print(f"{draft.study.name}: no problem found")


@app.command()
def plan(space: SpaceFile, slo: SloFile, launcher: Launcher = None) -> None:
    """Show the baseline's launch, the size of the space, and what a study would cost."""
    from autotune.outlook import outlook

    draft = _read(space, slo, launcher)
    print(outlook(draft.study))


@app.command()
def tune(
    space: SpaceFile,
    slo: SloFile,
    launcher: Launcher = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Launches of the search, the baseline's included.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(min=0.01, help="Hours for the whole study, confirmation included.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Stop at this time of day, such as 07:00.")] = None,
    study: Annotated[str | None, typer.Option(help="The study's name; from the files by default.")] = None,
    runs: RunsFolder = Path("runs"),
    seed: Annotated[int, typer.Option(help="Seed of the search and of the simulator.")] = 0,
    sampler: Annotated[
        str | None, typer.Option(help="gp, tpe, random, botorch; by default gp, tpe if simulated.")
    ] = None,
    finalists: Annotated[int, typer.Option(min=1, help="Candidates that are launched again.")] = 3,
    rounds: Annotated[int, typer.Option(min=2, help="Launches of each of them, at least.")] = 2,
    lang: Lang = "en",
    precision: Annotated[
        str | None, typer.Option(help="More rounds until the gain is known to +- this, such as 2%.")
    ] = None,
    least_gain: Annotated[
        str, typer.Option(help="End the search once a further launch promises to gain less; off: never.")
    ] = "1%",
    stop_early: Annotated[
        bool, typer.Option(help="End load points of the search once decided or lost.")
    ] = True,
    live: Annotated[bool, typer.Option(help="Measure more candidates on one launch where possible.")] = True,
    storage: Annotated[
        str | None, typer.Option(help="Keep the trials in this PostgreSQL instead of the run folder.")
    ] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            envvar="AUTOTUNE_WEBHOOK", help="Tell this URL (Slack's JSON) what happens; not stored."
        ),
    ] = None,
) -> None:
    """Search, confirm and answer. The same command again goes on where the last one stopped."""
    gc.disable()
    from autotune.live.session import tune_watched
    from autotune.report.language import parse_language, speaking
    from autotune.search.budget import Budget, parse_least_gain, parse_share, seconds_until
    from autotune.search.sampler import default_sampler, parse_sampler

    gc.freeze()  # the modules stay: no collection needs to look at them again
    gc.set_threshold(COLLECT_AFTER_ALLOCATIONS)
    gc.enable()
    language = parse_language(lang)
    draft = _read(space, slo, launcher, study, seed)
    budget = Budget(
        launches=trials if trials or hours or until else 40,
        study_s=None if hours is None else hours * 3600,
        call_s=None if until is None else seconds_until(until),
        finalists=finalists,
        rounds=rounds,
        precision=None if precision is None else parse_share("--precision", precision),
        stops_early=stop_early,
        measures_live=live,
        least_gain=parse_least_gain(least_gain),
    )
    kind = default_sampler(draft.study.space) if sampler is None else parse_sampler(sampler)
    folder = runs / draft.study.name
    with _stoppable():
        history = tune_watched(
            draft.study, budget, folder, _console(),
            sampler=kind, storage=storage, webhook=webhook,
        )  # fmt: skip
    with speaking(language):
        _show(history)
    _exit_by(history)


@app.command()
def report(
    study: StudyName,
    runs: RunsFolder = Path("runs"),
    html: Annotated[Path | None, typer.Option(help="Write the HTML report here.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all trials as CSV here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the report as Markdown here.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write all trials as Parquet here.")] = None,
    images: Annotated[Path | None, typer.Option(help="Write every plot as PNG and SVG here.")] = None,
    slo: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judge the same launches under this SLO file instead.")
    ] = None,
    lang: Lang = "en",
    watch: Annotated[bool, typer.Option("--watch", help="Show a running study live; read only.")] = False,
) -> None:
    """Show a study's results, also while it runs; write them as HTML, Markdown, CSV, Parquet, pictures.

    With --slo, the recorded launches are judged again from their raw records under other ceilings and
    objectives of the same requests; nothing is launched, stored or exported.
    """
    from autotune.report.language import parse_language, speaking
    from autotune.search.ledger import read_history

    if watch and slo is not None:
        raise ConfigError("--watch shows a study under its own SLO: leave out --watch or --slo")
    with speaking(parse_language(lang)):
        if watch:
            from autotune.live.watch import watch_study

            watch_study(_folder(study, runs), _console())
            return
        asked = {"html": html, "csv": csv, "markdown": markdown, "parquet": parquet, "images": images}
        history = read_history(_folder(study, runs))
        _show(history if slo is None else _judged_again(history, slo), **asked)


@app.command()
def dashboard(
    study: StudyName,
    runs: RunsFolder = Path("runs"),
    host: Annotated[str, typer.Option(help="The address to serve on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any that is free.")] = 8080,
) -> None:
    """Open Optuna's dashboard on a study, with notes on its trials; needs the extra 'dashboard'."""
    from autotune.dashboard import serve_dashboard

    serve_dashboard(_folder(study, runs), host=host, port=port, tell=lambda line: print(line, flush=True))


@app.command()
def compare(
    before: Annotated[str, typer.Argument(metavar="A", help="A study's name, or its folder.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another one, whose gain over A is told.")],
    runs: RunsFolder = Path("runs"),
    out: Annotated[list[Path] | None, typer.Option(help="Write FILE.html or FILE.md; repeatable.")] = None,
) -> None:
    """Put two studies beside each other: before and after an upgrade, or two models."""
    from autotune.report.compare import compare as compare_histories
    from autotune.report.compare_files import terminal_comparison, write_comparison
    from autotune.search.ledger import read_history

    found = compare_histories(*(read_history(_folder(name, runs)) for name in (before, after)))
    for path in out or ():
        write_comparison(found, path)
    _console().print(terminal_comparison(found))


@app.command()
def export(
    study: StudyName,
    to: Annotated[
        str,
        typer.Option("--to", help="docker, compose, systemd, kubernetes, helm, slurm, sglang-config, json."),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("export"),
    trial: Annotated[int | None, typer.Option(help="This trial instead of the winner.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Even if it misses its SLO; marked so.")] = False,
    accept_answers: Annotated[
        bool, typer.Option("--accept-answers", help="Even if its answers differ; marked so.")
    ] = False,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Write the confirmed candidate as files for production, its evidence beside them."""
    from autotune.export import export as make_files
    from autotune.export import parse_target, write_files
    from autotune.search.ledger import read_history

    target = parse_target(to)
    history = read_history(_folder(study, runs))
    files = make_files(history, target, trial=trial, force=force, accept_answers=accept_answers)
    for path in write_files(files, out):
        print(path)


@app.command()
def calibrate(
    study: StudyName,
    out: Annotated[Path | None, typer.Option(help="Write it here; profile.yaml beside the study.")] = None,
    profile: Annotated[str | None, typer.Option(help="Begin with it, not the space's.")] = None,
    runs: RunsFolder = Path("runs"),
) -> None:
    """Fit the simulator's constants to a study's launches; write them as a profile for later studies."""
    from autotune.search.calibration.calibrated import calibrated_profile, fit_table, write_profile
    from autotune.search.ledger import read_history

    folder = _folder(study, runs)
    fitted = calibrated_profile(read_history(folder), base=profile)
    out = out or folder / "profile.yaml"
    write_profile(fitted, out)
    print(fit_table(fitted))
    print(f"profile: {out}")


@app.command()
def clean(study: StudyName, runs: RunsFolder = Path("runs")) -> None:
    """Remove what a killed autotune left running of a study, and nothing else."""
    from autotune.engine.launchers import open_launcher
    from autotune.study import load_study, owner_of

    folder = _folder(study, runs)
    known = load_study(folder)
    removed = open_launcher(known.space, seed=known.seed).remove_leftovers(owner_of(known.name, folder))
    for name in removed:
        print(f"removed {name}")
    print(f"{known.name}: {len(removed) or 'nothing'} left behind")


@app.command()
def schema(kind: Annotated[str, typer.Argument(help="space or slo")]) -> None:
    """Print the JSON schema of a search space or SLO file, for editors."""
    from autotune.slo import Slo
    from autotune.space import SearchSpace

    models: dict[str, type[BaseModel]] = {"space": SearchSpace, "slo": Slo}
    if kind not in models:
        raise ConfigError(f"schema {kind!r}: there are {', '.join(models)}")
    print(json.dumps(models[kind].model_json_schema(by_alias=True), indent=2))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def simulate_server(
    context: typer.Context,
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="A simulator profile.")],
    time_scale: Annotated[float, typer.Option(help="How much faster than real time it serves.")] = 1.0,
    start_scale: Annotated[float, typer.Option(help="The share of the start-up time that it takes.")] = 1.0,
) -> None:
    """Serve the simulator behind SGLang's HTTP interface; takes SGLang's own flags too."""
    from autotune.simulator.profile import read_profile
    from autotune.simulator.server import serve

    code = serve(read_profile(profile), context.args, time_scale=time_scale, start_scale=start_scale)
    raise typer.Exit(code)


app.command()(bench)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn Ctrl-C, a hang-up and SIGTERM into a message; by then every context manager has cleaned up."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup's choice to ignore a hang-up is kept
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        message = "autotune: stopped. Everything is kept; the same command goes on from here."
        print(message, file=sys.stderr)
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None


def _read(
    space: Path, slo: Path, launcher: str | None, name: str | None = None, seed: int = 0
) -> "StudyDraft":
    from autotune.engine.launchers import parse_launcher
    from autotune.study import read_study

    kind = None if launcher is None else parse_launcher(launcher)
    draft = read_study(space, slo, name=name, launcher=kind, seed=seed)
    for warning in draft.warnings:
        print(f"autotune: warning: {warning}", file=sys.stderr)
    return draft


def _folder(study: str, runs: Path) -> Path:
    return Path(study) if (Path(study) / "study.yaml").exists() else runs / study


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _show(history: "StudyHistory", **asked: Path | None) -> None:
    from autotune.report.files import write_files
    from autotune.report.terminal import commands_text, terminal_report

    console = _console()
    console.print(terminal_report(history))
    console.print(commands_text(history), soft_wrap=True)
    if page := write_files(history, **asked):
        print(f"report: {page}")


def _judged_again(history: "StudyHistory", path: Path) -> "StudyHistory":
    from autotune.search.other_slo import read_other_slo
    from autotune.search.rejudged import rejudge

    draft = read_other_slo(path, history.study)
    for warning in draft.warnings:
        print(f"autotune: warning: {warning}", file=sys.stderr)
    return rejudge(history, draft.slo, path)


def _exit_by(history: "StudyHistory") -> None:
    if history.answer is None or not history.answer.meets_slo:
        raise typer.Exit(1)
