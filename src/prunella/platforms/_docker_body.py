"""From a container that is there to the request for another one like it: pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from prunella.platforms._docker_api import part

_INHERITED = ("User", "WorkingDir", "StopSignal", "Healthcheck", "Shell", "OnBuild")
_SHARED_MODES = ("host", "none", "container:")  # networks that have no endpoint of ours
_IMAGE_LABEL = "com.docker.compose.image"  # of what image `docker compose` believes it to be

Json = Mapping[str, Any]


class Body(NamedTuple):
    """A request to create a container.

    Attributes:
        networks: those that older Engines let it join only afterwards, with its place in each.
    """

    create: dict[str, Any]
    networks: Mapping[str, Json]


def successor(old: Json, old_image: Json, image: str, labels: Mapping[str, str]) -> Body:
    """One that takes the place of `old` on another image: its addresses, and all its volumes.

    A volume without a name gets joined to the new one by the id that it has, so that nothing is
    lost and nothing refers to the old container once that is removed.
    """
    config = _own_config(old, old_image, image, labels)
    host = copy.deepcopy(part(old, "HostConfig"))
    mounts = [one for one in _list(host, "Mounts") if one.get("Source")]
    binds = [str(bind) for bind in _list(host, "Binds")]
    placed = {one["Target"] for one in mounts} | {_target(bind) for bind in binds}
    for mount in _list(old, "Mounts"):
        if mount.get("Type") == "volume" and mount["Destination"] not in placed:
            mode = "rw" if mount.get("RW", True) else "ro"
            binds.append(f"{mount['Name']}:{mount['Destination']}:{mode}")
    host["Binds"], host["Mounts"] = binds, mounts
    return _body(config, host, _endpoints(old, keep_place=True))


def replica(old: Json, old_image: Json, labels: Mapping[str, str]) -> Body:
    """One beside `old`: the same image and named volumes, and a place of its own."""
    config = _own_config(old, old_image, old["Image"], labels)
    config.pop("MacAddress", None)
    host = copy.deepcopy(part(old, "HostConfig"))
    return _body(config, host, _endpoints(old, keep_place=False))


def _body(config: dict[str, Any], host: dict[str, Any], endpoints: dict[str, Json]) -> Body:
    host.pop("ContainerIDFile", None)
    mode = host.get("NetworkMode") or "default"
    first = mode if mode in endpoints else next(iter(endpoints), "")
    networking = {"EndpointsConfig": {first: endpoints.pop(first)}} if first else {}
    return Body({**config, "HostConfig": host, "NetworkingConfig": networking}, endpoints)


def _own_config(
    old: Json, old_image: Json, image: str, labels: Mapping[str, str]
) -> dict[str, Any]:
    """What was asked for when `old` was made, without what came from its image: another image
    has its own command, environment and so on.
    """
    config, inherited = copy.deepcopy(part(old, "Config")), part(old_image, "Config")
    for name in _INHERITED:
        if name in config and config[name] == inherited.get(name):
            del config[name]
    if config.get("Entrypoint") == inherited.get("Entrypoint"):
        config.pop("Entrypoint", None)  # one of its own would void the image's command
        if config.get("Cmd") == inherited.get("Cmd"):
            config.pop("Cmd", None)
    given = set(_list(inherited, "Env"))
    config["Env"] = [one for one in _list(config, "Env") if one not in given]
    for name in ("ExposedPorts", "Volumes", "Labels"):
        theirs = part(inherited, name)
        ours = part(config, name).items()
        config[name] = {k: v for k, v in ours if k not in theirs or theirs[k] != v}
    config["Labels"] |= labels
    if _IMAGE_LABEL in config["Labels"]:
        config["Labels"][_IMAGE_LABEL] = image
    config["Image"] = image
    if _shares_network(old) or config.get("Hostname") == old["Id"][:12]:
        config.pop("Hostname", None)
    return config


def _endpoints(old: Json, *, keep_place: bool) -> dict[str, Json]:
    """Its place in each network. `keep_place`: with addresses that only one container can have."""
    if _shares_network(old):
        return {}
    own = {old["Id"][:12], "" if keep_place else old["Name"].removeprefix("/")}
    places: dict[str, Json] = {}
    for network, endpoint in part(old, "NetworkSettings", "Networks").items():
        aliases = [alias for alias in _list(endpoint, "Aliases") if alias not in own]
        place: dict[str, Any] = {
            key: endpoint[key] for key in ("Links", "DriverOpts") if endpoint.get(key)
        }
        if aliases and network != "bridge":  # which has no names, and refuses some
            place["Aliases"] = aliases
        if keep_place and endpoint.get("IPAMConfig"):
            place["IPAMConfig"] = endpoint["IPAMConfig"]
        places[network] = place
    return places


def _shares_network(one: Json) -> bool:
    return str(part(one, "HostConfig").get("NetworkMode") or "").startswith(_SHARED_MODES)


def _target(bind: str) -> str:
    """The folder inside of ``what:target[:options]``."""
    parts = bind.split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def _list(of: Json, name: str) -> list[Any]:
    return list(of.get(name) or ())
