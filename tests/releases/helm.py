"""A chart, and what a person does with it: with Helm alone, never through Prunella."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from tests.real.charts import HELM_3, PACKAGE, Charts

_unpacked: dict[str, tuple[Charts, TemporaryDirectory[str]]] = {}
PROGRAMS = {"helm 3": HELM_3, "helm 4": PACKAGE}

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: 2
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: shop
        image: {{ .Values.image }}
        imagePullPolicy: Never
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
"""


def unpacked(package: str = PACKAGE) -> Charts:
    """Its programs, once for all tests."""
    if package not in _unpacked:
        folder = TemporaryDirectory()
        _unpacked[package] = (Charts(Path(folder.name), package), folder)
    return _unpacked[package][0]


class Shop:
    """A release in some cluster, which Helm 3 or 4 has made.

    Attributes:
        fields: of the source of releases.
    """

    def __init__(
        self,
        folder: Path,
        kubeconfig: Path,
        *,
        namespace: str = "default",
        package: str = PACKAGE,
        driver: str = "secret",
    ) -> None:
        self.charts = unpacked(package)
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self.chart = folder / "chart"
        self._driver = driver
        (self.chart / "templates").mkdir(parents=True)
        self.write("Chart.yaml", yaml.safe_dump(_about("1.0.0")))
        self.write("values.yaml", yaml.safe_dump({"image": "shop:1"}))
        self.write("templates/deployment.yaml", DEPLOYMENT)
        self.fields: dict[str, Any] = {
            "name": "shop",
            "namespace": namespace,
            "kubeconfig": kubeconfig,
            "program": self.charts.program,
        }

    def write(self, name: str, text: str) -> None:
        """One of the chart's files."""
        (self.chart / name).write_text(text)

    def helm(self, *argv: str) -> str:
        """Raises RuntimeError with what it says: it failed."""
        where = ("--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace)
        return self.charts.helm(*argv, *where, HELM_DRIVER=self._driver)

    def deploy(self, image: str, *options: str) -> None:
        """What a person does."""
        argv = ("upgrade", "--install", "--disable-openapi-validation", "--set", f"image={image}")
        self.helm(*argv, *options, "shop", str(self.chart))

    def history(self) -> list[dict[str, Any]]:
        """Oldest first."""
        return list(json.loads(self.helm("history", "shop", "--output", "json")))

    def told(self) -> list[str]:
        """Number, status and description of each revision."""
        return [
            f"{one['revision']} {one['status']}: {one['description']}" for one in self.history()
        ]

    def version(self) -> str:
        """Of the newest revision."""
        newest = self.history()[-1]
        manifest = self.helm("get", "manifest", "shop", "--revision", str(newest["revision"]))
        return f"{newest['chart']}#{hashlib.sha256(manifest.encode()).hexdigest()[:8]}"


def _about(version: str) -> dict[str, str]:
    return {"apiVersion": "v2", "name": "shop", "version": version}
