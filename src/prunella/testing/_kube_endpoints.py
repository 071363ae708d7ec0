"""The endpoints of the fake cluster's Services, one slice for each Service with a selector."""

from __future__ import annotations

import asyncio

from prunella.kube.kinds import ENDPOINT_SLICE, POD, SERVICE, Json
from prunella.testing._kube_budget import ready
from prunella.testing._kube_refusals import Key
from prunella.testing._kube_select import at, labels_of, part
from prunella.testing._kube_store import Store


class Endpoints:
    """Kept up to date a moment after pods and Services have changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._soon: asyncio.Handle | None = None

    def react(self, key: Key, _old: Json | None, _new: Json | None) -> None:
        if key.plural in {"pods", "services"} and self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._keep)

    def stop(self) -> None:
        if self._soon is not None:
            self._soon.cancel()

    def _keep(self) -> None:
        self._soon = None
        services = dict(self._store.of_kind(SERVICE))
        for key, service in services.items():
            if part(service, "spec.selector"):
                self._write(key, self._slice(key, service))
        for key, one in [*self._store.of_kind(ENDPOINT_SLICE)]:
            owner = labels_of(one).get("kubernetes.io/service-name", "")
            if Key(SERVICE.group, SERVICE.plural, key.namespace, owner) not in services:
                self._store.remove(key)

    def _slice(self, key: Key, service: Json) -> Json:
        asked = part(service, "spec.selector")
        endpoints = [
            {
                "addresses": [at(pod, "status.podIP")],
                "conditions": {"ready": ready(pod), "serving": ready(pod)},
                "targetRef": {"kind": "Pod", "name": one.name, "namespace": one.namespace},
            }
            for one, pod in self._store.of_kind(POD, key.namespace)
            if asked.items() <= labels_of(pod).items() and at(pod, "status.podIP")
        ]
        return {
            "metadata": {
                "name": f"{key.name}-fake",
                "namespace": key.namespace,
                "labels": {"kubernetes.io/service-name": key.name},
            },
            "addressType": "IPv4",
            "endpoints": endpoints or None,  # as the real one says it
        }

    def _write(self, service: Key, wanted: Json) -> None:
        key = Key(
            *(ENDPOINT_SLICE.group, ENDPOINT_SLICE.plural),
            *(service.namespace, wanted["metadata"]["name"]),
        )
        found = self._store.objects.get(key)
        if found is None:
            self._store.create(ENDPOINT_SLICE, service.namespace, wanted)
        elif found.get("endpoints") != wanted["endpoints"]:
            self._store.replace(key, {**found, "endpoints": wanted["endpoints"]})
