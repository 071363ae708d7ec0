"""HealingPolicy objects to begin with, from what runs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from prunella.plugins import Draft

_WIDTH = 96
_HEAD = """\
# Written by `prunella init kubernetes --policies` from what ran then: something to begin with.
# Next: delete what is not to be looked after, then
#   kubectl apply -f {file}
#   kubectl get healingpolicies    # each says of itself what is wrong with it
# `heal: observe` only tells what would be done: delete that line to have it done.
"""


def written(drafts: Sequence[Draft], file: str) -> str:
    """One document for each draft of platform ``kubernetes``.

    Args:
        file: how people will call the file.
    """
    return _HEAD.format(file=file) + "".join(map("".join, map(_document, drafts)))


def _document(draft: Draft) -> Iterator[str]:
    section = draft.section
    spec: dict[str, Any] = {
        "heal": "observe",
        "target": {"kind": section["kind"], "name": section["name"]},
        **({"probes": [*map(dict, draft.probes)]} if draft.probes else {}),
        **({"scale": dict(draft.scale)} if draft.scale else {}),
    }
    policy = {
        "apiVersion": "prunella.dev/v1alpha1",
        "kind": "HealingPolicy",
        "metadata": {"name": _name(section), "namespace": section["namespace"]},
        "spec": spec,
    }
    yield "---\n"
    note = textwrap.wrap(draft.note, _WIDTH, initial_indent="# ", subsequent_indent="# ")
    yield from (f"{line}\n" for line in note)
    yield yaml.safe_dump(policy, sort_keys=False, width=_WIDTH)


def _name(section: Any) -> str:
    """Of one namespace, workloads of two kinds may have the same name."""
    kind = str(section["kind"]).lower()
    return str(section["name"]) if kind == "deployment" else f"{section['name']}-{kind}"
