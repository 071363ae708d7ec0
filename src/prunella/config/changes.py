"""What a reload changes."""

from __future__ import annotations

from dataclasses import dataclass

from prunella.config.model import Config, ServiceConfig
from prunella.core.model import ServiceId

# Top-level keys, and what they give to a configuration.
_LASTING = {
    "store": ("store",),
    "state_dir": ("state_dir",),
    "api": ("api", "monitoring"),
    "operator": ("operator",),
}


@dataclass(frozen=True, slots=True)
class Changes:
    """Services that came, went or differ, in the order of their file.

    A service whose gateway differs differs as well. ``restart_needed`` names the top-level keys
    that differ and stay as they were until Prunella is started anew.
    """

    added: tuple[ServiceId, ...] = ()
    removed: tuple[ServiceId, ...] = ()
    changed: tuple[ServiceId, ...] = ()
    restart_needed: tuple[str, ...] = ()


def changes(old: Config, new: Config) -> Changes:
    """Compare two configurations. The fleet's policy and retention are taken over as they are."""
    return Changes(
        added=tuple(id_ for id_ in new.services if id_ not in old.services),
        removed=tuple(id_ for id_ in old.services if id_ not in new.services),
        changed=tuple(
            id_
            for id_, service in new.services.items()
            if id_ in old.services
            and (old.services[id_] != service or _other_gateway(service, old, new))
        ),
        restart_needed=tuple(
            key
            for key, parts in _LASTING.items()
            if any(getattr(old, part) != getattr(new, part) for part in parts)
        ),
    )


def _other_gateway(service: ServiceConfig, old: Config, new: Config) -> bool:
    if service.route is None:
        return False
    name = service.route.name
    return old.gateways.get(name) != new.gateways.get(name)
