"""Images without a registry: busybox in a tar, imported; and a web server that misbehaves.

An imported image has an id, and no digest of a repository: the id is what it can be pinned to.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from tests.real.engine import Engine
from tests.real.slot import SYSTEM_PATH

_APPLETS = ("sh", "cat", "httpd", "kill", "printf", "rm", "sleep", "tr", "wget")
_SERVE = """#!/bin/sh
# The first process: ends when asked to, and with its server.
trap 'exit 0' TERM
rm -f /run/site
[ -z "$crashes" ] || exit "$crashes"
httpd -f -p "${PORT:-80}" -h /www &
wait $!
"""
_INDEX = """#!/bin/sh
. /etc/site
[ ! -e /run/site ] || . /run/site
[ "$delay" = 0 ] || sleep "$delay"
printf 'Status: %s as told\\r\\nContent-Type: text/plain\\r\\n\\r\\n%s\\n' "$status" "$version"
"""
_TELL = """#!/bin/sh
printf '%s' "$QUERY_STRING" | tr '&' '\\n' > /run/site
printf 'Content-Type: text/plain\\r\\n\\r\\ntold\\n'
"""
_HEALTHCHECK = (
    "HEALTHCHECK --interval=300ms --timeout=1s --retries=2 "
    'CMD ["sh", "-c", "wget -q -O /dev/null http://127.0.0.1:${PORT:-80}/"]'
)


@dataclass(frozen=True)
class Release:
    """One version of the web server, and how it behaves until it is told otherwise.

    It answers every request for ``/`` with `version`, after `delay_s`, with `status`; `crashes` is
    the code with which it ends at its start instead. It listens on port 80, or on ``PORT`` of its
    environment.
    """

    version: str = "1"
    status: int = 200
    delay_s: float = 0
    crashes: int | None = None
    healthcheck: bool = False

    def files(self) -> dict[str, str]:
        site = f"version={self.version}\nstatus={self.status}\ndelay={self.delay_s:g}\n"
        return {
            "bin/serve": _SERVE,
            "etc/site": site,
            "etc/passwd": "root:x:0:0::/:/bin/sh\n",
            "www/cgi-bin/index.cgi": _INDEX,
            "www/cgi-bin/tell": _TELL,
        }

    def changes(self) -> list[str]:
        """In the words of a Dockerfile."""
        crashes = [] if self.crashes is None else [f"ENV crashes={self.crashes}"]
        healthcheck = [_HEALTHCHECK] if self.healthcheck else []
        return ['CMD ["serve"]', "ENV PATH=/bin", "EXPOSE 80", *crashes, *healthcheck]


def make_image(engine: Engine, tag: str, release: Release | None = None) -> str:
    """Make or replace the image `tag`; its id."""
    release = release or Release()
    options = [word for change in release.changes() for word in ("--change", change)]
    return engine.docker("import", *options, "-", tag, stdin=pack(release.files()))


def tell(
    port: int,
    *,
    host: str = "127.0.0.1",
    version: str = "1",
    status: int = 200,
    delay_s: float = 0,
) -> None:
    """Change how the server behaves that is reached there, until its container starts again.

    Raises OSError: it does not answer.
    """
    told = f"version={version}&status={status}&delay={delay_s:g}"
    with urlopen(f"http://{host}:{port}/cgi-bin/tell?{told}", timeout=5) as answer:
        answer.read()


def pack(files: Mapping[str, str]) -> bytes:
    busybox = shutil.which("busybox", path=SYSTEM_PATH)
    assert busybox is not None
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for folder in ("proc", "sys", "dev", "run", "tmp"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(entry)
        bodies = {name: text.encode() for name, text in files.items()}
        for name, body in {**bodies, "bin/busybox": Path(busybox).read_bytes()}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(body), 0o755
            tar.addfile(entry, io.BytesIO(body))
        for applet in _APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return packed.getvalue()
