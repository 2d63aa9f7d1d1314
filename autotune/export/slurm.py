"""A batch script for Slurm: one srun per rank, rank 0 on the first host of the allocation. Pure.

In: a `Selection`. Out: `job.sbatch`. Invariants: bash reads back exactly the words of the plan, but for the
rank and the address of rank 0; a rank that ends takes the job with it.
Sources: sglang 0.5.23, docs/references/multi_node_deployment/multi_node.md; Slurm 24, man sbatch and srun;
NVIDIA pyxis 0.20, README (an image is run by srun's --container-image).
"""

import shlex
from collections.abc import Iterator

from autotune.errors import ConfigError
from autotune.export.file import ExportFile, comments
from autotune.export.group import filled, group_words
from autotune.export.selection import Selection
from autotune.space import Accelerator, Mount, Node

_WATCH = """\
# The first rank that ends takes the job with it: the others would wait for it in vain.
while true; do
  for step in "${steps[@]}"; do
    kill -0 "$step" 2>/dev/null || { wait "$step"; exit; }
  done
  sleep 1
done
"""  # not `wait -n`, which forgets a step that ended before it was called
_GRES = {Accelerator.NVIDIA: "gpu", Accelerator.AMD: "gpu", Accelerator.ASCEND: "npu"}


def slurm_files(selection: Selection) -> tuple[ExportFile, ...]:
    """Return `job.sbatch`.

    Raises:
        ConfigError: the nodes have different numbers of GPUs, or a mount's path cannot be written for pyxis.
    """
    ranks = range(len(selection.history.study.space.nodes))
    steps = "\n".join(_step(selection, rank) for rank in ranks)
    text = "".join([
        "#!/bin/bash\n",
        comments(_notes(selection)),
        "".join(f"#SBATCH {option}\n" for option in _options(selection)),
        "set -euo pipefail\n\n",
        'allocated=$(scontrol show hostnames "$SLURM_JOB_NODELIST")\n',
        'mapfile -t hosts <<<"$allocated"\n',
        "steps=()\n\n",
        f"{steps}\n",
        _WATCH,
    ])  # fmt: skip
    return (ExportFile("job.sbatch", text),)


def job_name(selection: Selection) -> str:
    """Return the name under which squeue shows the job."""
    study = selection.history.study
    return f"{study.space.engine}-{study.name}"


def _notes(selection: Selection) -> Iterator[str]:
    space = selection.history.study.space
    yield from selection.head
    yield f"Run it with: sbatch job.sbatch. It serves on port {space.port} of the allocation's first host."
    yield "Add #SBATCH lines for the partition, the account and the time limit as your cluster asks for them."
    if space.image is not None:
        yield "The image is run by pyxis, which is there if srun --help names --container-image."
    for name in space.environment_from:
        yield f"{name} is taken from the environment of sbatch."


def _options(selection: Selection) -> Iterator[str]:
    space = selection.history.study.space
    yield f"--job-name={job_name(selection)}"
    yield f"--nodes={len(space.nodes)}"
    yield "--ntasks-per-node=1"
    counts = {(_GRES.get(node.accelerator), _gpus(node)) for node in space.nodes}
    if len(counts) > 1:
        raise ConfigError("--to slurm: every node of a job has the same number of GPUs, these have not")
    ((kind, count),) = counts
    if kind is not None and count:
        yield f"--gres={kind}:{count}"
    if not any(node.gpu_ids for node in space.nodes):
        yield "--exclusive"
        yield "--mem=0"


def _gpus(node: Node) -> int:
    return len(node.gpu_ids) or node.gpus


def _step(selection: Selection, rank: int) -> str:
    space = selection.history.study.space
    meeting_point = f'"${{hosts[0]}}:{space.rendezvous_port}"'
    words = filled(group_words(selection), shlex.quote, rank=str(rank), address=meeting_point)
    settings = [f"{name}={value}" for name, value in sorted(space.environment.items())]
    lines = [
        f'srun --nodes=1 --ntasks=1 --nodelist="${{hosts[{rank}]}}" --cpu-bind=none',
        f"--output={job_name(selection)}-%j-rank{rank}.log",
        *map(shlex.quote, _container_options(selection)),
        *([shlex.join(["env", *settings])] if settings else []),
        " ".join(words),
    ]
    return " \\\n  ".join(lines) + " &\nsteps+=($!)\n"


def _container_options(selection: Selection) -> Iterator[str]:
    space = selection.history.study.space
    if space.image is None:
        return
    yield f"--container-image={_enroot_image(space.image)}"
    yield "--no-container-mount-home"
    if space.mounts:
        yield f"--container-mounts={','.join(map(_pyxis_mount, space.mounts))}"


def _enroot_image(image: str) -> str:
    """Return an image's name as enroot spells it: the registry ends with a number sign."""
    registry, slash, rest = image.partition("/")
    is_registry = slash and (any(mark in registry for mark in ".:") or registry == "localhost")
    return f"{registry}#{rest}" if is_registry else image


def _pyxis_mount(mount: Mount) -> str:
    if set(",:") & set(mount.source + mount.target):
        raise ConfigError(f"--to slurm: pyxis mounts no path with a comma or a colon: {mount.source!r}")
    return f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"
