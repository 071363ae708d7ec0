"""What a shell is offered for a word that is being typed; nothing where nobody knows."""

from __future__ import annotations

import os
from collections.abc import Iterable

import typer

from prunella.errors import PrunellaError

DEFAULT_API = "http://127.0.0.1:7110"
_ANSWER_S = 1.0  # somebody waits with a finger on the key


def services(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of the services that the daemon watches."""
    from prunella.cli._client import Client  # noqa: PLC0415 - the other way round it is at the top

    url = ctx.params.get("api") or ctx.find_root().params.get("api")
    client = Client(str(url or os.environ.get("PRUNELLA_API") or DEFAULT_API))
    try:
        known = client.send("GET", "/services", within_s=_ANSWER_S)["items"]
    except PrunellaError:
        return []
    return _beginning(incomplete, (service["id"] for service in known))


def guards(incomplete: str) -> list[str]:
    """Names of guards."""
    from prunella.core.guards import guards  # noqa: PLC0415 - slow

    return _beginning(incomplete, (guard.name for guard in guards()))


def surveyed(incomplete: str) -> list[str]:
    """Kinds of platforms that can be surveyed."""
    from prunella.plugins import platforms  # noqa: PLC0415 - slow

    return _beginning(incomplete, (kind for kind, one in platforms().items() if one.survey))


def _beginning(incomplete: str, words: Iterable[str]) -> list[str]:
    return sorted(word for word in words if word.startswith(incomplete))
