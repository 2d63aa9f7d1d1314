"""A study: one search space, one SLO and a seed, checked against each other and written down once.

In: two YAML files. Out: `Study`, and `runs/<study>/study.yaml`, from which it can be read back.
Invariant: a run folder belongs to one study for ever; other inputs under the same name are refused.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from autotune.atomic import replace_text
from autotune.document import Document, Frozen, KeyPath, Model, read_document, to_yaml
from autotune.engine.dialects import dialect_of
from autotune.errors import ConfigError, Problem, StudyError, did_you_mean
from autotune.expression import Expression
from autotune.load.text import text_maker
from autotune.load.workload import offer, read_dataset
from autotune.simulator.profile import profile_names, read_profile
from autotune.slo import Slo, undecidable
from autotune.space import Candidate, Choices, FlagValue, LauncherKind, SearchSpace
from autotune.uninterrupted import signals_held

STUDY_FILE = "study.yaml"
_READERS: Mapping[str, Callable[[Path], object]] = {"dataset": read_dataset, "tokenizer": text_maker}


class Study(Frozen):
    """What is asked: everything that decides which trials make sense together.

    `inputs_sha256`: the content of every file that the SLO names (dataset, tokenizer, traces), by what it is
    for; a path alone says little.
    """

    name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", max_length=100)
    space: SearchSpace
    slo: Slo
    seed: int = 0
    inputs_sha256: dict[str, str] = Field(default={})

    @property
    @signals_held()  # as `to_yaml`
    def identity(self) -> str:
        """A hash of all that was asked, the name left out.

        What keeps its default is left out too, so that a new setting in a later version does not part a study
        from its own past.
        """
        asked = self.model_dump(mode="json", by_alias=True, exclude={"name"}, exclude_defaults=True)
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class StudyDraft:
    """A study that was read, and what is worth a warning in it."""

    study: Study
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class SloDraft:
    """An SLO that was read, where its keys stand in the file, and what is worth a warning in it.

    `inputs_sha256`: as a study's.
    """

    slo: Slo
    document: Document
    warnings: tuple[str, ...]
    inputs_sha256: Mapping[str, str]


def read_study(
    space_path: Path,
    slo_path: Path,
    *,
    name: str | None = None,
    launcher: LauncherKind | None = None,
    seed: int = 0,
) -> StudyDraft:
    """Read both files and check them together.

    Raises:
        ConfigError: with every problem that was found, in either file.
    """
    problems: list[Problem] = []
    space_file, space = _read(space_path, SearchSpace, problems)
    if space_file is not None and space is not None:
        space = space if launcher is None else space.model_copy(update={"launcher": launcher})
        space = _with_whole_profile(space, space_file)
        problems += _space_problems(space, space_file)
    slo_file, slo = _read_slo(slo_path, problems)
    if space is None or slo_file is None or slo is None or problems:
        raise ConfigError(problems)
    name = name or _study_name(space_path, slo_path)
    if re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,99}", name) is None:
        raise ConfigError(
            f"--study {name!r}: a name has letters, digits, '.', '_' and '-', at most 100 of them"
        )
    study = Study(name=name, space=space, slo=slo, seed=seed, inputs_sha256=_inputs_sha256(slo))
    return StudyDraft(study, (*_warnings(space), *_undecidable(slo, slo_file)))


def read_slo(path: Path) -> SloDraft:
    """Read an SLO file by itself.

    Raises:
        ConfigError: with every problem that was found.
    """
    problems: list[Problem] = []
    document, slo = _read_slo(path, problems)
    if document is None or slo is None or problems:
        raise ConfigError(problems)
    return SloDraft(slo, document, tuple(_undecidable(slo, document)), _inputs_sha256(slo))


def save_study(study: Study, folder: Path) -> None:
    """Write the study into its run folder, or check that the folder already holds this very study.

    Raises:
        StudyError: the folder belongs to another study.
        InfrastructureError: it cannot be written.
    """
    path = folder / STUDY_FILE
    if not path.exists():
        replace_text(path, to_yaml(study))
        return
    stored = load_study(folder)
    if stored.identity != study.identity:
        raise StudyError(
            f"{folder} holds a study with other inputs ({_first_difference(stored, study)}).\n"
            "    Give this one another name with --study, or remove that folder."
        )


def load_study(folder: Path) -> Study:
    """Read a study back from its run folder.

    Raises:
        StudyError: there is none, or it is damaged.
    """
    if not (folder / STUDY_FILE).exists():
        raise StudyError(f"{folder} holds no study: {STUDY_FILE} is missing")
    try:
        return read_document(folder / STUDY_FILE).to_model(Study)
    except ConfigError as error:
        raise StudyError(f"{folder / STUDY_FILE} is damaged:\n{error}") from error


def owner_of(name: str, folder: Path) -> str:
    """Return the mark of everything that a study launches: two run folders never share one."""
    return f"{name}-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"


def _read(path: Path, model: type[Model], problems: list[Problem]) -> tuple[Document | None, Model | None]:
    """Return the file and its model, as far as there are; what is wrong with them joins the problems."""
    document = None
    try:
        document = read_document(path)
        return document, document.to_model(model)
    except ConfigError as error:
        problems += error.problems
        return document, None


def _read_slo(path: Path, problems: list[Problem]) -> tuple[Document | None, Slo | None]:
    """Return the file and the SLO, as far as there are, with whole paths of the files that it names."""
    document, slo = _read(path, Slo, problems)
    if document is None or slo is None:
        return document, None
    return document, _with_files(slo, document, problems)


def _with_whole_profile(space: SearchSpace, document: Document) -> SearchSpace:
    """Return the space with the whole path of its profile, if that is a file beside it."""
    if space.profile is None or not space.profile.endswith(".yaml"):
        return space
    return space.model_copy(update={"profile": str((document.path.parent / space.profile).resolve())})


def _space_problems(space: SearchSpace, document: Document) -> tuple[Problem, ...]:
    problems = (
        *_flag_problems(space, document),
        *_expression_problems(space, document),
        *_launcher_problems(space, document),
    )
    return problems or tuple(_candidate_problems(space, document))


def _flag_problems(space: SearchSpace, document: Document) -> Iterator[Problem]:
    """Check every flag and value against the catalogue of the engine's version."""
    catalogue = dialect_of(space.engine).catalogue(space.version)
    checked = (
        (section, name, catalogue.check(name, value)) for section, name, value in _written_values(space)
    )
    for section, name, message in dict.fromkeys(checked):  # two values of a flag may be wrong alike
        if message is not None:
            yield document.problem((section, name), message)
    for at, flags in space.written_candidates:
        for name, value in flags.items():
            if not space.tune[name].contains(value):
                message = f"{value!r} is not among the values that tune.{name} allows"
                yield document.problem((*at, name), message)


