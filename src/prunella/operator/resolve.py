"""From HealingPolicy objects and the workloads that there are to services; pure, but for memory.

One bad policy is its own trouble: it keeps what it last specified well, and no other one notices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from prunella.config import Config, ConfigFaults, ServiceConfig, beside
from prunella.config.schema import SERVICE_ID
from prunella.core.model import Mode, ServiceId
from prunella.core.policy import Need
from prunella.kube.kinds import Json
from prunella.operator.aims import Unfit, Workload, aim, chosen, service_id
from prunella.operator.objects import Condition, Policy
from prunella.spec import Spec

_OURS = ("kind", "name", "namespace", "context", "kubeconfig", "watch")
_COMMANDS = ("exec", "process")  # probes that act on Prunella's own machine


@dataclass(slots=True)
class Verdict:
    """What came of one policy."""

    policy: Policy
    accepted: Condition
    resolved: Condition
    spec: Json | None = None  # what is in force
    generation: int = 0
    services: dict[ServiceId, tuple[Workload, ServiceConfig]] = field(
        default_factory=dict[ServiceId, tuple[Workload, ServiceConfig]]
    )


class Resolver:
    """Remembers what has been checked already, and what was good last."""

    def __init__(self, config: Config, *, observe: bool) -> None:
        self.config = config
        self._observe = observe
        self._good: dict[str, tuple[int, Json]] = {}
        self._judged: dict[tuple[str, int], str] = {}
        self._made: dict[tuple[str, int, tuple[str, str, str]], ServiceConfig] = {}
        self._targets: dict[str, Sequence[Workload]] = {}
        self._unfit: dict[tuple[str, int], str] = {}

    def take_file(self, config: Config) -> None:
        """Another file: everything is to be checked anew."""
        self.config = config
        for memory in (self._judged, self._made, self._unfit):
            memory.clear()

    def refuse(self, policy: Policy, generation: int, why: str) -> None:
        """What passed the check and still cannot be built."""
        self._unfit[policy.metadata.uid, generation] = why
        if self._good.get(policy.metadata.uid, (0,))[0] == generation:
            del self._good[policy.metadata.uid]

    def resolve(
        self,
        policies: Iterable[Policy],
        workloads: Mapping[tuple[str, str], Mapping[str, Workload] | None],
    ) -> list[Verdict]:
        """What each policy comes to, the oldest first.

        Nothing is waited for, and a thousand policies take their time: not for an event loop.

        Args:
            workloads: by kind and namespace, and then by name; None: nobody can tell now.
        """
        taken = dict(self._of_file())
        ids: dict[ServiceId, str] = dict.fromkeys(self.config.services, "the configuration file")
        verdicts: list[Verdict] = []
        ordered = sorted(
            policies,
            key=lambda one: (
                one.metadata.creation_timestamp,
                one.metadata.namespace,
                one.metadata.name,
            ),
        )
        for policy in ordered:
            verdict = self._accept(policy)
            verdicts.append(verdict)
            if verdict.spec is not None:
                self._place(verdict, workloads, taken, ids)
        _bind(verdicts, set(ids))
        self._forget({one.metadata.uid for one in ordered})
        return verdicts

    def _of_file(self) -> Iterable[tuple[tuple[str, str, str], str]]:
        for service in self.config.services.values():
            spec: Any = service.platform_spec
            if service.platform == "kubernetes":
                yield (spec.kind, spec.namespace, spec.name), "the configuration file"

    def _accept(self, policy: Policy) -> Verdict:
        uid, generation = policy.metadata.uid, policy.metadata.generation
        fault = self._fault(uid, generation, policy.metadata.namespace, policy.spec)
        if not fault:
            self._good[uid] = generation, policy.spec
            yes = Condition("Accepted", status=True, reason="Accepted")
            return Verdict(policy, yes, _NOTHING, policy.spec, generation)
        kept = self._good.get(uid)
        earlier = policy.status.accepted
        if kept is None and earlier is not None and earlier.spec:
            old = self._fault(uid, earlier.generation, policy.metadata.namespace, earlier.spec)
            if not old:
                kept = self._good[uid] = earlier.generation, earlier.spec
        said = f"{fault}\n(generation {kept[0]} stays in force)" if kept else fault
        no = Condition("Accepted", status=False, reason="Invalid", message=said)
        if kept is None:
            return Verdict(policy, no, Condition("Resolved", status=False, reason="NotAccepted"))
        return Verdict(policy, no, _NOTHING, kept[1], kept[0])

    def _fault(self, uid: str, generation: int, namespace: str, spec: Json) -> str:
        """What is wrong with it; empty: nothing."""
        key = uid, generation
        if key in self._unfit:
            return self._unfit[key]
        if key not in self._judged:
            try:
                kind, name, _ = aim(spec)
                target = Workload(kind, namespace, name or "any")
                made = self._service(target, spec)
                if name:
                    self._made[uid, generation, target.of] = made
            except (Unfit, ConfigFaults) as error:
                self._judged[key] = str(error)
            else:
                self._judged[key] = ""
        return self._judged[key]

    def _place(
        self,
        verdict: Verdict,
        workloads: Mapping[tuple[str, str], Mapping[str, Workload] | None],
        taken: dict[tuple[str, str, str], str],
        ids: dict[ServiceId, str],
    ) -> None:
        """Find its workloads, less those that are another one's already."""
        assert verdict.spec is not None
        meta = verdict.policy.metadata
        kind, name, labels = aim(verdict.spec)
        there = workloads.get((kind, meta.namespace))
        if there is not None:
            found: Sequence[Workload] = chosen(there, name, labels)
            self._targets[meta.uid] = found
        elif meta.uid in self._targets:
            found = self._targets[meta.uid]  # nobody can tell: as it was
        else:
            why = f"what {kind}s there are in {meta.namespace} cannot be told now"
            verdict.resolved = Condition("Resolved", status=None, reason="CannotTell", message=why)
            return
        others: list[str] = []
        for one in found:
            id_ = service_id(one)
            owner = taken.get(one.of) or ids.get(id_)
            if owner is not None:
                others.append(f"{one.words} is healed by {owner}")
                continue
            taken[one.of] = ids[id_] = verdict.policy.words
            made = self._made.get((meta.uid, verdict.generation, one.of))
            if made is None:
                made = self._service(one, verdict.spec)
                self._made[meta.uid, verdict.generation, one.of] = made
            verdict.services[id_] = one, made
        if others:
            verdict.resolved = Condition(
                "Resolved", status=False, reason="Conflicted", message="; ".join(others)
            )
        elif not found:
            what = f"{kind} {name}" if name else f"{kind} with these labels"
            why = f"there is no {what} in {meta.namespace}"
            verdict.resolved = Condition("Resolved", status=False, reason="NoTarget", message=why)
        else:
            count = len(verdict.services)
            verdict.resolved = Condition(
                "Resolved", status=True, reason="Resolved", message=f"{count} workload(s)"
            )

    def _service(self, workload: Workload, spec: Json) -> ServiceConfig:
        """Raises: ConfigFaults, Unfit."""
        body = {key: value for key, value in spec.items() if key not in ("target", "selector")}
        if "platform" in body:
            raise Unfit("'platform' is not to be set: it is kubernetes, with the target")
        own: Any = body.pop("kubernetes", None) or {}
        if not isinstance(own, dict) or set(_OURS) & cast("Json", own).keys():
            raise Unfit(f"'kubernetes' holds none of {', '.join(_OURS)}: they follow the target")
        operator = self.config.operator
        assert operator is not None, "without an operator there is no policy"
        section: Json = {
            **cast("Json", own),
            "kind": workload.kind,
            "namespace": workload.namespace,
            "name": workload.name,
        }
        if operator.context is not None:
            section["context"] = operator.context
        if "*" in operator.namespaces:
            section["watch"] = "cluster"
        id_ = service_id(workload)
        stub = {"platform": "kubernetes", "kubernetes": {"name": "any"}}
        services = {name: stub for name in _needed(body) if name != id_}
        services[id_] = {**body, "platform": "kubernetes", "kubernetes": section}
        made = beside(self.config, services).services[ServiceId(id_)]
        _require_harmless(made)
        if self._observe:
            made = replace(made, policy=replace(made.policy, mode=Mode.OBSERVE))
        return made

    def _forget(self, uids: set[str]) -> None:
        for uid in [one for one in self._targets if one not in uids]:
            del self._targets[uid]
        for uid in [one for one in self._good if one not in uids]:
            del self._good[uid]
        for memory in (self._judged, self._made, self._unfit):
            for key in [one for one in memory if one[0] not in uids]:
                memory.pop(cast("Any", key))


