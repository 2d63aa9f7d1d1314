from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autotune.errors import ConfigError
from autotune.export.kubernetes import WARNING, kubernetes_files
from autotune.export.selection import Selection, select
from tests.support import histories as made
from tests.support.kubelet import Refused, check, expanded

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
RDMA = {"container": {"devices": ["/dev/infiniband", "/dev/gdrdrv"], "capabilities": ["CAP_SYS_NICE"]}}


def selected(space: Mapping[str, object]) -> Selection:
    return select(made.improved(space), number=None, force=False)


def manifests(space: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, Any]]:
    (file,) = kubernetes_files(selected(space))
    assert "&id" not in file.text
    workload, service = yaml.safe_load_all(file.text)
    return workload, service


def pods(space: Mapping[str, object]) -> list[dict[str, Any]]:
    """Return the pod templates of rank 0 and, with several nodes, of the others."""
    spec = manifests(space)[0]["spec"]
    if "template" in spec:
        return [spec["template"]["spec"]]
    group = spec["leaderWorkerTemplate"]
    return [group["leaderTemplate"]["spec"], group["workerTemplate"]["spec"]]


def container(space: Mapping[str, object], role: int = 0) -> dict[str, Any]:
    (found,) = pods(space)[role]["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("space", [{}, made.TWO_NODES, RDMA, {**made.TWO_NODES, **RDMA}])
def test_the_published_schemas_allow_every_object(space: Mapping[str, object]) -> None:
    for manifest in manifests(space):
        check(manifest)


def test_the_schemas_refuse_what_is_not_there() -> None:
    workload, service = manifests(made.TWO_NODES)
    with pytest.raises(Refused):
        check({**workload, "spec": {**workload["spec"], "size": 2}})
    with pytest.raises(Refused):
        check({**service, "spec": {**service["spec"], "port": 1}})


@settings(max_examples=25)
@given(model=WORDS, value=WORDS)
@example(model="$(LWS_WORKER_INDEX)", value="$$(HOME) $(HOME) $")
@example(model="--node-rank", value="1e3")
@example(model="y", value="N")
def test_every_rank_gets_exactly_the_planned_words(model: str, value: str) -> None:
    space = {**made.TWO_NODES, "model": model, "environment": {"NAME": value}}
    for rank in (0, 1):
        found = container(space, rank)
        variables = {"LWS_LEADER_ADDRESS": "leader", "LWS_WORKER_INDEX": str(rank), "HOME": "/wrong"}
        argv = selected(space).plan_led_from("leader").ranks[rank].argv
        assert tuple(expanded(word, variables) for word in found["args"]) == argv
        assert expanded(found["env"][0]["value"], variables) == value


@settings(max_examples=25)
@given(model=WORDS, source=WORDS)
def test_one_node_runs_the_words_of_its_container(model: str, source: str) -> None:
    space = {"model": model, "mounts": [{"source": source, "target": "/models"}]}
    argv = selected(space).container_plan.ranks[0].argv
    assert tuple(expanded(word, {}) for word in container(space)["args"]) == argv
    assert pods(space)[0]["volumes"][1]["hostPath"] == {"path": source, "type": "Directory"}


def test_only_rank_0_is_probed_and_it_has_the_time_that_a_trial_has() -> None:
    for space, probed in (({}, [True]), (made.TWO_NODES, [True, False])):
        for role, is_probed in enumerate(probed):
            found = container({**space, "ready_timeout_s": 3601.0}, role)
            names = {"startupProbe", "readinessProbe", "livenessProbe"}
            assert (names & found.keys() == names) is is_probed
            assert bool(names & found.keys()) is is_probed
    probe = container({"ready_timeout_s": 3601.0})["startupProbe"]
    assert probe["httpGet"] == {"path": "/health", "port": 30000}
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 3601
    assert probe["timeoutSeconds"] > 20


def test_the_service_leads_to_rank_0_alone() -> None:
    workload, service = manifests(made.TWO_NODES)
    assert service["metadata"]["name"] == "sglang-r1-leader"
    assert service["spec"]["selector"] == {
        "leaderworkerset.sigs.k8s.io/name": workload["metadata"]["name"],
        "leaderworkerset.sigs.k8s.io/worker-index": "0",
    }
    workload, service = manifests({})
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert service["metadata"]["name"] == "sglang-r1"
    assert service["spec"]["selector"] == labels == workload["spec"]["selector"]["matchLabels"]


def test_several_nodes_are_a_group_that_lives_and_dies_together_on_the_hosts_network() -> None:
    group = manifests(made.TWO_NODES)[0]["spec"]["leaderWorkerTemplate"]
    assert (group["size"], group["restartPolicy"]) == (2, "RecreateGroupOnPodRestart")
    assert all(
        pod["hostNetwork"] and pod["dnsPolicy"] == "ClusterFirstWithHostNet" for pod in pods(made.TWO_NODES)
    )
    assert "hostNetwork" not in pods({})[0]


@pytest.mark.parametrize(
    ("node", "limits"),
    [
        ({"gpus": 8}, {"nvidia.com/gpu": "8"}),
        ({"gpu_ids": ["0", "3"]}, {"nvidia.com/gpu": "2"}),
        ({"gpus": 4, "accelerator": "amd"}, {"amd.com/gpu": "4"}),
        ({"gpus": 16, "accelerator": "ascend"}, {"huawei.com/Ascend910": "16"}),
        ({"gpus": 2, "accelerator": "none"}, None),
    ],
)
def test_gpus_are_asked_of_the_vendors_device_plugin(
    node: Mapping[str, object], limits: Mapping[str, str] | None
) -> None:
    found = container({"nodes": [{"name": "node0", **node}], "environment": {}, "environment_from": []})
    assert found.get("resources", {}).get("limits") == limits
    assert "env" not in found


def test_infiniband_becomes_an_rdma_resource_and_other_devices_are_named_as_missing() -> None:
    found = container(RDMA)
    assert found["resources"]["limits"]["rdma/hca_shared_devices_a"] == "1"
    assert found["securityContext"]["capabilities"]["add"] == ["SYS_NICE", "IPC_LOCK"]
    assert "rdma/hca_shared_devices_a" not in container({})["resources"]["limits"]
    text = kubernetes_files(selected(RDMA))[0].text
    assert "# NOT PASSED ON, as Kubernetes needs a device plugin for it: /dev/gdrdrv\n" in text


def test_shared_memory_is_the_pods_own_and_in_memory() -> None:
    assert pods({})[0]["volumes"][0] == {
        "name": "shm",
        "emptyDir": {"medium": "Memory", "sizeLimit": "32Gi"},
    }
    assert container({})["volumeMounts"][0] == {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108 - in a pod
    shared = pods({"container": {"ipc": "host"}})[0]
    assert shared["hostIPC"] is True
    assert [volume["name"] for volume in shared["volumes"]] == ["mount-0"]


@pytest.mark.parametrize(
    ("docker", "kubernetes"),
    [
        ("900g", "900Gi"),
        ("1.5T", "1.5Ti"),
        ("512MiB", "512Mi"),
        ("64kb", "64Ki"),
        ("1073741824", "1073741824"),
    ],
)
def test_sizes_keep_their_bytes(docker: str, kubernetes: str) -> None:
    assert container({"container": {"memory": docker}})["resources"]["limits"]["memory"] == kubernetes


def test_what_is_no_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"container\.shm_size 'much' is no size"):
        manifests({"container": {"shm_size": "much"}})


def test_secrets_are_references_and_never_values() -> None:
    secret = container({})["env"][1]
    assert secret == {
        "name": "HF_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "sglang-r1", "key": "HF_TOKEN"}},
    }
    assert "# First: kubectl create secret generic sglang-r1 --from-literal=HF_TOKEN=" in (
        kubernetes_files(selected({}))[0].text
    )


def test_unlike_workers_are_refused_and_an_unlike_leader_is_not() -> None:
    nodes = [{"name": f"n{gpus}{index}", "gpus": gpus} for index, gpus in enumerate((4, 8, 8))]
    assert container({"nodes": nodes}, 1)["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    with pytest.raises(ConfigError, match="all workers alike"):
        manifests({"nodes": [*nodes, {"name": "small", "gpus": 1}]})


def test_an_image_is_needed_and_pulled_as_in_the_trial() -> None:
    with pytest.raises(ConfigError, match="names no image"):
        manifests({"image": None})
    assert container({})["imagePullPolicy"] == "IfNotPresent"
    assert container({"container": {"pull": False}})["imagePullPolicy"] == "Never"


def test_a_name_that_dns_does_not_allow_is_changed() -> None:
    history = made.improved()
    study = history.study.model_copy(update={"name": "Deep_Seek.R1-" + "x" * 60})
    selection = select(made.history(study, *history.trials, answer=history.answer), number=None, force=False)
    workload, _ = yaml.safe_load_all(kubernetes_files(selection)[0].text)
    assert workload["metadata"]["name"] == "sglang-deep-seek-r1-" + "x" * 20


def test_a_forced_export_says_so_in_the_cluster_too() -> None:
    selection = select(made.nothing_meets(), number=None, force=True)
    for manifest in yaml.safe_load_all(kubernetes_files(selection)[0].text):
        check(manifest)
        assert manifest["metadata"]["annotations"][WARNING].startswith("DOES NOT MEET ITS SLO: ttft p95")
    assert "annotations" not in manifests({})[0]["metadata"]


def test_what_gos_yaml_takes_for_a_truth_is_quoted() -> None:
    text = kubernetes_files(selected({"environment": {"A": "y", "B": "N"}}))[0].text
    assert "value: 'y'\n" in text
    assert "value: 'N'\n" in text
