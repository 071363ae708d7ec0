"""From the words of an order to one that the core understands."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from prunella.core.decide import Forced
from prunella.core.guards import guards
from prunella.core.model import ActionKind
from prunella.errors import UnknownWordError


def order(actor: str, reason: str, action: str | None, override: Collection[str]) -> Forced:
    """A person's order. Raises: UnknownWordError for an action or a guard that there is not."""
    kind = None if action is None else ActionKind(_known("action", action, ActionKind))
    names = [guard.name for guard in guards()]
    passed = frozenset(_known("guard", name, names) for name in override)
    return Forced(actor, reason or f"asked for by {actor}", kind, passed)


def _known(what: str, word: str, words: Iterable[str]) -> str:
    known = list(words)
    if word not in known:
        raise UnknownWordError(f"no {what} {word!r}; there are: {', '.join(known)}")
    return word