_NOTHING = Condition("Resolved", status=None, reason="CannotTell")


def _needed(body: Json) -> Sequence[str]:
    """The services that it depends on, as far as that is well written."""
    listed: Any = body.get("depends_on")
    entries = cast("list[object]", listed) if isinstance(listed, list) else []
    names: list[str] = []
    for one in entries:
        name: Any = cast("Json", one).get("service") if isinstance(one, dict) else one
        if isinstance(name, str) and re.fullmatch(SERVICE_ID, name):
            names.append(name)
    return names


def _require_harmless(service: ServiceConfig) -> None:
    """Who may write a policy may not run commands or read files where Prunella runs."""
    for probe in service.probes:
        if probe.kind in _COMMANDS:
            raise Unfit(f"probes of kind {probe.kind} run where Prunella does: not in a policy")
    if service.release_kind is not None:
        raise Unfit(
            f"releases from {service.release_kind} run where Prunella does: not in a policy"
        )
    for part in (*(probe.spec for probe in service.probes), service.route):
        if part is not None and _has_path(part):
            raise Unfit("files where Prunella runs are not to be named in a policy")


def _has_path(spec: Spec) -> bool:
    values: list[Any] = [getattr(spec, name) for name in type(spec).model_fields]
    return any(isinstance(v, Path) or (isinstance(v, Spec) and _has_path(v)) for v in values)


def _bind(verdicts: Sequence[Verdict], known: set[ServiceId]) -> None:
    """Say what each service needs, by the ids that there are, without going in a circle."""
    graph: dict[ServiceId, set[ServiceId]] = {}
    for verdict in verdicts:
        lost: list[str] = []
        for id_, (workload, service) in [*verdict.services.items()]:
            needs: list[Need] = []
            for need in service.policy.needs:
                beside_it = ServiceId(f"{workload.namespace}.{need.service}")
                name = beside_it if beside_it in known else need.service
                if name not in known:
                    lost.append(f"there is no service {need.service}")
                elif _leads(graph, name, id_):
                    lost.append(f"{id_} and {name} depend on each other")
                else:
                    graph.setdefault(id_, set()).add(name)
                    needs.append(Need(name, need.optional))
            policy = replace(service.policy, needs=tuple(needs))
            verdict.services[id_] = workload, replace(service, policy=policy)
        if lost and verdict.resolved.status:
            why = "; ".join(dict.fromkeys(lost))
            verdict.resolved = Condition(
                "Resolved", status=False, reason="NoDependency", message=why
            )


def _leads(graph: Mapping[ServiceId, set[ServiceId]], start: ServiceId, end: ServiceId) -> bool:
    seen, ways = {start}, [start]
    while ways:
        here = ways.pop()
        if here == end:
            return True
        new = graph.get(here, set()) - seen
        seen |= new
        ways += new
    return False
