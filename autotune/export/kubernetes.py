"""Manifests for Kubernetes: a LeaderWorkerSet for several nodes, a Deployment for one, and a Service. Pure.

In: a `Selection`. Out: `kubernetes.yaml` for kubectl apply. Invariants: the Service leads to rank 0 alone;
a pod that fails takes its whole group with it, because the others would wait for it in vain.
Source: kubernetes-sigs/lws 0.9.0, api/leaderworkerset/v1 (LWS_WORKER_INDEX is there since 0.6.0).
"""

import json

from autotune.document import dump_yaml
from autotune.export.file import ExportFile, comments
from autotune.export.pods import Object, PodPlan, pod_notes, pod_plan, service_name
from autotune.export.selection import Selection

_SET = "leaderworkerset.sigs.k8s.io/name"
_INDEX = "leaderworkerset.sigs.k8s.io/worker-index"
_NAME = "app.kubernetes.io/name"
_SPARE_S = 60
WARNING = "autotune/warning"


def kubernetes_files(selection: Selection) -> tuple[ExportFile, ...]:
    """Return `kubernetes.yaml`.

    Raises:
        ConfigError: the search space names no image, its workers are unlike, or a size cannot be read.
    """
    made = objects(pod_plan(selection), annotations(selection))
    documents = "---\n".join(dump_yaml(_unshared(each)) for each in made)
    notes = (*selection.head, *cluster_notes(selection), *pod_notes(selection))
    return (ExportFile("kubernetes.yaml", comments(notes) + documents),)


def cluster_notes(selection: Selection) -> tuple[str, ...]:
    """Return what the cluster must have."""
    several = len(selection.history.study.space.nodes) > 1
    return ("Needs LeaderWorkerSet 0.6.0 or later (https://lws.sigs.k8s.io).",) if several else ()


def annotations(selection: Selection) -> dict[str, str]:
    """Return what the objects in the cluster say of themselves; comments do not get there."""
    return {WARNING: "\n".join(selection.marks)} if selection.marks else {}


def service_host(selection: Selection) -> str:
    """Return the name by which pods of the same namespace reach rank 0.

    A LeaderWorkerSet makes a headless Service of its own name.
    """
    several = len(selection.history.study.space.nodes) > 1
    return f"{service_name(selection)}-leader" if several else service_name(selection)


def objects(plan: PodPlan, notes: dict[str, str]) -> tuple[Object, Object]:
    """Return the workload and its Service."""
    workload = _group(plan, notes) if plan.size > 1 else _deployment(plan, notes)
    return workload, _service(plan, notes)


def _unshared(data: Object) -> Object:
    """Return a copy in which no part stands twice, because YAML would write an alias for it."""
    copy: Object = json.loads(json.dumps(data))
    return copy


def _metadata(name: str, plan: PodPlan, notes: dict[str, str]) -> Object:
    return {"name": name, "labels": {_NAME: plan.name}, **({"annotations": notes} if notes else {})}


def _deployment(plan: PodPlan, notes: dict[str, str]) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(plan.name, plan, notes),
        "spec": {
            "replicas": 1,
            "progressDeadlineSeconds": plan.start_s + _SPARE_S,
            "strategy": {"type": "Recreate"},  # no second set of GPUs is needed for an update
            "selector": {"matchLabels": {_NAME: plan.name}},
            "template": _template(plan, plan.probes, plan.leader_resources),
        },
    }


def _group(plan: PodPlan, notes: dict[str, str]) -> Object:
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": _metadata(plan.name, plan, notes),
        "spec": {
            "replicas": 1,
            "startupPolicy": "LeaderCreated",
            "leaderWorkerTemplate": {
                "size": plan.size,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": _template(plan, plan.probes, plan.leader_resources),
                "workerTemplate": _template(plan, {}, plan.worker_resources),
            },
        },
    }


def _template(plan: PodPlan, probes: Object, resources: Object) -> Object:
    container = {**plan.container, **({"resources": resources} if resources else {}), **probes}
    volumes = {"volumes": list(plan.volumes)} if plan.volumes else {}
    return {
        "metadata": {"labels": {_NAME: plan.name}},
        "spec": {**plan.settings, "containers": [container], **volumes},
    }


def _service(plan: PodPlan, notes: dict[str, str]) -> Object:
    is_group = plan.size > 1
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(f"{plan.name}-leader" if is_group else plan.name, plan, notes),
        "spec": {
            "selector": {_SET: plan.name, _INDEX: "0"} if is_group else {_NAME: plan.name},
            "ports": [{"name": "http", "port": plan.port, "targetPort": "http"}],
        },
    }
