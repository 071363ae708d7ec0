"""What the fake API server answers to a request about objects."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec
from aiohttp import web

from prunella.kube.client import APPLY_PATCH
from prunella.kube.kinds import POD, Json, Kind
from prunella.testing._kube_apply import APPLY, UPDATE, applied, fields, owned, updated
from prunella.testing._kube_budget import forbid_eviction
from prunella.testing._kube_fill import filled, scale_of
from prunella.testing._kube_kinds import NAMESPACE, REVIEW, Kinds, Place
from prunella.testing._kube_patch import merged, patched
from prunella.testing._kube_protobuf import CONTENT as PROTOBUF
from prunella.testing._kube_protobuf import decoded
from prunella.testing._kube_refusals import (
    Key,
    Refused,
    bad,
    forbidden,
    not_found,
    not_that_one,
    outdated,
)
from prunella.testing._kube_select import at, part, selection
from prunella.testing._kube_store import Store


class Account:
    """Who may do only what it is told, as pairs of a verb and a resource (`right`).

    Attributes:
        asked: what it has asked for, allowed or not.
    """

    def __init__(self, allowed: Iterable[tuple[str, str]]) -> None:
        self.allowed = frozenset(allowed)
        self.asked: set[tuple[str, str]] = set()


def right(group: str, plural: str, sub: str = "") -> str:
    """As ``pods/eviction`` and ``deployments.apps/scale``."""
    whole = f"{plural}.{group}" if group else plural
    return f"{whole}/{sub}" if sub else whole


_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Api:
    """Reads and changes the objects of a store, one request at a time.

    Attributes:
        accounts: those that may not do all, by their tokens.
        denied: pairs of a verb and a plural, with ``/`` and a subresource where that is meant.
        snapshot: what gets and lists are answered from, with its version; None: from the store.
    """

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self.store = store
        self.kinds = kinds
        self.accounts: dict[str, Account] = {}
        self.denied: set[tuple[str, str]] = set()
        self.snapshot: tuple[int, Mapping[Key, Json]] | None = None
        self._pages: dict[str, tuple[str, list[Json]]] = {}

    def check(self, request: web.Request, place: Place) -> None:
        """Raises: Refused: the verb is denied."""
        verb = _VERBS[request.method]
        if verb == "get" and not place.name:
            verb = "watch" if is_watch(request) else "list"
        if verb == "delete" and not place.name:
            verb = "deletecollection"
        account = self._account(request)
        if account is not None and place.kind != REVIEW:
            account.asked.add((verb, right(place.kind.group, place.kind.plural, place.sub)))
        if not self._allows(account, verb, place.kind.group, place.kind.plural, place.sub):
            raise forbidden(verb, place.kind, place.sub, place.namespace, place.name)

    def _account(self, request: web.Request) -> Account | None:
        return self.accounts.get(request.headers.get("Authorization", "").removeprefix("Bearer "))

    def _allows(
        self, account: Account | None, verb: str, group: str, plural: str, sub: str
    ) -> bool:
        if (verb, f"{plural}/{sub}" if sub else plural) in self.denied:
            return False
        if account is None or (group, plural) == (REVIEW.group, REVIEW.plural):
            return True
        return (verb, right(group, plural, sub)) in account.allowed

    async def answer(self, request: web.Request, place: Place) -> tuple[int, Json]:
        """The status and the body. Raises: Refused."""
        body = await _body(request)
        if request.method in {"POST", "PUT"} and not isinstance(body, dict):
            raise bad("the body is no object")
        if request.method == "GET":
            return 200, self.get(place) if place.name else self.list(request, place)
        if not _is_rehearsal(request, place, body):
            return self._write(request, place, body)
        with self.store.rehearsed():
            return self._write(request, place, body)

    def _write(self, request: web.Request, place: Place, body: Any) -> tuple[int, Json]:
        options = cast("Json", body or {})
        if request.method == "POST":
            return 201, self._post(request, place, body)
        if not place.name:
            if request.method != "DELETE":
                raise Refused(405, "MethodNotAllowed", "the server does not allow this method")
            for item in self.items(request, place):
                self._delete(place._replace(name=item["metadata"]["name"]), options)
            return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        if request.method == "DELETE":
            return 200, self._delete(place, options)
        return self._change(request, place, body)

    # Reading -----------------------------------------------------------------------------------

    def get(self, place: Place) -> Json:
        if self.snapshot is not None and place.key not in self.snapshot[1]:
            raise not_found(place.key)
        item = self.snapshot[1][place.key] if self.snapshot else self.store.get(place.key)
        return scale_of(item) if place.sub == "scale" else item

    def items(self, request: web.Request, place: Place) -> list[Json]:
        query = request.query
        test = selection(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        if self.snapshot is None:
            found = self.store.of_kind(place.kind, place.namespace)
        else:
            kind = (place.kind.group, place.kind.plural)
            where = {"", place.namespace} if place.namespace else None
            found = (
                (key, item)
                for key, item in sorted(self.snapshot[1].items(), key=lambda pair: pair[0])
                if key.kind == kind and (where is None or key.namespace in where)
            )
        return [item for _, item in found if test(item)]

    def list(self, request: web.Request, place: Place) -> Json:
        query = request.query
        limit = int(query.get("limit") or 0)
        if token := query.get("continue", ""):
            if token not in self._pages:
                words = "The provided continue parameter is too old to display a consistent list"
                raise Refused(410, "Expired", words)
            version, rest = self._pages[token]
        else:
            version = str(self.snapshot[0] if self.snapshot else self.store.version)
            rest = self.items(request, place)
        meta = {"resourceVersion": version}
        if limit and len(rest) > limit:
            first = rest[limit]["metadata"]
            named = f"{version}/{first.get('namespace', '')}/{first['name']}"
            token = base64.urlsafe_b64encode(named.encode()).decode()
            self._pages[token] = (version, rest[limit:])
            meta["continue"] = token
        kind = place.kind
        page = {"kind": f"{kind.name}List", "apiVersion": kind.api_version, "metadata": meta}
        return {**page, "items": rest[:limit] if limit else rest}

    def forget_pages(self) -> None:
        self._pages.clear()

    # Changing ----------------------------------------------------------------------------------

    def _post(self, request: web.Request, place: Place, body: Any) -> Json:
        if place.kind == REVIEW:
            return self._review(self._account(request), body)
        if place.sub == "eviction":
            return self._evict(place, body or {})
        if place.name:
            raise Refused(405, "MethodNotAllowed", "the server does not allow this method")
        item: Json = body
        named = (item.get("apiVersion", place.kind.api_version), item.get("kind", place.kind.name))
        if named != (place.kind.api_version, place.kind.name):
            raise bad(f"the object provided is a {named[1]} of {named[0]}")
        return self.create(place.kind, place.namespace, item, _manager(request))

    def create(
        self, kind: Kind, namespace: str, body: Json, manager: str, how: str = UPDATE
    ) -> Json:
        """As a client does it: what is said of its status does not count."""
        if kind.namespaced and Key("", "namespaces", "", namespace) not in self.store.objects:
            raise not_found(Key("", "namespaces", "", namespace))
        if self.kinds.has_status(kind):
            body = {name: value for name, value in body.items() if name != "status"}
        whole = owned(filled(kind, body), fields(body), manager, how)
        return self.store.create(kind, namespace, whole)

    def _change(self, request: web.Request, place: Place, body: Any) -> tuple[int, Json]:
        key, content = place.key, request.content_type
        manager = _manager(request)
        if content == APPLY_PATCH and not manager:
            raise bad("PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
        if content == APPLY_PATCH and key not in self.store.objects and not place.sub:
            return 201, self.create(place.kind, place.namespace, body, manager, APPLY)
        old = self.store.get(key)
        seen = scale_of(old) if place.sub == "scale" else old
        whole_apply = content == APPLY_PATCH and not place.sub
        if whole_apply:
            force = request.query.get("force") == "true"
            new: Json = applied(key, seen, body, manager, force=force)
        else:
            new = patched(seen, body, content) if request.method == "PATCH" else body
        if at(new, "metadata.name") not in {None, key.name}:
            raise bad("the name of the object does not match the name on the URL")
        whole = self._whole(place, old, new)
        whole = whole if whole_apply else updated(old, whole, manager)
        done = self.store.replace(key, whole, wanted=place.sub != "status")
        return 200, scale_of(done) if place.sub == "scale" else done

    def _whole(self, place: Place, old: Json, new: Json) -> Json:
        """The object after a change to it, or to what a subresource shows of it."""
        versions = (at(new, "metadata.resourceVersion"), old["metadata"]["resourceVersion"])
        if versions[0] and versions[0] != versions[1]:
            raise outdated(place.key)
        if place.sub == "scale":
            return merged(old, {"spec": {"replicas": at(new, "spec.replicas")}})
        if place.sub == "status":
            whole = {**old, "status": new.get("status")}
            if place.kind == POD:  # of which it takes labels and annotations as well
                kept = {name: part(new, f"metadata.{name}") for name in ("labels", "annotations")}
                whole["metadata"] = {**old["metadata"], **kept}
            return whole
        if self.kinds.has_status(place.kind):
            new = {name: value for name, value in new.items() if name != "status"}
            new |= {"status": old["status"]} if "status" in old else {}
        identity = {"apiVersion": place.kind.api_version, "kind": place.kind.name}
        return {**identity, **new, "metadata": {**new.get("metadata", {})}}

    def _delete(self, place: Place, options: Json) -> Json:
        key = place.key
        meta = self.store.get(key)["metadata"]
        wanted = part(options, "preconditions")
        if wanted.get("uid", meta["uid"]) != meta["uid"]:
            raise not_that_one(key, place.kind.name, wanted["uid"], meta["uid"])
        if wanted.get("resourceVersion", meta["resourceVersion"]) != meta["resourceVersion"]:
            raise outdated(key)
        if place.kind == NAMESPACE:
            for one in [one for one in self.store.objects if one.namespace == key.name]:
                if one in self.store.objects:  # not gone with its owner by now
                    self.store.remove(one)
        if key.plural == "pods" and options.get("gracePeriodSeconds") != 0:
            return self.store.mark(key, options.get("gracePeriodSeconds", 30))
        self.store.remove(key)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 200}

    # Special -----------------------------------------------------------------------------------

    def _review(self, account: Account | None, body: Json) -> Json:
        asked = part(body, "spec.resourceAttributes")
        verb, group, plural, sub = (
            str(asked.get(name, "")) for name in ("verb", "group", "resource", "subresource")
        )
        allowed = self._allows(account, verb, group, plural, sub)
        return {**body, "status": {"allowed": allowed}}

    def _evict(self, place: Place, body: Json) -> Json:
        if at(body, "metadata.name") not in {None, place.name}:
            raise bad("name in URL does not match name in Eviction object")
        forbid_eviction(self.store, place.key)
        self._delete(place._replace(sub=""), body.get("deleteOptions") or {})
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


async def _body(request: web.Request) -> Any:
    data = await request.read()
    if not data:
        return None
    if request.content_type == PROTOBUF:
        return decoded(data)
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise bad(f"the object provided is no JSON: {error}") from error


def is_watch(request: web.Request) -> bool:
    return request.query.get("watch") in {"true", "1"}


def _is_rehearsal(request: web.Request, place: Place, body: Any) -> bool:
    """Whether it is to be answered as usual, and not to be done. Raises: Refused."""
    asked: list[str] = [*request.query.getall("dryRun", ())]
    if isinstance(body, dict) and request.method == "DELETE":
        asked += cast("Json", body).get("dryRun") or ()
    elif isinstance(body, dict) and place.sub == "eviction":
        asked += part(cast("Json", body), "deleteOptions").get("dryRun") or ()
    if any(one != "All" for one in asked):
        words = f'dryRun: Unsupported value: {json.dumps(asked)}: supported values: "All"'
        raise Refused(422, "Invalid", f'Options.meta.k8s.io "" is invalid: {words}')
    return bool(asked)


def _manager(request: web.Request) -> str:
    agent = request.headers.get("User-Agent", "").split("/")[0]
    given = request.query.get("fieldManager", "")
    return given or ("" if request.content_type == APPLY_PATCH else agent)
