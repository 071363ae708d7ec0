"""The manifests on a real API server: taken as they are, and nothing allowed that is not meant."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.deploy.rights import HEALING, HOME, in_order, table
from tests.real.charts import Charts
from tests.real.kubernetes import Kubernetes

from prunella.testing.site import until

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "prunella"
WHOLE_CLUSTER = {"Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
# What every account may: ask what it may, and who it is.
EVERYBODY = {"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"}

Objects = Sequence[Mapping[str, Any]]


def apply(charts: Charts, cluster: Kubernetes, objects: Objects, *argv: str) -> list[str]:
    """What the server says of each."""
    text = yaml.safe_dump_all(objects)
    config = ("--kubeconfig", str(cluster.kubeconfig), "--warnings-as-errors")
    said = charts.kubectl(*config, "apply", "--server-side", *argv, "-f", "-", stdin=text)
    return said.splitlines()


def moved(objects: Objects, namespace: str) -> Objects:
    """To another namespace than `prunella`, so that no test needs the one that users have."""
    text = json.dumps([one for one in objects if one["kind"] != "Namespace"])
    text = text.replace('"namespace": "prunella"', f'"namespace": "{namespace}"')
    return list(json.loads(text))


def charted(charts: Charts, namespace: str, *values: str) -> Objects:
    return charts.rendered(CHART, "prunella", namespace, *values)


@pytest.fixture
def account(kubernetes: Kubernetes, namespace: str, charts: Charts, tmp_path: Path) -> Kubernetes:
    """The cluster as Prunella's service account has it."""
    of_rights = ("ServiceAccount", "Role", "RoleBinding")
    rights = [one for one in charted(charts, namespace) if one["kind"] in of_rights]
    apply(charts, kubernetes, rights)
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/prunella/token"
    token = kubernetes.call("POST", path, {"spec": {}})["status"]["token"]
    config = yaml.safe_load(kubernetes.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    return Kubernetes(tmp_path / "kubeconfig")


@pytest.mark.parametrize("way", ["base", "overlays/cluster-wide"])
def test_the_server_takes_what_kustomize_makes(
    kubernetes: Kubernetes, namespace: str, charts: Charts, way: str
) -> None:
    objects = moved(charts.built(DEPLOY / "kustomize" / way), namespace)
    said = apply(charts, kubernetes, objects, "--dry-run=server")
    assert len(said) == len(objects)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param((), id="as it is"),
        pytest.param(
            ("--set", "rights.clusterWide=true", "--set", "rights.circuits=true"), id="cluster-wide"
        ),
        pytest.param(
            ("--set", "tolerations[0].operator=Exists", "--set", "podLabels.team=sre"), id="placed"
        ),
    ],
)
def test_the_server_takes_what_helm_makes(
    kubernetes: Kubernetes, namespace: str, charts: Charts, values: tuple[str, ...]
) -> None:
    objects = charted(charts, namespace, *values)
    said = apply(charts, kubernetes, objects, "--dry-run=server")
    assert len(said) == len(objects)


def test_helm_installs_upgrades_and_leaves_only_the_history(
    kubernetes: Kubernetes, namespace: str, charts: Charts
) -> None:
    where = ("--namespace", namespace, "--kubeconfig", str(kubernetes.kubeconfig))
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles"
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"

    def names(path: str) -> set[str]:
        return {one["metadata"]["name"] for one in kubernetes.items(path)}

    charts.helm("install", "prunella", str(CHART), *where, "--skip-crds")
    assert names(roles) == {"prunella", "prunella-healing"}
    until(lambda: names(claims), 30)
    more = ("--set", "rights.circuits=true", "--reset-then-reuse-values")
    charts.helm("upgrade", "prunella", str(CHART), *where, *more)
    assert names(roles) == {"prunella", "prunella-healing", "prunella-circuits"}
    charts.helm("uninstall", "prunella", *where)
    assert names(roles) == set()
    assert names(f"/apis/apps/v1/namespaces/{namespace}/statefulsets") == set()
    assert names(claims) == {"state-prunella-0"}


