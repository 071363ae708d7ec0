"""What Helm may do with just the rights that the documents name, on a real cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.real.kubernetes import Kubernetes
from tests.releases.conftest import build, remarks
from tests.releases.helm import Shop

from prunella.core.model import Epoch
from prunella.errors import PermanentError

RULES = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create", "update"]},
    {
        "apiGroups": ["apps"],
        "resources": ["deployments"],
        "verbs": ["get", "create", "patch", "delete"],
    },
]
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"


def limited(cluster: Kubernetes, namespace: str, folder: Path) -> Path:
    """The kubeconfig of somebody who has these rights and no others."""
    who = {"kind": "ServiceAccount", "name": "healer", "namespace": namespace}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    cluster.call("POST", path, {"metadata": {"name": "healer"}})
    role = {"metadata": {"name": "helm"}, "rules": RULES}
    cluster.call("POST", f"{RBAC}/{namespace}/roles", role)
    bound = {
        "metadata": {"name": "helm"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "helm"},
        "subjects": [who],
    }
    cluster.call("POST", f"{RBAC}/{namespace}/rolebindings", bound)
    token = cluster.call("POST", f"{path}/healer/token", {"spec": {}})["status"]["token"]
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    file = folder / "limited"
    file.write_text(yaml.safe_dump(config))
    return file


async def test_a_history_in_config_maps_is_gone_back_in_without_a_right_to_secrets(
    kubernetes: Kubernetes, namespace: str, tmp_path: Path
) -> None:
    shop = Shop(tmp_path, kubernetes.kubeconfig, namespace=namespace, driver="configmap")
    versions = list[str]()
    for image in ("shop:1", "shop:2"):
        shop.deploy(image)
        versions.append(shop.version())
    file = limited(kubernetes, namespace, tmp_path)
    fields = {**shop.fields, "kubeconfig": file, "interval": 0.000_001}
    release = build("helm", tmp_path, driver="configmap", **fields)
    assert await remarks(release) == []
    await release.switch(versions[0], before=versions[1], reason="erroring", epoch=Epoch(1))
    assert await release.observe() == versions[0] == shop.version()
    blind = build("helm", tmp_path, **fields)
    with pytest.raises(PermanentError, match=r'cannot list resource "secrets".*another `driver`'):
        await blind.observe()
