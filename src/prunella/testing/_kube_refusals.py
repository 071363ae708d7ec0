"""How an API server refuses: a ``Status`` with a code, a reason and its own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prunella.kube.kinds import Json, Kind


class Key(NamedTuple):
    """Where an object is found; the versions of its API are but views of it."""

    group: str
    plural: str
    namespace: str
    name: str

    @property
    def words(self) -> str:
        """As the server names a resource: ``deployments.apps "shop"``."""
        return f'{self.plural}{"." if self.group else ""}{self.group} "{self.name}"'

    @property
    def kind(self) -> tuple[str, str]:
        return self.group, self.plural


class Refused(Exception):
    """A request that is not granted; what a client is told of it.

    Without a reason, it is told nothing but the message, as plain text.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        key: Key | None = None,
        causes: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.key = key
        self.causes = causes

    def status(self) -> Json:
        details: Json = {}
        if self.key is not None:
            details = {"name": self.key.name, "group": self.key.group, "kind": self.key.plural}
        if self.causes:
            details["causes"] = [dict(one) for one in self.causes]
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "details": {name: value for name, value in details.items() if value},
            "code": self.code,
        }


def bad(message: str) -> Refused:
    return Refused(400, "BadRequest", message)


def not_found(key: Key) -> Refused:
    return Refused(404, "NotFound", f"{key.words} not found", key)


def exists(key: Key) -> Refused:
    return Refused(409, "AlreadyExists", f"{key.words} already exists", key)


def outdated(key: Key) -> Refused:
    words = (
        "the object has been modified; please apply your changes to the latest version"
        " and try again"
    )
    return Refused(409, "Conflict", f"Operation cannot be fulfilled on {key.words}: {words}", key)


def other_uid(key: Key, wanted: str, found: str) -> Refused:
    words = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
    return Refused(409, "Conflict", f"Operation cannot be fulfilled on {key.words}: {words}", key)


def not_that_one(key: Key, kind: str, wanted: str, found: str) -> Refused:
    """Nothing of it is deleted."""
    named = key._replace(plural=kind).words
    words = (
        f"the UID in the precondition ({wanted}) does not match the UID in record ({found})."
        " The object might have been deleted and then recreated"
    )
    return Refused(409, "Conflict", f"Operation cannot be fulfilled on {named}: {words}", key)


def rejected() -> Refused:
    words = "the server rejected our request due to an error in our request"
    return Refused(422, "Invalid", words)


def field_conflict(key: Key, clashes: Sequence[tuple[str, str]]) -> Refused:
    """Others own what is to be applied: who, and which field."""
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{who}"', "field": field}
        for who, field in clashes
    ]
    words = "; ".join(f'conflict with "{who}": {field}' for who, field in clashes)
    many = "conflict" if len(clashes) == 1 else "conflicts"
    return Refused(
        409, "Conflict", f"Apply failed with {len(clashes)} {many}: {words}", key, causes
    )


def expired(asked: object, oldest: object) -> Refused:
    return Refused(410, "Expired", f"too old resource version: {asked} ({oldest})")


def forbidden(verb: str, kind: Kind, sub: str, namespace: str, name: str) -> Refused:
    what = "/".join(filter(None, (kind.plural, sub)))
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    words = f'User "tester" cannot {verb} resource "{what}" in API group "{kind.group}" {where}'
    key = Key(kind.group, kind.plural, namespace, name)
    named = key.words if name else key.words.removesuffix(' ""')
    return Refused(403, "Forbidden", f"{named} is forbidden: {words}", key)


def over_budget(key: Key, budget: str, needed: int, healthy: int) -> Refused:
    words = (
        f"The disruption budget {budget} needs {needed} healthy pods and has {healthy} currently"
    )
    return Refused(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
        key._replace(name=budget),
        [{"reason": "DisruptionBudget", "message": words}],
    )
