"""What is installed into a cluster, as kustomize and Helm make it, without a cluster."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.deploy.rights import CIRCUITS, HEALING, HOME, NODES, SYNC, in_order, table
from tests.real.charts import Charts

from prunella.config import Config, parse

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "prunella"
CRDS = Path(__file__).parents[2] / "src" / "prunella" / "operator" / "crds"
CHARTED = {
    "as it is": (),
    "cluster-wide": ("--set", "rights.clusterWide=true"),
    "two namespaces": ("--set", "rights.namespaces={shop,prunella}"),
    "circuits": ("--set", "rights.circuits=true", "--set", "rights.namespaces={shop}"),
    "circuits everywhere": ("--set", "rights.circuits=true", "--set", "rights.clusterWide=true"),
    "sync": ("--set", "rights.sync={argocd,flux-system}", "--set", "rights.clusterWide=true"),
    "monitored": ("--set", "serviceMonitor.enabled=true"),
    "every value": (
        *("--set", "nameOverride=healer", "--set", "serviceAccount.annotations.a=b"),
        *("--set", "imagePullSecrets[0].name=pull", "--set", "nodeSelector.disk=ssd"),
        *("--set", "tolerations[0].operator=Exists", "--set", "priorityClassName=high"),
        *("--set", "affinity.nodeAffinity.x=y", "--set", "podLabels.team=sre"),
        *("--set", "podAnnotations.a=b", "--set", "persistence.storageClass=fast"),
        *("--set", "image.tag=1.2.3", "--set", "serviceMonitor.labels.release=prom"),
        *("--set", "serviceMonitor.enabled=true"),
    ),
    "without an operator": (
        *("--set", "config.operator=null", "--set", "config.services.shop.platform=kubernetes"),
        *("--set", "config.services.shop.kubernetes.name=shop"),
    ),
}
BUILT = {
    "base": DEPLOY / "kustomize" / "base",
    "cluster-wide": DEPLOY / "kustomize" / "overlays" / "cluster-wide",
    "prometheus": DEPLOY / "kustomize" / "overlays" / "prometheus",
}

Objects = Sequence[Mapping[str, Any]]
TABLES = [in_order(HOME), in_order(HEALING), in_order(HEALING, NODES)]
TABLES += [in_order(CIRCUITS), in_order(SYNC)]
WAYS = [f"kustomize: {one}" for one in BUILT] + [f"helm: {one}" for one in CHARTED]


@pytest.fixture(scope="session")
def built(charts: Charts) -> Mapping[str, Objects]:
    by_kustomize = {f"kustomize: {one}": charts.built(path) for one, path in BUILT.items()}
    by_helm = {
        f"helm: {one}": charts.rendered(CHART, "prunella", "prunella", *values)
        for one, values in CHARTED.items()
    }
    return {**by_kustomize, **by_helm}


@pytest.fixture(params=WAYS)
def objects(request: pytest.FixtureRequest, built: Mapping[str, Objects]) -> Objects:
    return built[request.param]


def of_kind(objects: Objects, *kinds: str) -> list[Mapping[str, Any]]:
    return [one for one in objects if one["kind"] in kinds]


def rights(objects: Objects, kind: str, name: str, namespace: str = "") -> dict[str, str]:
    (role,) = (
        one
        for one in of_kind(objects, kind)
        if one["metadata"]["name"] == name and one["metadata"].get("namespace", "") == namespace
    )
    return table(role["rules"])


# Rights ------------------------------------------------------------------------------------------


def test_nobody_may_what_is_not_used(objects: Objects) -> None:
    for role in of_kind(objects, "Role", "ClusterRole"):
        allowed = table(role["rules"])
        assert "*" not in repr(role["rules"])
        assert allowed in TABLES
        assert not any(re.match(r"secrets|pods/exec|nodes/|.*rbac", what) for what in allowed)
        assert not any("nonResourceURLs" in rule for rule in role["rules"])


def test_every_role_is_bound_to_the_account_of_the_pod_and_to_no_other(objects: Objects) -> None:
    (pod,) = of_kind(objects, "StatefulSet")
    account = pod["spec"]["template"]["spec"]["serviceAccountName"]
    (made,) = of_kind(objects, "ServiceAccount")
    assert made["metadata"]["name"] == account

    def roles(kind: str) -> set[tuple[str, str]]:
        found = of_kind(objects, kind)
        return {(one["metadata"]["name"], one["metadata"].get("namespace", "")) for one in found}

    for kind in ("Role", "ClusterRole"):
        assert roles(kind) == roles(f"{kind}Binding")
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        assert binding["roleRef"]["kind"] == binding["kind"].removesuffix("Binding")
        assert binding["roleRef"]["name"] == binding["metadata"]["name"]
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": account, "namespace": "prunella"}
        ]


@pytest.mark.parametrize("way", ["kustomize: base", "helm: as it is"])
def test_by_default_it_heals_in_its_own_namespace_only(
    built: Mapping[str, Objects], way: str
) -> None:
    assert of_kind(built[way], "ClusterRole", "ClusterRoleBinding") == []
    assert rights(built[way], "Role", "prunella", "prunella") == in_order(HOME)
    assert rights(built[way], "Role", "prunella-healing", "prunella") == in_order(HEALING)
    assert len(of_kind(built[way], "Role")) == 2


@pytest.mark.parametrize("way", ["kustomize: cluster-wide", "helm: cluster-wide"])
def test_cluster_wide_is_the_same_everywhere_and_a_look_at_nodes(
    built: Mapping[str, Objects], way: str
) -> None:
    allowed = rights(built[way], "ClusterRole", "prunella-healing")
    assert allowed == in_order(HEALING, NODES)
    assert len(of_kind(built[way], "Role", "ClusterRole")) == 2


def test_another_namespace_gets_the_same_rights(
    built: Mapping[str, Objects], charts: Charts
) -> None:
    charted = built["helm: two namespaces"]
    assert rights(charted, "Role", "prunella-healing", "shop") == in_order(HEALING)
    assert len(of_kind(charted, "Role")) == 3
    alone = charts.built(DEPLOY / "kustomize" / "healing")
    assert [one["kind"] for one in alone] == ["Role", "RoleBinding"]
    assert rights(alone, "Role", "prunella-healing") == in_order(HEALING)


def test_circuits_have_a_role_of_their_own(built: Mapping[str, Objects], charts: Charts) -> None:
    charted = built["helm: circuits"]
    for namespace in ("prunella", "shop"):
        assert rights(charted, "Role", "prunella-circuits", namespace) == in_order(CIRCUITS)
    everywhere = rights(built["helm: circuits everywhere"], "ClusterRole", "prunella-circuits")
    assert everywhere == in_order(CIRCUITS)
    alone = charts.built(DEPLOY / "kustomize" / "circuits")
    assert [one["kind"] for one in alone] == ["Role", "RoleBinding"]
    assert rights(alone, "Role", "prunella-circuits") == in_order(CIRCUITS)


def test_pausing_a_sync_is_a_right_of_its_own(built: Mapping[str, Objects], charts: Charts) -> None:
    for namespace in ("argocd", "flux-system"):
        assert rights(built["helm: sync"], "Role", "prunella-sync", namespace) == in_order(SYNC)
    alone = charts.built(DEPLOY / "kustomize" / "sync")
    assert [one["kind"] for one in alone] == ["Role", "RoleBinding"]
    assert rights(alone, "Role", "prunella-sync") == in_order(SYNC)


# The pod -----------------------------------------------------------------------------------------


def containers(objects: Objects) -> Iterator[Mapping[str, Any]]:
    for owner in of_kind(objects, "StatefulSet", "Deployment", "DaemonSet", "Job"):
        spec = owner["spec"]["template"]["spec"]
        yield from (*spec.get("initContainers", ()), *spec["containers"])


def test_the_pod_is_one_that_the_restricted_standard_lets_in(objects: Objects) -> None:
    (pod,) = of_kind(objects, "StatefulSet")
    spec = pod["spec"]["template"]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {next(key for key in one if key != "name") for one in spec["volumes"]} == {
        "configMap",
        "emptyDir",
    }
    for one in containers(objects):
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_every_image_has_a_version_and_every_container_its_limits(objects: Objects) -> None:
    for one in containers(objects):
        assert re.fullmatch(r"prunella:\d+\.\d+\.\d+", one["image"])
        assert set(one["resources"]["requests"]) == {"cpu", "memory"}
        assert set(one["resources"]["limits"]) == {"memory"}


def test_there_is_one_and_its_store_outlives_it(objects: Objects) -> None:
    (pod,) = of_kind(objects, "StatefulSet")
    assert pod["spec"]["replicas"] == 1
    (claim,) = pod["spec"]["volumeClaimTemplates"]
    (config,) = of_kind(objects, "ConfigMap")
    store = yaml.safe_load(config["data"]["prunella.yaml"])["store"].removeprefix("sqlite:///")
    (container,) = containers(objects)
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert Path(store).parent == Path(mounts[claim["metadata"]["name"]])
    assert container["args"] == ["run", f"{mounts['config']}/prunella.yaml"]


def test_what_listens_is_what_is_probed_and_let_in(objects: Objects) -> None:
    (config,) = of_kind(objects, "ConfigMap")
    api = yaml.safe_load(config["data"]["prunella.yaml"])["api"]
    (container,) = containers(objects)
    (port,) = container["ports"]
    assert api == {"monitoring": f"0.0.0.0:{port['containerPort']}"}
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]
    assert probes == [
        {"path": path, "port": port["name"]} for path in ("/healthz", "/healthz", "/readyz")
    ]
    (service,) = of_kind(objects, "Service")
    assert [one["targetPort"] for one in service["spec"]["ports"]] == [port["name"]]
    (policy,) = of_kind(objects, "NetworkPolicy")
    let_in = [one["port"] for rule in policy["spec"]["ingress"] for one in rule["ports"]]
    assert let_in == [port["name"]]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_everything_that_selects_selects_the_pod(objects: Objects) -> None:
    (pod,) = of_kind(objects, "StatefulSet")
    labels = pod["spec"]["template"]["metadata"]["labels"].items()
    selectors = [pod["spec"]["selector"]["matchLabels"]]
    selectors += [one["spec"]["selector"] for one in of_kind(objects, "Service")]
    selectors += [
        one["spec"]["selector"]["matchLabels"] for one in of_kind(objects, "PodDisruptionBudget")
    ]
    selectors += [
        one["spec"]["podSelector"]["matchLabels"] for one in of_kind(objects, "NetworkPolicy")
    ]
    assert len(selectors) == 4
    assert all(selector and selector.items() <= labels for selector in selectors)
    (service,) = of_kind(objects, "Service")
    assert pod["spec"]["serviceName"] == service["metadata"]["name"]
    for monitor in of_kind(objects, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= service["metadata"]["labels"].items()


def test_its_namespace_is_a_restricted_one(built: Mapping[str, Objects]) -> None:
    (namespace,) = of_kind(built["kustomize: base"], "Namespace")
    levels = {
        key.partition("/")[2]: value
        for key, value in namespace["metadata"]["labels"].items()
        if key.startswith("pod-security")
    }
    assert levels == dict.fromkeys(("enforce", "audit", "warn"), "restricted")


# Two ways, one thing -----------------------------------------------------------------------------


def plain(objects: Objects) -> dict[tuple[str, str], Any]:
    """Objects without what only says who has made them."""
    found: dict[tuple[str, str], Any] = {}
    for one in objects:
        if one["kind"] in {"Namespace", "CustomResourceDefinition"}:
            continue  # Helm makes no namespace, and puts no labels on definitions
        text = re.sub(r"prunella-config-[a-z0-9]{10}", "prunella-config", yaml.safe_dump(one))
        copy = yaml.safe_load(text)
        for noise in ("app.kubernetes.io/managed-by", "helm.sh/chart"):
            copy["metadata"].get("labels", {}).pop(noise, None)
        if copy["kind"] == "StatefulSet":
            template = copy["spec"]["template"]
            template["metadata"].pop("annotations", None)
            template["spec"]["containers"][0].pop("imagePullPolicy", None)
        if copy["kind"] == "ConfigMap":
            copy["data"] = {name: yaml.safe_load(body) for name, body in copy["data"].items()}
        found[copy["kind"], copy["metadata"]["name"]] = copy
    return found


@pytest.mark.parametrize(
    ("charted", "built_as"),
    [("as it is", "base"), ("cluster-wide", "cluster-wide"), ("monitored", "prometheus")],
)
def test_helm_and_kustomize_make_the_same(
    built: Mapping[str, Objects], charted: str, built_as: str
) -> None:
    assert plain(built[f"helm: {charted}"]) == plain(built[f"kustomize: {built_as}"])


@pytest.mark.parametrize("way", ["kustomize/base/crds", "helm/prunella/crds"])
def test_the_definitions_are_those_of_the_program(way: str) -> None:
    def texts(folder: Path) -> dict[str, str]:
        return {path.name: path.read_text() for path in folder.iterdir()}

    assert texts(DEPLOY / way) == texts(CRDS)


def test_the_definitions_are_installed(objects: Objects) -> None:
    names = {one["metadata"]["name"] for one in of_kind(objects, "CustomResourceDefinition")}
    assert names == {f"{path.stem}.prunella.dev" for path in CRDS.iterdir()}


def test_another_configuration_is_a_rollout(charts: Charts) -> None:
    def mark(*values: str) -> str:
        (pod,) = of_kind(charts.rendered(CHART, "p", "p", *values), "StatefulSet")
        return str(pod["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert mark() == mark() != mark("--set", "config.defaults.heal=observe")


def configured(objects: Objects) -> Config:
    (config,) = of_kind(objects, "ConfigMap")
    return parse(config["data"]["prunella.yaml"], Path("/etc/prunella/prunella.yaml"))


def test_its_configuration_is_sound(objects: Objects) -> None:
    assert configured(objects).monitoring == ("0.0.0.0", 9110)


def test_the_lease_is_the_one_of_the_configuration(charts: Charts) -> None:
    objects = charts.rendered(CHART, "p", "p", "--set", "config.operator.lease=healer")
    assert rights(objects, "Role", "p-prunella", "p")["leases.coordination.k8s.io healer"]


@pytest.mark.parametrize(
    ("way", "namespaces"),
    [
        ("kustomize: base", ()),
        ("kustomize: cluster-wide", ("*",)),
        ("helm: as it is", ()),
        ("helm: cluster-wide", ("*",)),
        ("helm: two namespaces", ("prunella", "shop")),
    ],
)
def test_policies_are_read_from_where_there_are_rights(
    built: Mapping[str, Objects], way: str, namespaces: tuple[str, ...]
) -> None:
    operator = configured(built[way]).operator
    assert operator is not None
    assert operator.namespaces == namespaces
    (lease,) = (
        name
        for role in of_kind(built[way], "Role")
        for rule in role["rules"]
        for name in rule.get("resourceNames", ())
    )
    assert operator.lease == lease


def test_the_overlays_go_together(charts: Charts, tmp_path: Path) -> None:
    def way(name: str) -> str:
        return os.path.relpath(DEPLOY / "kustomize" / name, tmp_path)

    both = {
        "resources": [way("base")],
        "components": [way("components/prometheus"), way("components/cluster-wide")],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(both))
    assert {"ServiceMonitor", "ClusterRole"} < {one["kind"] for one in charts.built(tmp_path)}


def test_helm_has_nothing_to_find_fault_with(charts: Charts) -> None:
    assert "0 chart(s) failed" in charts.helm("lint", str(CHART), "--strict")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("image.tag=latest", "/image/tag"),
        ("image.repository=", "/image/repository"),
        ("replicas=2", "replicas"),
        ("rights.namespaces={Shop}", "/rights/namespaces/0"),
        ("rights.secrets=true", "secrets"),
        ("serviceAccount.create=false", "/serviceAccount/name"),
        ("persistence.size=big", "/persistence/size"),
        ("config.store=memory://", "/config/store"),
        ("config.api.monitoring=127.0.0.1:9111", "/config/api/monitoring"),
        ("resources.limits=null", "limits"),
        ("networkPolicy.apiServerPorts={}", "/networkPolicy/apiServerPorts"),
    ],
)
def test_values_that_would_not_work_are_refused(charts: Charts, value: str, said: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(said)):
        charts.helm("template", "prunella", str(CHART), "--set", value)


def test_everything_is_of_the_same_version(built: Mapping[str, Objects]) -> None:
    wanted = version("prunella")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (wanted, wanted)
    assert f"ARG VERSION={wanted}\n" in (DEPLOY / "Dockerfile").read_text()
    for way in ("kustomize: base", "kustomize: prometheus", "helm: as it is"):
        assert {one["image"] for one in containers(built[way])} == {f"prunella:{wanted}"}
        labels = [one["metadata"].get("labels", {}) for one in built[way]]
        versions = {one.get("app.kubernetes.io/version", wanted) for one in labels}
        assert versions == {wanted}


def test_no_place_that_images_come_from_is_named() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            for image in re.findall(r"(?:image|BASE|repository)[:=] *(\S+)", path.read_text()):
                assert "." not in image.partition("/")[0].partition(":")[0], path
