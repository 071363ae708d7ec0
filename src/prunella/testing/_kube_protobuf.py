"""What clients in Go send of Secrets and ConfigMaps: not JSON, but the protocol buffers of these.

Only what is asked of the fake: objects that are written whole. It answers in JSON to all.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from prunella.kube.kinds import Json
from prunella.testing._kube_refusals import bad

CONTENT = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"


def decoded(data: bytes) -> Json:
    """The object in a request's body. Raises: Refused: it is another one than we can read."""
    if not data.startswith(_MAGIC):
        raise bad("the object provided does not begin as protocol buffers do here")
    try:
        return _object(data[len(_MAGIC) :])
    except (IndexError, UnicodeDecodeError) as error:
        raise bad(f"the object provided is not whole: {error}") from error


def _object(data: bytes) -> Json:
    envelope = dict(_fields(data))
    identity = dict(_fields(envelope[1]))
    named = {"apiVersion": _text(identity[1]), "kind": _text(identity[2])}
    if named["kind"] == "DeleteOptions":
        return {**named, **_options(envelope.get(2, b""))}
    if named["apiVersion"] != "v1" or named["kind"] not in {"Secret", "ConfigMap"}:
        raise bad(f"the fake reads no {named['kind']} of {named['apiVersion']} as protocol buffers")
    is_secret = named["kind"] == "Secret"
    data_of: dict[str, str] = {}
    whole: Json = {**named, "data": data_of}
    for number, value in _fields(envelope[2]):
        if number == 1:
            whole["metadata"] = _meta(value)
        elif number == 2:
            key, item = _entry(value)
            data_of[key] = base64.b64encode(item).decode() if is_secret else item.decode()
        elif number == 3 and is_secret:
            whole["type"] = _text(value)
    return whole


def _options(data: bytes) -> Json:
    found = dict(_fields(data))
    options: Json = {"gracePeriodSeconds": found[1]} if 1 in found else {}
    if 2 in found:
        wanted = {1: "uid", 2: "resourceVersion"}
        options["preconditions"] = {
            wanted[number]: _text(value) for number, value in _fields(found[2])
        }
    return options


def _meta(data: bytes) -> Json:
    texts = {1: "name", 2: "generateName", 3: "namespace", 5: "uid", 6: "resourceVersion"}
    maps = {11: "labels", 12: "annotations"}
    found: Json = {}
    for number, value in _fields(data):
        if number in texts:
            found[texts[number]] = _text(value)
        elif number in maps:
            key, item = _entry(value)
            found.setdefault(maps[number], {})[key] = item.decode()
        elif number == 8:
            at = datetime.fromtimestamp(dict(_fields(value)).get(1, 0), UTC)
            found["creationTimestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {name: value for name, value in found.items() if value != ""}


def _entry(data: bytes) -> tuple[str, bytes]:
    """One of a map."""
    pair = dict(_fields(data))
    return _text(pair[1]), pair.get(2, b"")


def _text(value: bytes) -> str:
    return value.decode()


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field: bytes, or an int. Raises: IndexError: it is cut off."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
                continue
            case 1:
                length = 8
            case 5:
                length = 4
            case _:
                length, at = _varint(data, at)
        if at + length > len(data):
            raise IndexError(f"{at + length - len(data)} bytes are missing")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
