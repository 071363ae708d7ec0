"""Probes that are written once and measure every instance: ``{port}`` and the like in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prunella.config.node import Node, listing, mapping
from prunella.config.places import anchored
from prunella.core.model import Instance
from prunella.spec import ProbeSpec

_WORD = re.compile(r"(?<!\$)\{(port|address|instance)\}")  # ${port} is a shell's affair
_SAMPLES = {"port": "1", "address": "127.0.0.1", "instance": "0"}


def words_of(leaf: Node) -> list[str]:
    """What of an instance is to be filled in there."""
    return _WORD.findall(leaf.value) if isinstance(leaf.value, str) else []


def is_template(node: Node) -> bool:
    """Whether a probe measures every instance by itself."""
    return any(words_of(leaf) for _, leaf in node.leaves())


def sampled(node: Node) -> Node:
    """The probe as it may look for an instance, to be checked."""
    if isinstance(node.kids, dict):
        kids = {key: sampled(kid) for key, kid in node.kids.items()}
        return mapping(node.place, kids, node.keys)
    if isinstance(node.kids, list):
        return listing(node.place, [sampled(kid) for kid in node.kids])
    filled = _filled(node.value, _SAMPLES)
    return node if filled == node.value else Node(filled, node.place, text=str(filled))


@dataclass(frozen=True, slots=True)
class Template:
    """A probe for whichever instance there is.

    Attributes:
        raw: as it was written.
        folder: where relative paths begin.
        timeout: instead of the spec's own default; None: that one.
    """

    spec: type[ProbeSpec]
    raw: Mapping[str, Any]
    folder: Path
    timeout: float | None

    def of(self, instance: Instance) -> ProbeSpec | None:
        """The probe of one instance; None while it is not known where that one answers."""
        words = {
            "port": str(instance.port) if instance.port else "",
            "address": instance.address,
            "instance": instance.id,
        }
        needed = _WORD.findall(repr(self.raw))
        if not all(words[word] for word in needed):
            return None
        body = cast("dict[str, Any]", _filled(self.raw, words))
        if self.timeout is not None:
            body = {"timeout": self.timeout, **body}
        return cast("ProbeSpec", anchored(self.spec.model_validate(body), self.folder))


def _filled(value: object, words: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _WORD.sub(lambda found: words[found[1]], value)
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return {key: _filled(kid, words) for key, kid in items}
    if isinstance(value, list):
        return [_filled(kid, words) for kid in cast("list[object]", value)]
    return value
