"""``prunella plugins``: what a configuration may speak of."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from prunella.cli import _terminal
from prunella.cli._options import Json


def command(*, as_json: Json = False) -> None:
    """List the installed probes, platforms, gateways, sources of releases and stores."""
    from prunella.config import Registry  # noqa: PLC0415 - slow

    found = Registry.discovered()
    rows = [
        *(("probe", kind, _about(plugin.build)) for kind, plugin in sorted(found.probes.items())),
        *(
            ("platform", kind, _about(plugin.build))
            for kind, plugin in sorted(found.platforms.items())
        ),
        *(
            ("gateway", kind, _about(plugin.build))
            for kind, plugin in sorted(found.gateways.items())
        ),
        *(
            ("release", kind, _about(plugin.build))
            for kind, plugin in sorted(found.releases.items())
        ),
        *(("store", kind, _about(plugin.open)) for kind, plugin in sorted(found.stores.items())),
    ]
    if as_json:
        _terminal.say_json([{"type": a, "kind": b, "description": c} for a, b, c in rows])
    else:
        _terminal.say_table(("TYPE", "KIND", "DESCRIPTION"), rows)


def _about(make: Callable[..., Any]) -> str:
    """The first line of the docstring of the module that a plugin is."""
    module = sys.modules.get(make.__module__)
    return (inspect.getdoc(module) or "").partition("\n")[0] if module else ""
