"""What a pod looks like right before it is replaced: its last end, its last lines if allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prunella.errors import PrunellaError
from prunella.kube.kinds import POD
from prunella.kube.pods import Pod
from prunella.platforms._kube_roster import Roster

_WAIT_S = 1.0
_LINES, _BYTES = "10", "1500"


async def testimony(roster: Roster, namespace: str, pods: Sequence[Pod]) -> str:
    """Never raises; empty: there is nothing to tell."""
    return "\n".join([line for pod in pods for line in await _of(roster, namespace, pod)])


async def _of(roster: Roster, namespace: str, pod: Pod) -> Sequence[str]:
    name = pod.metadata.name
    found = [
        f"pod {name}: {one.type} is {one.status}: {one.reason} {one.message}".rstrip(" :")
        for one in pod.status.conditions
        if one.status != "True"
    ]
    found += [
        f"pod {name}, container {one.name}: {one.ending} {one.ending.message}".rstrip()
        for one in pod.status.container_statuses
        if one.ending is not None
    ]
    try:
        async with asyncio.timeout(_WAIT_S):
            if await roster.allowed("get", POD, namespace, sub="log"):
                query = {"tailLines": _LINES, "limitBytes": _BYTES}
                path = POD.path(namespace, name, "log")
                said = await roster.cluster.ask("GET", path, query=query)
                found += said.decode(errors="replace").splitlines()
    except (PrunellaError, TimeoutError):
        pass  # what is known without it is told
    return found
