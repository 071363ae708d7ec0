"""``prunella platforms``: what could run services here, and what could be done to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from prunella.cli import _terminal
from prunella.cli._options import Json
from prunella.errors import PrunellaError

if TYPE_CHECKING:
    from prunella.plugins import PlatformPlugin

_REACH_S = 3.0
_COLUMNS = ("TYPE", "KIND", "CAN", "REACHABLE")


def command(*, as_json: Json = False) -> None:
    """List platforms, gateways and sources of releases: what each can do, and if it is reachable.

    What it can do to one service is seldom all of that, and depends on how that one is set up.
    """
    import asyncio  # noqa: PLC0415 - slow

    _terminal.keep_log_out()
    found = asyncio.run(_look())
    if as_json:
        _terminal.say_json(found)
    else:
        _terminal.say_table(_COLUMNS, map(_row, found))


async def _look() -> list[dict[str, Any]]:
    """All of them; those that must be reached are tried at the same time."""
    import asyncio  # noqa: PLC0415 - slow

    from prunella.core.breaker import CIRCUIT  # noqa: PLC0415
    from prunella.core.model import ActionKind  # noqa: PLC0415
    from prunella.plugins import gateways, platforms, releases  # noqa: PLC0415

    plugins = [plugin for _, plugin in sorted(platforms().items())]
    troubles = await asyncio.gather(*(_trouble(plugin) for plugin in plugins))
    rollback = (ActionKind.ROLLBACK,)
    return [
        *(_told("platform", p.kind, p.can, t) for p, t in zip(plugins, troubles, strict=True)),
        *(_told("gateway", kind, sorted(CIRCUIT), None) for kind in sorted(gateways())),
        *(_told("release", kind, rollback, None) for kind in sorted(releases())),
    ]


async def _trouble(plugin: PlatformPlugin) -> str | None:
    """Why it cannot be reached, empty if it can; None: there is nothing to reach."""
    import asyncio  # noqa: PLC0415 - slow

    from prunella.runtime.clock import SystemClock  # noqa: PLC0415

    if plugin.reach is None:
        return None
    try:
        async with asyncio.timeout(_REACH_S):
            return await plugin.reach(SystemClock())
    except TimeoutError:
        return f"no answer within {_REACH_S:g} s"
    except PrunellaError as error:
        return str(error)


def _told(type_: str, kind: str, can: Iterable[str], trouble: str | None) -> dict[str, Any]:
    return {
        "type": type_,
        "kind": kind,
        "can": [str(action) for action in can],
        "reachable": None if trouble is None else not trouble,
        "reason": trouble or "",
    }


def _row(plugin: dict[str, Any]) -> tuple[str, ...]:
    reachable = {None: "-", True: "yes", False: f"no: {plugin['reason']}"}[plugin["reachable"]]
    return plugin["type"], plugin["kind"], ", ".join(plugin["can"]), reachable