def _candidate_problems(space: SearchSpace, document: Document) -> Iterator[Problem]:
    """Refuse a candidate that cannot run; such a baseline would say nothing, and every gain be unknown."""
    for at, flags in space.written_candidates:
        reason = dialect_of(space.engine).invalid_reason(space, Candidate.of(flags))
        if reason is None:
            continue
        what, remedy = "the baseline", "Change 'flags' or 'baseline' to what you run today."
        if at[0] == "try":
            what, remedy = "this candidate", "Change it or take it out."
        yield document.problem(at, f"the engine would refuse {what}: {reason}", remedy)


def _expression_problems(space: SearchSpace, document: Document) -> Iterator[Problem]:
    """Evaluate every expression at both ends of every flag, so that a wrong type shows before a launch."""
    for end in (0, -1):
        flags = {
            name: (tunable.choices if isinstance(tunable, Choices) else tunable.bounds)[end]
            for name, tunable in space.tune.items()
        }
        expressions: list[tuple[KeyPath, Expression]] = [
            *((("tune", name), each) for name, each in space.conditions.items() if each),
            *((("require", index), each) for index, each in enumerate(space.requirements)),
        ]
        for key, expression in expressions:
            try:
                expression.holds({**space.flags, **flags})
            except ValueError as error:
                yield document.problem(key, str(error))


def _written_values(space: SearchSpace) -> Iterator[tuple[str, str, FlagValue]]:
    for name, value in space.flags.items():
        yield "flags", name, value
    for name, tunable in space.tune.items():
        values = tunable.choices if isinstance(tunable, Choices) else tunable.bounds
        for value in values:
            yield "tune", name, value


