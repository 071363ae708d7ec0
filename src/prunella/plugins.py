"""How a plugin makes itself known: a ``PLUGIN`` in its one file, or an entry point.

Built-in plugins are the modules of ``prunella.probes``, ``prunella.platforms``,
``prunella.gateways``, ``prunella.releases`` and ``prunella.stores``; third parties name theirs in
the entry point groups of the same names. There is no list to add a line to: schema, documentation
and conformance tests are made from what is found here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from prunella.core.model import ActionKind, InstanceId, ServiceId
from prunella.errors import PermanentError, StoreError
from prunella.ports import Clock, FactListener, Gateway, Platform, Probe, Release, Store
from prunella.spec import GatewaySpec, ProbeSpec, ReleaseSpec, RouteSpec, Spec


@dataclass(frozen=True, slots=True)
class ProbeContext:
    """What a probe may know besides its spec.

    ``pids`` answers the processes of an instance, or with None of the whole service, as its
    platform knows them, newest knowledge without I/O; empty where there are none.
    """

    service: ServiceId
    clock: Clock
    pids: Callable[[InstanceId | None], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class PlatformContext:
    """What a platform may know besides its spec.

    ``state_dir`` is a folder of this service's own, kept over restarts of Prunella. ``on_fact``
    may be called from the event loop at any time, and never blocks.
    """

    service: ServiceId
    clock: Clock
    state_dir: Path
    on_fact: FactListener


@dataclass(frozen=True, slots=True)
class ProbePlugin:
    """A kind of probe: ``spec`` is its config, ``build`` makes one from it."""

    kind: str
    spec: type[ProbeSpec]
    build: Callable[[Any, ProbeContext], Probe]


@dataclass(frozen=True, slots=True)
class ReleaseContext:
    """What a release source may know besides its spec; ``state_dir`` as for a platform."""

    service: ServiceId
    clock: Clock
    state_dir: Path


@dataclass(frozen=True, slots=True)
class Draft:
    """A service that runs now, as a piece of configuration that a person may begin with.

    Attributes:
        id: proposed; made unique and valid by whoever writes it down.
        section: the platform's section.
        probes: what is likely to measure it, as in a config file.
        scale: the service's ``scale`` section; empty: none.
        note: what the person should know; becomes a comment.
    """

    id: str
    section: Mapping[str, Any]
    probes: Sequence[Mapping[str, Any]] = ()
    scale: Mapping[str, Any] = field(default_factory=dict[str, Any])
    note: str = ""


@dataclass(frozen=True, slots=True)
class PlatformPlugin:
    """A kind of platform: ``spec`` is its config, ``build`` makes one for one service.

    Attributes:
        can: the kinds of action that it can do to some service at least, for people.
        reach: why it cannot be reached on this machine with its default settings; empty if it
            can. None: there is nothing to reach.
        survey: what runs on it now that could be looked after. Raises ``TransientError`` or
            ``PermanentError`` when it cannot tell. None: it cannot know.

    Both are given all the time there is, as no plugin reads it by itself.
    """

    kind: str
    spec: type[Spec]
    build: Callable[[Any, PlatformContext], Platform]
    can: tuple[ActionKind, ...] = (ActionKind.RESTART,)
    reach: Callable[[Clock], Awaitable[str]] | None = None
    survey: Callable[[Clock], Awaitable[Sequence[Draft]]] | None = None


@dataclass(frozen=True, slots=True)
class ReleasePlugin:
    """A kind of release source: ``spec`` is its config, ``build`` makes one for one service."""

    kind: str
    spec: type[ReleaseSpec]
    build: Callable[[Any, ReleaseContext], Release]


@dataclass(frozen=True, slots=True)
class GatewayContext:
    """What a gateway may know besides its spec; ``name`` is its key in ``gateways``.

    ``state_dir`` is a folder of this gateway's own, kept over restarts of Prunella.
    """

    name: str
    clock: Clock
    state_dir: Path


@dataclass(frozen=True, slots=True)
class GatewayPlugin:
    """A kind of gateway: ``spec`` is its config, ``build`` makes one from it.

    Attributes:
        route: the config of one service behind it: the section ``gateway`` of that service.
        writes: taking up routes changes files or programs, so it is not done only to look.
        experimental: written from the gateway's published interface, and not run against it yet.
    """

    kind: str
    spec: type[GatewaySpec]
    route: type[RouteSpec]
    build: Callable[[Any, GatewayContext], Gateway]
    writes: bool = False
    experimental: bool = False


@dataclass(frozen=True, slots=True)
class StorePlugin:
    """A kind of store: ``open`` takes the whole URL and raises ``StoreError`` if it must not be
    used; ``readonly`` opens it for reading while another process holds it.
    """

    kind: str  # the scheme of its URLs
    open: Callable[[str, bool], Store]


def _found(package: str) -> Mapping[str, Any]:
    modules = [
        import_module(f"{package}.{module.name}")
        for module in sorted(iter_modules(import_module(package).__path__), key=lambda m: m.name)
    ]
    plugins = [module.PLUGIN for module in modules if hasattr(module, "PLUGIN")]
    for entry in entry_points(group=package):
        try:
            plugins.append(entry.load())
        except ImportError as error:
            msg = f"plugin {entry.name} ({entry.value}) cannot be loaded: {error}"
            raise PermanentError(msg) from error
    return {plugin.kind: plugin for plugin in plugins}


@cache
def probes() -> Mapping[str, ProbePlugin]:
    """All probe plugins by kind."""
    return _found("prunella.probes")


@cache
def platforms() -> Mapping[str, PlatformPlugin]:
    """All platform plugins by kind."""
    return _found("prunella.platforms")


@cache
def gateways() -> Mapping[str, GatewayPlugin]:
    """All gateway plugins by kind."""
    return _found("prunella.gateways")


@cache
def releases() -> Mapping[str, ReleasePlugin]:
    """All plugins for sources of releases by kind."""
    return _found("prunella.releases")


@cache
def stores() -> Mapping[str, StorePlugin]:
    """All store plugins by URL scheme."""
    return _found("prunella.stores")


def open_store(url: str, *, readonly: bool = False) -> Store:
    """The store that a URL names.

    Raises:
        StoreError: no store of its kind is installed, or it must not be used.
    """
    scheme = url.partition(":")[0]
    if scheme not in stores():
        known = ", ".join(f"{kind}://" for kind in sorted(stores()))
        raise StoreError(f"no store of the kind {scheme!r} is installed, expected one of: {known}")
    return stores()[scheme].open(url, readonly)