def test_a_restricted_namespace_lets_the_pod_in(
    kubernetes: Kubernetes, namespace: str, charts: Charts
) -> None:
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubernetes.merge(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": level}})
    (whole,) = (one for one in charted(charts, namespace) if one["kind"] == "StatefulSet")
    template = whole["spec"]["template"]
    pod: dict[str, Any] = {
        "metadata": {"name": "prunella-0"},
        "spec": {**template["spec"], "serviceAccountName": "default"},
    }
    pod["spec"]["volumes"] = [*pod["spec"]["volumes"], {"name": "state", "emptyDir": {}}]
    path = f"/api/v1/namespaces/{namespace}/pods?dryRun=All"
    assert kubernetes.call("POST", path, pod)["metadata"]["name"] == "prunella-0"
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(RuntimeError, match="violates PodSecurity"):
        kubernetes.call("POST", path, pod)


def test_the_server_allows_what_is_in_the_table_and_nothing_else(
    account: Kubernetes, namespace: str
) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    said = account.call("POST", path, {"spec": {"namespace": namespace}})["status"]
    allowed = table(said["resourceRules"])
    usual = {what for what in allowed if what.partition(".")[0] in EVERYBODY}
    assert {what: verbs for what, verbs in allowed.items() if what not in usual} == in_order(
        HOME, HEALING
    )


def test_the_server_allows_nothing_in_another_namespace(account: Kubernetes) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    said = account.call("POST", path, {"spec": {"namespace": "default"}})["status"]
    assert {what.partition(".")[0] for what in table(said["resourceRules"])} == EVERYBODY


POD: Mapping[str, Any] = {
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "c", "image": "i:1"}]},
}
NAMED: Mapping[str, Any] = {"metadata": {"name": "p"}}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/namespaces/{own}/secrets", None),
        ("GET", "/api/v1/namespaces/{own}/secrets/p", None),
        ("GET", "/api/v1/namespaces/{own}/configmaps", None),
        ("GET", "/api/v1/namespaces/{own}/pods/p/log", None),
        ("POST", "/api/v1/namespaces/{own}/pods/p/exec?command=id", None),
        ("POST", "/api/v1/namespaces/{own}/pods/p/attach", None),
        ("POST", "/api/v1/namespaces/{own}/pods/p/portforward", None),
        ("POST", "/api/v1/namespaces/{own}/pods", POD),
        ("DELETE", "/api/v1/namespaces/{own}/pods/p", None),
        ("DELETE", "/api/v1/namespaces/{own}/pods", None),
        ("GET", "/api/v1/nodes", None),
        ("GET", "/api/v1/nodes/node1/proxy/pods", None),
        ("POST", "/apis/apps/v1/namespaces/{own}/deployments", NAMED),
        ("DELETE", "/apis/apps/v1/namespaces/{own}/deployments/p", None),
        ("DELETE", "/apis/apps/v1/namespaces/{own}/statefulsets/p", None),
        ("DELETE", "/apis/apps/v1/namespaces/{own}/replicasets/p", None),
        ("GET", "/apis/apps/v1/namespaces/default/deployments", None),
        ("PATCH", "/apis/apps/v1/namespaces/default/deployments/p", {}),
        ("GET", "/api/v1/pods", None),
        ("PATCH", "/api/v1/namespaces/{own}/services/p", {}),
        ("POST", "/api/v1/namespaces/{own}/serviceaccounts/default/token", {"spec": {}}),
        ("PATCH", "/api/v1/namespaces/{own}", {}),
        ("DELETE", "/api/v1/namespaces/{own}", None),
        ("PATCH", "/apis/rbac.authorization.k8s.io/v1/namespaces/{own}/roles/prunella", {}),
        ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles", None),
        ("DELETE", "/apis/policy/v1/namespaces/{own}/poddisruptionbudgets/p", None),
        ("PATCH", "/apis/coordination.k8s.io/v1/namespaces/{own}/leases/another", {}),
        ("DELETE", "/apis/coordination.k8s.io/v1/namespaces/{own}/leases/prunella", None),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", None),
        ("PATCH", "/apis/coordination.k8s.io/v1/namespaces/{own}/leases/prunella", {}),
        ("DELETE", "/apis/prunella.dev/v1alpha1/namespaces/{own}/healingpolicies/p", None),
        ("PATCH", "/apis/prunella.dev/v1alpha1/namespaces/{own}/healingactions/p", {}),
        ("GET", "/metrics", None),
    ],
)
def test_the_server_refuses(
    account: Kubernetes, namespace: str, method: str, path: str, body: object
) -> None:
    content = "application/merge-patch+json" if method == "PATCH" else "application/json"
    with pytest.raises(RuntimeError, match=r'"code":\s*403'):
        account.call(method, path.format(own=namespace), body, content)


def test_the_server_lets_it_do_its_work(account: Kubernetes, namespace: str) -> None:
    """Not refused, but for what is not there: 404 comes after the question of rights."""
    for method, path, body in (
        ("GET", "/api/v1/namespaces/{own}/pods", None),
        ("GET", "/apis/apps/v1/namespaces/{own}/controllerrevisions", None),
        ("GET", "/apis/autoscaling/v2/namespaces/{own}/horizontalpodautoscalers", None),
    ):
        assert "items" in account.call(method, path.format(own=namespace), body)
    for path in (
        "/apis/apps/v1/namespaces/{own}/deployments/p",
        "/apis/apps/v1/namespaces/{own}/statefulsets/p/scale",
    ):
        with pytest.raises(RuntimeError, match=r'"code":\s*404'):
            account.merge(path.format(own=namespace), {"metadata": {}})
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    made = account.call("POST", leases, {"metadata": {"name": "prunella"}, "spec": {}})
    made["spec"]["holderIdentity"] = "prunella-0"
    account.call("PUT", f"{leases}/prunella", made)
    assert account.call("GET", f"{leases}/prunella")["spec"]["holderIdentity"] == "prunella-0"
    eviction = {"metadata": {"name": "p", "namespace": namespace}}
    with pytest.raises(RuntimeError, match=r'"code":\s*404'):
        account.call("POST", f"/api/v1/namespaces/{namespace}/pods/p/eviction", eviction)
