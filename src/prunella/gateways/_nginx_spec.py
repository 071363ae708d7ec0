"""What a config file says of an nginx, and of a service behind it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from prunella.spec import Duration, GatewaySpec, RouteSpec, Size

_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"


def _plain(path: Path) -> Path:
    if re.search(r"[\s\"'$;{}\\*?\[]", str(path)):
        raise ValueError("has a character that means something to nginx")
    return path


PlainPath = Annotated[Path, AfterValidator(_plain)]


class NginxSpec(GatewaySpec):
    """An nginx on this machine, whose configuration includes our files."""

    folder: PlainPath = Field(description="Where our include files and valves are.")
    program: str = Field(default="nginx", description="The program.")
    config: Path = Field(
        default=Path("/etc/nginx/nginx.conf"), description="Its configuration file."
    )
    prefix: Path | None = Field(
        default=None, description="Its prefix, where it is started with `-p`."
    )
    pid: Path | None = Field(
        default=None, description="The pid file. Default: as its configuration says."
    )
    access_log: PlainPath | None = Field(
        default=None, description="The log that we read. Default: `requests.log` in the folder."
    )
    log_limit: Size = Field(
        default=64 * 2**20,
        description="A log that is larger is renamed to `*.1`, in place of the one before.",
    )
    status: str | None = Field(
        default=None,
        pattern=r"^http://(\[[0-9a-fA-F:]+\]|[^:/\s]+)(:\d+)?(/\S*)?$",
        description="A URL of its stub_status. With it we see when nginx does not answer.",
    )
    reload_timeout: Duration = Field(
        default=10.0, description="A test or a reload that takes longer has failed."
    )


class NginxRoute(RouteSpec):
    """Which upstream of it a service is."""

    upstream: str = Field(
        pattern=_NAME, description="The upstream; our files for the service are called after it."
    )
    servers: tuple[Annotated[str, Field(pattern=r"^[^\s;#{}\"']+$")], ...] = Field(
        default=(),
        description="Its servers, as host:port, where the platform does not know them.",
    )
    close_connections: bool = Field(
        default=True,
        description="While nginx reloads, tell callers to close their connections, so that no "
        "request is lost; headers that nginx adds outside the location are missing meanwhile.",
    )
    retry_after: Duration = Field(
        default=30.0, description="What callers are told to wait while the circuit is open."
    )
