"""What we say in nginx's own language: the include files, and the lines that include them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from math import ceil
from pathlib import Path
from typing import NamedTuple

BUCKETS = 100  # the share of an open circuit is counted in percent
_SERVER = re.compile(r"^(\s*server\s+)([^\s;#]+)([^;#]*);\s*(?:#\s*(.*?)\s*)?$")
_SERVERS_HEAD = """\
# The servers of {0}, kept by Prunella: each line with a name behind it.
# What you add to a line stays, and so does "down"; lines without a name are yours.
"""
_LOG_FORMAT = (
    "$prunella_service|$prunella_turned|$status|$upstream_addr|$upstream_status|"
    "$upstream_response_time|$upstream_connect_time"
)


class Places(NamedTuple):
    """Where the files are that are ours."""

    folder: Path
    log: Path

    @property
    def http(self) -> Path:
        return self.folder / "prunella.http.conf"

    @property
    def valves(self) -> Path:
        return self.folder / "valves"

    @property
    def log_conf(self) -> Path:
        return self.folder / "prunella.log.conf"

    def location(self, upstream: str) -> Path:
        return self.folder / f"{upstream}.location.conf"

    def servers(self, upstream: str) -> Path:
        return self.folder / f"{upstream}.servers.conf"

    def snippet(self, upstream: str) -> str:
        """What an operator writes into nginx's configuration, on one line."""
        return (
            f"http {{ include {self.http}; ... "
            f"upstream {upstream} {{ include {self.servers(upstream)}; }} ... "
            f"location / {{ include {self.location(upstream)}; proxy_pass http://{upstream}; }} }}"
        )


class Listed(NamedTuple):
    """One server of an upstream, as its file has it. ``host``: with its port, as nginx reads it."""

    name: str
    host: str
    down: bool


def quoted(text: str) -> str:
    """One word of nginx's configuration that says exactly `text`, in which $ has no meaning."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("$", "${prunella_dollar}") + '"'


def log_conf(places: Places) -> str:
    return f"access_log {places.log} prunella buffer=64k flush=1s if=$prunella_service;\n"


def http_conf(places: Places) -> str:
    """For ``http``: the log, and what each request asks of a valve.

    A variable of a map can be ``set``, and is empty, without a warning, where it is not.
    """
    buckets = "\n".join(f"    1% {bucket};" for bucket in range(BUCKETS - 1))
    return (
        'map "" $prunella_service { default ""; }\n'
        'map "" $prunella_turned { default ""; }\n'
        'map $msec $prunella_second { default 0; "~^(?<prunella_whole>[0-9]+)" $prunella_whole; }\n'
        'map $server_protocol $prunella_close { default ""; "HTTP/1.1" close; }\n'
        'geo $prunella_dollar { default "$"; }\n'
        f'split_clients "$request_id" $prunella_bucket {{\n{buckets}\n    * {BUCKETS - 1};\n}}\n'
        f"log_format prunella '{_LOG_FORMAT}';\n{log_conf(places)}"
    )


def location_conf(
    places: Places, upstream: str, *, body: str, fallback: str, retry_after_s: float, hangs_up: bool
) -> str:
    """For the ``location``: name its requests, and answer those that the valve holds back.

    While workers leave, callers are asked to close their connections before nginx does: a request
    that is on its way to a connection that nginx closes is lost.
    A cache of open files would remember valves, so there is none here.
    """
    markup = "html" if body.lstrip().startswith("<") else "plain"
    if fallback:
        act = f"    proxy_pass http://{fallback};\n"
    else:
        said = f" {quoted(body)}" if body else ""
        act = (
            f"    add_header Retry-After {ceil(retry_after_s)} always;\n"
            f"    charset utf-8;\n    return 503{said};\n"
        )
    path = f"{places.valves}/{upstream}/$prunella_second/$prunella_bucket"
    leaving = f"{places.valves}/.leaving/$prunella_second"
    hang_up = (
        f'if (-f "{leaving}") {{\n    add_header Connection $prunella_close always;\n}}\n'
        if hangs_up
        else ""
    )
    return (
        f"set $prunella_service {upstream};\ndefault_type text/{markup};\nopen_file_cache off;\n"
        f'{hang_up}if (-f "{path}") {{\n    set $prunella_turned 1;\n{act}}}\n'
    )


def host(address: str, port: int) -> str:
    """An address with its port, as nginx writes both."""
    try:
        return (
            f"[{address}]:{port}"
            if isinstance(ip_address(address), IPv6Address)
            else (f"{address}:{port}")
        )
    except ValueError:
        return f"{address}:{port}"


def listed(text: str) -> tuple[Listed, ...]:
    """The servers of an include file; one without a name is called by its address."""
    found = (_SERVER.match(line) for line in text.splitlines())
    return tuple(Listed(one[4] or one[2], one[2], "down" in one[3].split()) for one in found if one)


def with_down(text: str, down: Mapping[str, bool]) -> str:
    """The same file, with these servers down or not. Nothing else in it is touched."""
    return "".join(_with_down(line, down) for line in text.splitlines(keepends=True))


def _with_down(line: str, down: Mapping[str, bool]) -> str:
    one = _SERVER.match(line)
    if one is None or (name := one[4] or one[2]) not in down:
        return line
    words = one[3].split()
    if ("down" in words) is down[name]:
        return line
    words = [*words, "down"] if down[name] else [word for word in words if word != "down"]
    comment = f" # {one[4]}" if one[4] else ""
    return f"{one[1]}{' '.join([one[2], *words])};{comment}\n"


def with_servers(text: str | None, upstream: str, wanted: Sequence[tuple[str, str]]) -> str:
    """The file with the servers `wanted`, names and hosts, in place of those that had a name.

    A server that stays keeps what stands on its line, even at another address.
    """
    lines = (_SERVERS_HEAD.format(upstream) if text is None else text).splitlines()
    old = {one[4]: one for line in lines if (one := _SERVER.match(line)) and one[4]}
    kept = [line for line in lines if not ((one := _SERVER.match(line)) and one[4])]
    for name, at in wanted:
        more = old[name][3].rstrip() if name in old else ""
        kept.append(f"server {at}{more}; # {name}")
    return "\n".join(kept) + "\n"
