"""The Kubernetes files against KubeRay's published schema and its own rules, and against what they promise."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.infra.manifests import (
    CRDS,
    KUBERAY,
    KUBERNETES,
    OVERLAYS,
    Manifest,
    built,
    check_spec,
    one,
    pods,
    read,
    with_cluster,
    yaml_files,
)

BASE = KUBERNETES / "base"
JOBS = ("train.yaml", "stylize.yaml", "retrain.yaml", "retrain-nightly.yaml")
TARGETS = [*(f"overlays/{name}" for name in OVERLAYS), "jobs"]


@pytest.mark.parametrize("path", yaml_files(), ids=lambda path: "/".join(path.parts[-2:]))
def test_every_file_parses_and_says_first_what_to_change(path):
    assert read(path)
    assert path.read_text().startswith("# Change: ")


def test_the_schema_is_that_of_the_release_that_the_files_name():
    assert KUBERAY in CRDS["notice"] and "Apache License" in CRDS["notice"]
    assert f"KubeRay {KUBERAY}" in (BASE / "ray-cluster.yaml").read_text()
    assert f"--version {KUBERAY}" in (KUBERNETES.parent / "README.md").read_text()


def test_the_schema_refuses_what_kuberay_would_refuse():
    [cluster] = read(BASE / "ray-cluster.yaml")
    for broken in ({"headGroupSpec": {}}, {"rayVersoin": "2.60.0"}, {"authOptions": {"mode": "none"}}):
        with pytest.raises(AssertionError):
            check_spec("RayCluster", {**cluster["spec"], **broken})


def test_single_files_follow_the_schema():
    [cluster] = read(BASE / "ray-cluster.yaml")
    check_spec("RayCluster", cluster["spec"])
    for name in JOBS:
        [job] = read(KUBERNETES / "jobs" / name)
        check_spec(job["kind"], with_cluster(job, cluster)["spec"])


@pytest.mark.parametrize("folder", TARGETS)
def test_what_kustomize_builds_follows_the_schema(folder):
    kinds = [item["kind"] for item in built(folder)]
    assert kinds.count("RayCluster") == 1
    for item in built(folder):
        if item["kind"].startswith("Ray"):
            check_spec(item["kind"], item["spec"])
        assert item["kind"] == "Namespace" or item["metadata"]["namespace"] == "stylemill"


@pytest.mark.parametrize("folder", TARGETS)
def test_network_policies_follow_the_schema(folder):
    policies = [item for item in built(folder) if item["kind"] == "NetworkPolicy"]
    assert len(policies) == 2
    for policy in policies:
        assert set(policy["spec"]) <= {"podSelector", "policyTypes", "ingress", "egress"}
        found = {f"{way}Rules": policy["spec"][way] for way in ("ingress", "egress") if way in policy["spec"]}
        # KubeRay takes the same rules, so its schema knows them.
        check_spec("RayCluster", {"headGroupSpec": {"template": {}}, "networkPolicy": {"head": found}})


def test_each_job_gets_the_cluster_of_its_overlay():
    manifests = built("jobs")
    cluster = one(manifests, "RayCluster", "stylemill")["spec"]
    for name in ("train", "stylize", "retrain"):
        assert one(manifests, "RayJob", f"stylemill-{name}")["spec"]["rayClusterSpec"] == cluster
    nightly = one(manifests, "RayCronJob", "stylemill-retrain-nightly")["spec"]["jobTemplate"]
    assert nightly["rayClusterSpec"] == cluster
    # The night's job does the same, whichever of the two schedules starts it.
    by_hand = one(manifests, "RayJob", "stylemill-retrain")["spec"]
    assert {**by_hand, "suspend": None} == {**nightly, "suspend": None}


def rayjob_specs() -> list[tuple[str, Manifest]]:
    specs = []
    for name in JOBS:
        [job] = read(KUBERNETES / "jobs" / name)
        specs.append((job["metadata"]["name"], job["spec"].get("jobTemplate", job["spec"])))
    return specs


@pytest.mark.parametrize(("name", "spec"), rayjob_specs(), ids=lambda value: value if isinstance(value, str) else "")
def test_jobs_are_bounded_and_keep_kuberays_rules(name: str, spec: Manifest):
    """Rules of ray-operator/controllers/ray/utils/validation.go that no schema tells."""
    assert re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", name) and len(name) <= 36
    assert 1 <= spec["backoffLimit"] <= 5 and "clusterSelector" not in spec
    assert 0 < spec["activeDeadlineSeconds"] <= 7 * 86400
    assert 0 < spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
    assert spec["shutdownAfterJobFinishes"] and spec["ttlSecondsAfterFinished"] > 0


def test_the_cronjob_waits_for_its_rayjob_and_never_overlaps():
    documents = read(KUBERNETES / "jobs" / "retrain-by-cronjob.yaml")
    cron = one(documents, "CronJob", "stylemill-retrain-nightly")["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    job = cron["jobTemplate"]["spec"]
    check_spec("RayJob", {"submitterPodTemplate": job["template"]})
    [retrain] = read(KUBERNETES / "jobs" / "retrain.yaml")
    # The pod that waits must outlive the RayJob, or the next firing would overlap with it.
    assert job["activeDeadlineSeconds"] > retrain["spec"]["activeDeadlineSeconds"]
    command = job["template"]["spec"]["containers"][0]["command"]
    assert command[command.index("--template") + 1] == retrain["metadata"]["name"] and retrain["spec"]["suspend"]
    role = one(documents, "Role", "stylemill-create-ray-job")
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "create"]}]


@pytest.mark.parametrize("folder", TARGETS)
def test_pods_have_no_privileges_and_have_limits(folder):
    found = [pod for item in built(folder) for pod in pods(item)]
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["serviceAccountName"].startswith("stylemill-")
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
        for container in pod["containers"]:
            context = {**pod["securityContext"], **container["securityContext"]}
            assert context["runAsNonRoot"] and not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])


@pytest.mark.parametrize("folder", TARGETS)
def test_the_cluster_is_closed_and_its_head_does_no_work(folder):
    spec = one(built(folder), "RayCluster", "stylemill")["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    head = spec["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0" and head["rayStartParams"]["num-gpus"] == "0"
    assert head["serviceType"] == "ClusterIP"
    for group in (head, *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert "restartPolicy" not in pod, "autoscaler v2 wants it unset"
        assert {"readinessProbe", "livenessProbe"} <= set(pod["containers"][0])
    # KubeRay lets the head's account create and delete pods: the workers, which open strangers' files, have another.
    accounts = {group["template"]["spec"]["serviceAccountName"] for group in spec["workerGroupSpecs"]}
    assert accounts == {"stylemill-worker"} and head["template"]["spec"]["serviceAccountName"] == "stylemill-head"


@pytest.mark.parametrize("folder", TARGETS)
def test_no_secret_stands_in_a_manifest(folder):
    for item in built(folder):
        assert item["kind"] != "Secret"
        for pod in pods(item):
            for container in pod["containers"]:
                for variable in container.get("env", []):
                    assert not re.search("KEY|SECRET|TOKEN|PASSWORD", variable["name"])
    if folder in ("overlays/aws", "overlays/gcp"):
        for account in ("stylemill-head", "stylemill-worker"):
            assert one(built(folder), "ServiceAccount", account)["metadata"]["annotations"]


POD = {"ray.io/is-ray-node": "yes"}


@pytest.mark.parametrize("folder", TARGETS)
@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ({"namespace": "default", "labels": {}}, set()),
        ({"namespace": "default", "labels": POD}, set()),
        ({"namespace": "stylemill", "labels": {"app": "web"}}, set()),
        ({"namespace": "stylemill", "labels": POD}, {6379, 8265, 10001, 8080, 44217, 31000}),
        ({"namespace": "stylemill", "labels": {"stylemill/client": "yes"}}, {8265}),
        ({"namespace": "stylemill", "labels": {"ray.io/originated-from-crd": "RayJob"}}, {8265}),
        ({"namespace": "kuberay-system", "labels": {}}, {8265}),
        ({"namespace": "monitoring", "labels": {}}, {8080, 44217}),
    ],
    ids=lambda value: "-".join([value["namespace"], *value["labels"]]) if isinstance(value, dict) else "",
)
def test_who_reaches_which_port_of_ray(folder: str, peer: Manifest, allowed: set[int]):
    policies = [item["spec"] for item in built(folder) if item["kind"] == "NetworkPolicy"]
    ports = (6379, 8265, 10001, 8080, 44217, 31000)
    assert {port for port in ports if may_enter(policies, POD, peer, port)} == allowed


def may_enter(policies: list[Manifest], target: dict[str, str], peer: Manifest, port: int) -> bool:
    """What Kubernetes' documentation says about ingress: once a policy selects a pod, only what a rule names enters."""
    selecting = [spec for spec in policies if "Ingress" in spec["policyTypes"] and fits(spec["podSelector"], target)]
    assert selecting, "no policy selects Ray's pods: everything would be open"
    rules = [rule for spec in selecting for rule in spec.get("ingress", [])]
    return any(
        any(is_peer(source, peer) for source in rule["from"])
        and ("ports" not in rule or any(item["port"] == port for item in rule["ports"]))
        for rule in rules
    )


def is_peer(source: Manifest, peer: Manifest) -> bool:
    assert set(source) <= {"podSelector", "namespaceSelector"}
    if "namespaceSelector" in source:
        if not fits(source["namespaceSelector"], {"kubernetes.io/metadata.name": peer["namespace"]}):
            return False
    elif peer["namespace"] != "stylemill":
        return False
    return fits(source.get("podSelector", {}), peer["labels"])


def fits(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()