def _launcher_problems(space: SearchSpace, document: Document) -> Iterator[Problem]:
    match space.launcher:
        case LauncherKind.SIMULATED if space.profile is None:
            yield document.problem(
                ("profile",),
                "the simulated launcher needs a profile",
                f"Add a line 'profile: NAME'; there are {', '.join(profile_names())}.",
            )
        case LauncherKind.PROCESS if len(space.slots) > 1:
            yield document.problem(
                ("nodes_per_engine",),
                "the process launcher runs one engine at a time",
                "Use launcher docker, which keeps engines apart, or take nodes_per_engine out.",
            )
        case LauncherKind.DOCKER if space.image is None:
            remedy = f"Add a line 'image: NAME', such as lmsysorg/sglang:v{space.version}."
            yield document.problem(("launcher",), "the docker launcher needs an image", remedy)
    names = profile_names()
    if space.profile is None or space.profile in names:
        return
    if space.profile.endswith(".yaml"):
        yield from _profile_problems(space.profile, document)
        return
    remedy = did_you_mean(space.profile, names) or f"There are {', '.join(names)}, or a path to a .yaml file."
    yield document.problem(("profile",), f"no profile {space.profile!r}", remedy)


def _profile_problems(path: str, document: Document) -> Iterator[Problem]:
    try:
        read_profile(path)
    except ConfigError as error:
        yield document.problem(("profile",), f"no profile {path!r}: {error}")


def _warnings(space: SearchSpace) -> Iterator[str]:
    catalogue = dialect_of(space.engine).catalogue(space.version)
    if not catalogue.is_exact:
        yield (
            f"no flag catalogue of {space.engine} {space.version}; using that of {catalogue.version}. "
            "The engine's own errors will tell what differs."
        )
    yield from filter(None, map(catalogue.warning, (*space.flags, *space.tune)))


def _undecidable(slo: Slo, document: Document) -> Iterator[str]:
    for problem in undecidable(slo):
        key = tuple(int(part) if part.isdigit() else part for part in (problem.key or "").split("."))
        yield str(document.problem(key, problem.message, problem.remedy))


def _with_files(slo: Slo, document: Document, problems: list[Problem]) -> Slo:
    """Return the SLO with whole paths of its files; each is read once, so that it can be."""
    folder, workload = document.path.parent, slo.workload
    names = {"dataset": workload.dataset, "tokenizer": workload.tokenizer}
    whole = {key: (folder / name).resolve() for key, name in names.items() if name is not None}
    workload = workload.model_copy(update=whole)
    load = tuple(
        point if point.trace is None else point.model_copy(update={"trace": (folder / point.trace).resolve()})
        for point in slo.load
    )
    files: list[tuple[KeyPath, Path, Callable[[Path], object]]] = [
        *((("workload", key), path, _READERS[key]) for key, path in whole.items()),
        *(
            (("load", index, "trace"), point.trace, lambda _path, point=point: offer(workload, point, salt=0))
            for index, point in enumerate(load)
            if point.trace is not None
        ),
    ]
    for key, path, read in files:
        problems += _file_problems(key, path, read, document)
    return slo.model_copy(update={"workload": workload, "load": load})


def _file_problems(
    key: KeyPath, path: Path, read: Callable[[Path], object], document: Document
) -> tuple[Problem, ...]:
    """Return what is wrong with a file that the SLO names; if it is not there, at the SLO's own line."""
    if not path.is_file():
        return (document.problem(key, f"no such file: {path}", "Paths are relative to the SLO file."),)
    try:
        read(path)
    except ConfigError as error:
        return error.problems
    return ()


def _inputs_sha256(slo: Slo) -> dict[str, str]:
    """Return the hash of every file that the SLO names."""
    inputs = {
        "dataset": slo.workload.dataset,
        "tokenizer": slo.workload.tokenizer,
        **{f"trace at {point.label}": point.trace for point in slo.load},
    }
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in inputs.items()
        if path is not None
    }


def _study_name(space_path: Path, slo_path: Path) -> str:
    return re.sub(r"[^a-zA-Z0-9_.-]+", "-", f"{space_path.stem}--{slo_path.stem}")[:100]


def _first_difference(stored: Study, asked: Study) -> str:
    old, new = (
        {
            **study.space.model_dump(mode="json"),
            **study.slo.model_dump(mode="json"),
            "seed": study.seed,
            **{f"the content of the {name}": sha256 for name, sha256 in study.inputs_sha256.items()},
        }
        for study in (stored, asked)
    )
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    return f"{names[0]!r} differs" if names else "they differ"
