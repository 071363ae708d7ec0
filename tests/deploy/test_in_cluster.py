"""At home in a real cluster: installed as users do it, and healing with the rights that it has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from tests.deploy.conftest import TAG
from tests.real.charts import Charts
from tests.real.engine import Engine
from tests.real.kubernetes import OwnKubernetes, deployment

from prunella.testing.site import until

KUSTOMIZE = Path(__file__).parents[2] / "deploy" / "kustomize"
HOME = "prunella"
POLICY = {
    "apiVersion": "prunella.dev/v1alpha1",
    "kind": "HealingPolicy",
    "metadata": {"name": "shop"},
}
WELL = {"Accepted": "True", "Healthy": "True"}
pytestmark = pytest.mark.timeout(300)  # an image is built before the first one


class Installed:
    """Prunella in a cluster."""

    def __init__(self, cluster: OwnKubernetes) -> None:
        self.cluster = cluster

    def is_ready(self) -> bool:
        return any(
            one["type"] == "Ready" and one["status"] == "True"
            for pod in self.cluster.pods(HOME)
            for one in pod["status"].get("conditions", ())
        )

    def figure(self, name: str) -> float:
        """One of its metrics, read as Prometheus reads it; 0 if there is none."""
        (pod,) = self.cluster.pods(HOME)
        with urlopen(f"http://{pod['status']['podIP']}:9110/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.fixture
def installed(
    image: Engine, own_kubernetes: OwnKubernetes, charts: Charts, namespace: str, tmp_path: Path
) -> Iterator[Installed]:
    """By kustomize, with the right to heal in `namespace`."""
    cluster = own_kubernetes
    image.docker("save", "--output", str(tmp_path / "image.tar"), TAG)
    cluster.load_archive(tmp_path / "image.tar")
    volume = _write_overlay(cluster, namespace, tmp_path)
    kubectl = ("--kubeconfig", str(cluster.kubeconfig), "--warnings-as-errors")
    try:
        charts.kubectl(*kubectl, "apply", "-k", str(tmp_path / "overlay"))
        healing = ("apply", "--namespace", namespace, "-k", str(KUSTOMIZE / "healing"))
        charts.kubectl(*kubectl, *healing)
        found = Installed(cluster)
        until(found.is_ready, 60)
        yield found
    finally:
        cluster.forget(HOME)
        until(lambda: not _is_there(cluster), 60)
        cluster.call("DELETE", f"/api/v1/persistentvolumes/{volume}")


def test_heals_what_crashes_with_its_service_account_alone(
    installed: Installed, namespace: str
) -> None:
    cluster = installed.cluster
    workloads = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    cluster.call("POST", workloads, deployment("shop", cluster.make_image("shop:v1")))
    policies = f"/apis/prunella.dev/v1alpha1/namespaces/{namespace}/healingpolicies"
    spec = {"target": {"name": "shop"}, "verify": {"soak": "2s"}}
    cluster.call("POST", policies, {**POLICY, "spec": spec})
    until(lambda: conditions(cluster.call("GET", f"{policies}/shop")) == WELL, 60)

    first = cluster.pods(namespace, "app=shop")[0]
    uid = first["metadata"]["uid"]

    def shop() -> dict[str, Any]:
        """By uid; empty: it has gone."""
        pods = {one["metadata"]["uid"]: one for one in cluster.pods(namespace, "app=shop")}
        return pods.get(uid, {})

    def is_running_again() -> bool:
        (state,) = shop()["status"]["containerStatuses"]
        return "running" in state["state"] and state["restartCount"] == 1

    cluster.kill_container(first)  # the kubelet's own first turn comes at once,
    until(is_running_again, 30)
    cluster.kill_container(shop())  # and its second one much later
    until(lambda: not shop(), 30)

    actions = f"/apis/prunella.dev/v1alpha1/namespaces/{namespace}/healingactions"
    until(lambda: outcomes(cluster.items(actions), "prunella") == ["restart: recovered"], 60)
    until(lambda: conditions(cluster.call("GET", f"{policies}/shop")) == WELL, 60)
    assert installed.figure("prunella_service_restarts_total") >= 1
    events = cluster.items(f"/api/v1/namespaces/{namespace}/events")
    told = {
        one["reason"]
        for one in events
        if (one["involvedObject"]["kind"], one["involvedObject"]["name"]) == ("Deployment", "shop")
    }
    assert {"Healing", "Healed"} <= told


def conditions(policy: Mapping[str, Any]) -> dict[str, str]:
    said = policy.get("status", {}).get("conditions", ())
    return {one["type"]: one["status"] for one in said if one["type"] in WELL}


def outcomes(actions: Sequence[Mapping[str, Any]], actor: str) -> list[str]:
    """Of what one has done; the kubelet's own restarts are in the history as well."""
    return [
        f"{one['spec']['action']}: {one.get('status', {}).get('outcome')}"
        for one in actions
        if one["spec"]["actor"] == actor
    ]


def _write_overlay(cluster: OwnKubernetes, namespace: str, folder: Path) -> str:
    """What a cluster of one node without DNS and service addresses needs; the name of a volume."""
    overlay, state = folder / "overlay", cluster.folder / "prunella-state"
    overlay.mkdir()
    state.mkdir(exist_ok=True)
    server = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    host, _, port = server.removeprefix("https://").partition(":")
    config = {
        "store": "sqlite:////var/lib/prunella/prunella.db",
        "api": {"monitoring": "0.0.0.0:9110"},
        "operator": {"namespaces": [HOME, namespace]},
    }
    (overlay / "prunella.yaml").write_text(yaml.safe_dump(config))
    env = [
        {"name": "KUBERNETES_SERVICE_HOST", "value": host},
        {"name": "KUBERNETES_SERVICE_PORT", "value": port},
    ]
    spec = {"containers": [{"name": "prunella", "env": env}]}
    patch = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "prunella"},
        "spec": {"template": {"spec": spec}},
    }
    volume = f"prunella-{namespace}"
    claimed = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": HOME, "name": "state-prunella-0"},
            "local": {"path": str(state)},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {
                                    "key": "kubernetes.io/hostname",
                                    "operator": "In",
                                    "values": ["node1"],
                                }
                            ]
                        }
                    ]
                }
            },
        },
    }
    (overlay / "volume.yaml").write_text(yaml.safe_dump(claimed))
    kustomization = {
        "resources": [os.path.relpath(KUSTOMIZE / "base", overlay), "volume.yaml"],
        "patches": [{"patch": yaml.safe_dump(patch)}],
        "configMapGenerator": [
            {
                "name": "prunella-config",
                "namespace": HOME,
                "behavior": "replace",
                "files": ["prunella.yaml"],
            }
        ],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return volume


def _is_there(cluster: OwnKubernetes) -> bool:
    return HOME in {one["metadata"]["name"] for one in cluster.items("/api/v1/namespaces")}
