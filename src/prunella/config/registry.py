"""The plugins that a configuration may speak of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from prunella import plugins
from prunella.plugins import GatewayPlugin, PlatformPlugin, ProbePlugin, ReleasePlugin, StorePlugin


@dataclass(frozen=True, slots=True)
class Registry:
    """Plugins by kind; a value, so that a check needs no plugin installed."""

    probes: Mapping[str, ProbePlugin]
    platforms: Mapping[str, PlatformPlugin]
    stores: Mapping[str, StorePlugin]
    releases: Mapping[str, ReleasePlugin] = field(default_factory=dict[str, ReleasePlugin])
    gateways: Mapping[str, GatewayPlugin] = field(default_factory=dict[str, GatewayPlugin])

    @classmethod
    def discovered(cls) -> Registry:
        """All that is installed.

        Raises:
            PermanentError: a third party's plugin cannot be loaded.
        """
        return cls(
            plugins.probes(),
            plugins.platforms(),
            plugins.stores(),
            plugins.releases(),
            plugins.gateways(),
        )
