"""What a configuration says of a workload in a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from prunella.spec import Duration, Spec


class KubernetesSpec(Spec):
    """A workload that is there already."""

    kind: Literal["Deployment", "StatefulSet", "DaemonSet", "Rollout"] = Field(
        default="Deployment", description="What it is; a Rollout is Argo's."
    )
    name: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253, description="Its name."
    )
    namespace: str = Field(
        default="default",
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        max_length=63,
        description="Where it is.",
    )
    context: str | None = Field(
        default=None,
        description="Which cluster, by its name in the kubeconfig. Default: in a pod its service "
        "account, else the current context.",
    )
    kubeconfig: Path | None = Field(
        default=None, description="Default: $KUBECONFIG, else ~/.kube/config."
    )
    restart: Literal["pod", "rollout"] = Field(
        default="pod",
        description="What a restart is: pods evicted one by one, each proven before the next "
        "one's turn, or what `kubectl rollout restart` does.",
    )
    port: str = Field(
        default="",
        description="Name of the containers' port that probes with {port} ask. Default: the "
        "first one.",
    )
    watch: Literal["namespace", "cluster"] = Field(
        default="namespace",
        description="How far to look: one watch for each namespace, or one for all of them, which "
        "needs the right to list them everywhere.",
    )
    pause_sync: bool = Field(
        default=False,
        description="Where Argo CD or Flux looks after it: pause its sync for a rollback, until "
        "it wants something else. Default: no rollback there.",
    )
    sync_namespace: str = Field(
        default="argocd",
        pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        max_length=63,
        description="Where Argo CD's Applications are.",
    )
    timeout: Duration = Field(default=60.0, description="How long a new pod may take to start.")
