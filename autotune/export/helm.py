"""A Helm chart of our own, whose templates make the objects of `--to kubernetes` from its values.

In: a `Selection`. Out: a chart in the folder `chart`. Reads the templates, the same ones for every study.
Invariant: a template inserts whole YAML nodes (toYaml), so that no value is taken for YAML or a template.
Why our own: SGLang's sglang-leaderworkerset 0.1.0 (docs/references/multi_node_deployment/lws_pd_helm) always
splits prefill from decode and knows a fixed list of flags; vLLM's production-stack writes `vllm serve` into
its pods; lws 0.9.0 installs the controller alone.
"""

from collections.abc import Iterator
from importlib.resources import files

from autotune.document import dump_yaml
from autotune.errors import ConfigError
from autotune.export.file import ExportFile, comments
from autotune.export.kubernetes import annotations, cluster_notes, objects
from autotune.export.pods import Object, PodPlan, pod_notes, pod_plan
from autotune.export.selection import Selection

_TEMPLATES = ("_pod.tpl", "workload.yaml", "service.yaml")


def helm_files(selection: Selection) -> tuple[ExportFile, ...]:
    """Return the chart: Chart.yaml, values.yaml and the templates.

    Raises:
        ConfigError: the search space names no image, its workers are unlike, a size cannot be read, or a text
            holds a character that Helm would lose.
    """
    plan, head = pod_plan(selection), comments(selection.head)
    notes = comments((*cluster_notes(selection), *pod_notes(selection)))
    values = _values(plan, annotations(selection))
    _refuse_lost_characters(values)
    return (
        ExportFile("chart/Chart.yaml", head + dump_yaml(_chart(selection, plan))),
        ExportFile("chart/values.yaml", head + notes + dump_yaml(values)),
        *(ExportFile(f"chart/templates/{name}", _inert(head) + _template(name)) for name in _TEMPLATES),
    )


def _refuse_lost_characters(values: object) -> None:
    """Refuse what Helm 4.3's toYaml drops or fails on without a word: control and format characters."""
    for text in _texts(values):
        lost = [character for character in text if not character.isprintable() and character not in "\n\t"]
        if lost:
            message = f"--to helm: Helm does not carry the character U+{ord(lost[0]):04X} of {text!r}"
            raise ConfigError(f"{message}; try --to kubernetes")


def _texts(data: object) -> Iterator[str]:
    match data:
        case str():
            yield data
        case dict():
            for value in data.values():
                yield from _texts(value)
        case list():
            for value in data:
                yield from _texts(value)
        case _:
            return


def _template(name: str) -> str:
    return (files("autotune.export") / "chart" / "templates" / name).read_text(encoding="utf-8")


def _inert(text: str) -> str:
    """Return text in which a template engine finds nothing to do."""
    return text.replace("{{", '{{ "{{" }}')


def _chart(selection: Selection, plan: PodPlan) -> Object:
    study = selection.history.study
    return {
        "apiVersion": "v2",
        "name": plan.name,
        "description": f"{study.space.engine} with the flags that autotune found in study {study.name}",
        "type": "application",
        "version": f"0.1.{selection.trial.number}",
        "appVersion": study.space.version,
    }


def _values(plan: PodPlan, notes: dict[str, str]) -> Object:
    workload, service = objects(plan, notes)
    progress = {key: workload["spec"][key] for key in ("progressDeadlineSeconds",) if key in workload["spec"]}
    return {
        "name": plan.name,
        "annotations": notes,
        "replicas": 1,
        "size": plan.size,
        **progress,
        "container": plan.container,
        "probes": plan.probes,
        "leader": {"resources": plan.leader_resources},
        "worker": {"resources": plan.worker_resources},
        "pod": plan.settings,
        "volumes": list(plan.volumes),
        "service": {
            "name": service["metadata"]["name"],
            "port": plan.port,
            "selector": service["spec"]["selector"],
        },
    }
