"""How a circuit is set in each kind of object, how it is read, and how it is taken back.

Pure: from an object's ``spec`` to what is to be changed of it. A change names the whole list that
it is in, as a merge patch must; the resource version that goes with it keeps others' changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, gcd
from typing import Any, Protocol

from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.gateways._kube_objects import Note, listed, mapping
from prunella.kube.kinds import HTTP_ROUTE, SERVICE, VIRTUAL_SERVICE, Json, Kind
from prunella.kube.pods import CIRCUIT

NOTHING = "prunella-nothing"  # a Service that there is not: what is led to it is answered with 500
_HEAVIEST = 1_000_000  # of a backend, by the specification of the Gateway API
_MOST_BACKENDS = 16  # of a rule, by its definition
_CHANGED = "what it leads to has been changed while its circuit was open"


class Circuit(Protocol):
    """The circuit in one kind of object.

    Attributes:
        shares: whether it can let a part of the requests through.
        shuts: whether it can keep requests from one pod.
    """

    @property
    def kind(self) -> Kind: ...
    @property
    def shares(self) -> bool: ...
    @property
    def shuts(self) -> bool: ...

    def share(self, spec: Any, note: Note | None) -> int:
        """Percent that is let through, whoever has set it.

        Raises: TransientError: it makes no sense.
        """
        ...

    def opened(self, spec: Any, note: Note | None, share: int) -> tuple[Json, Any]:
        """What is to be changed to let that share through, and what there was before.

        Args:
            note: ours, if it is open already.

        Raises:
            ConflictError: somebody else has changed what we had set.
            PermanentError: it cannot have a circuit.
        """
        ...

    def closed(self, spec: Any, note: Note | None) -> Json:
        """What is to be changed to have it as it was before.

        Raises: ConflictError: somebody else has changed what we had set.
        """
        ...


@dataclass(frozen=True)
class ServiceCircuit:
    """A Service that asks for one more label, which no pod has, has no endpoints."""

    kind: Kind = SERVICE
    shares: bool = False
    shuts: bool = True

    def share(self, spec: Any, note: Note | None) -> int:  # noqa: ARG002 - as in `Circuit`
        return 0 if CIRCUIT in mapping(mapping(spec, "spec").get("selector"), "selector") else 100

    def opened(self, spec: Any, note: Note | None, share: int) -> tuple[Json, Any]:  # noqa: ARG002
        selector = mapping(mapping(spec, "spec").get("selector"), "selector")
        if not selector:
            raise PermanentError("the Service has no selector: its endpoints are somebody else's")
        before = {name: value for name, value in selector.items() if name != CIRCUIT}
        return {"selector": {CIRCUIT: "open"}}, before

    def closed(self, spec: Any, note: Note | None) -> Json:  # noqa: ARG002 - as in `Circuit`
        return {"selector": {CIRCUIT: None}}


@dataclass(frozen=True)
class HttpRouteCircuit:
    """A part of the weight of each rule leads to a fallback, or to nothing."""

    fallback: str = ""
    kind: Kind = HTTP_ROUTE
    shares: bool = True
    shuts: bool = False

    def share(self, spec: Any, note: Note | None) -> int:
        rules = [refs for refs in _refs(spec) if refs]
        if not rules:
            raise TransientError("no rule of it leads to a backend")
        return min(_let_through(refs, note) for refs in rules)

    def opened(self, spec: Any, note: Note | None, share: int) -> tuple[Json, Any]:
        before = _refs(spec) if note is None else self._before(spec, note)
        apart = _apart(self.fallback)
        if any(_is_apart(ref, apart) for refs in before for ref in refs):
            raise PermanentError(f"it leads to {apart['name']} already: its circuit needs another")
        if any(len(refs) >= _MOST_BACKENDS for refs in before):
            raise PermanentError(
                f"a rule of it has {_MOST_BACKENDS} backends, and may have no more: its circuit "
                "needs one"
            )
        wanted = [_weighted(refs, share, apart) for refs in before]
        return _with_refs(spec, wanted), before

    def closed(self, spec: Any, note: Note | None) -> Json:
        if note is None:
            raise ConflictError("nothing on it says what its weights were before")
        return _with_refs(spec, self._before(spec, note))

    @staticmethod
    def _before(spec: Any, note: Note) -> list[list[Mapping[str, Any]]]:
        """As noted, if what is there is what we have made of it."""
        before = [listed(refs, "note") for refs in _list(note.before)]
        set_by_us = [_weighted(refs, note.share, _apart(note.fallback)) for refs in before]
        there = _refs(spec)
        if [[_place(ref) for ref in refs] for refs in there] != [
            [_place(ref) for ref in refs] for refs in set_by_us
        ]:
            raise ConflictError(_CHANGED)
        return before


@dataclass(frozen=True)
class VirtualServiceCircuit:
    """Istio answers a part of the requests itself, with 503.

    Attributes:
        destination: only the http routes that lead to this host; empty: all of them.
    """

    destination: str = ""
    kind: Kind = VIRTUAL_SERVICE
    shares: bool = True
    shuts: bool = False

    def share(self, spec: Any, note: Note | None) -> int:  # noqa: ARG002 - as in `Circuit`
        return min(_unanswered(one) for one in self._governed(spec))

    def opened(self, spec: Any, note: Note | None, share: int) -> tuple[Json, Any]:
        governed = self._governed(spec)
        if note is None:
            before: list[Any] = [one.get("fault") for one in governed]
        else:
            before = self._before(governed, note)
        if any(fault and "abort" in fault for fault in before):
            raise PermanentError("it has a fault.abort of its own: that is left alone")
        wanted = [_with_abort(fault, share) for fault in before]
        return self._with_faults(spec, wanted), before

    def closed(self, spec: Any, note: Note | None) -> Json:
        if note is None:
            raise ConflictError("nothing on it says what there was before")
        return self._with_faults(spec, self._before(self._governed(spec), note))

    @staticmethod
    def _before(governed: Sequence[Mapping[str, Any]], note: Note) -> list[Any]:
        before = _list(note.before)
        if [one.get("fault") for one in governed] != [
            _with_abort(fault, note.share) for fault in before
        ]:
            raise ConflictError("its faults have been changed while its circuit was open")
        return before

    def _governed(self, spec: Any) -> list[Mapping[str, Any]]:
        found = [one for one in self._http(spec) if self._leads(one)]
        if not found:
            where = f" to {self.destination}" if self.destination else ""
            raise TransientError(f"none of its http routes leads{where or ' anywhere'}")
        return found

    def _http(self, spec: Any) -> list[Mapping[str, Any]]:
        return listed(mapping(spec, "spec").get("http"), "spec.http")

    def _leads(self, one: Mapping[str, Any]) -> bool:
        hosts = {
            mapping(leg.get("destination"), "destination").get("host")
            for leg in listed(one.get("route"), "route")
        }
        return self.destination in hosts if self.destination else bool(hosts)

    def _with_faults(self, spec: Any, faults: Sequence[Any]) -> Json:
        left = iter(faults)
        changed: list[Json] = []
        for one in self._http(spec):
            whole = dict(one)
            if self._leads(one):
                whole.pop("fault", None)
                fault = next(left)
                whole |= {} if fault is None else {"fault": fault}
            changed.append(whole)
        return {"http": changed}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ConflictError("what we have noted on it has been changed")
    return [*value]  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]


# HTTPRoute ---------------------------------------------------------------------------------------


def _refs(spec: Any) -> list[list[Mapping[str, Any]]]:
    """The backends of each rule."""
    rules = listed(mapping(spec, "spec").get("rules"), "spec.rules")
    return [listed(rule.get("backendRefs"), "backendRefs") for rule in rules]


def _with_refs(spec: Any, wanted: Sequence[Sequence[Mapping[str, Any]]]) -> Json:
    rules = listed(mapping(spec, "spec").get("rules"), "spec.rules")
    return {
        "rules": [
            {**rule, "backendRefs": [*refs]} if "backendRefs" in rule else {**rule}
            for rule, refs in zip(rules, wanted, strict=True)
        ]
    }


def _apart(fallback: str) -> Json:
    """The backend that gets what is not let through, without its weight."""
    name, _, port = (fallback or f"{NOTHING}:80").partition(":")
    return {"group": "", "kind": "Service", "name": name, "port": int(port)}


def _place(ref: Mapping[str, Any]) -> tuple[Any, ...]:
    names = ("group", "kind", "namespace", "name", "port", "weight")
    usual = {"group": "", "kind": "Service", "namespace": "", "weight": 1}
    return tuple(ref.get(name, usual.get(name)) for name in names)


def _is_apart(ref: Mapping[str, Any], apart: Mapping[str, Any]) -> bool:
    return _place(ref)[:-1] == _place(apart)[:-1]


def _weight(ref: Mapping[str, Any]) -> int:
    weight = ref.get("weight", 1)
    if not isinstance(weight, int) or weight < 0:
        raise TransientError(f"a weight of it makes no sense: {weight!r}")
    return weight


def _weighted(
    refs: Sequence[Mapping[str, Any]], share: int, apart: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    weights = [_weight(ref) for ref in refs]
    whole = sum(weights)
    if whole == 0:
        return [*refs]  # nothing goes there
    wanted = [*(weight * share for weight in weights), whole * (100 - share)]
    common = gcd(*wanted)
    wanted = [weight // common for weight in wanted]
    if (heaviest := max(wanted)) > _HEAVIEST:
        wanted = [ceil(weight * _HEAVIEST / heaviest) for weight in wanted]
    scaled = [{**ref, "weight": weight} for ref, weight in zip(refs, wanted, strict=False)]
    return [*scaled, {**apart, "weight": wanted[-1]}]


def _let_through(refs: Sequence[Mapping[str, Any]], note: Note | None) -> int:
    aparts = [_apart("")] + ([_apart(note.fallback)] if note is not None else [])
    whole = sum(_weight(ref) for ref in refs)
    kept = sum(_weight(ref) for ref in refs if any(_is_apart(ref, one) for one in aparts))
    return round(100 * (whole - kept) / whole) if whole else 0


# VirtualService ----------------------------------------------------------------------------------


def _with_abort(fault: Any, share: int) -> Json:
    kept = mapping(fault, "fault")
    return {**kept, "abort": {"httpStatus": 503, "percentage": {"value": 100 - share}}}


def _unanswered(one: Mapping[str, Any]) -> int:
    abort = mapping(one.get("fault"), "fault").get("abort")
    if abort is None:
        return 100
    value = mapping(mapping(abort, "abort").get("percentage"), "percentage").get("value", 100)
    if not isinstance(value, int | float) or not 0 <= value <= 100:
        raise TransientError(f"a percentage of it makes no sense: {value!r}")
    return 100 - round(value) if mapping(abort, "abort").get("httpStatus") == 503 else 100
