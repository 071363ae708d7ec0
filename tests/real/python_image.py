"""An image with Python, without a registry: this machine's own, with what it is linked to.

It stands in for `python:*-slim` as the base of Prunella's image: a shell and a few tools of busybox
for the build, `venv` with pip, and how this machine reaches its registry of Python packages.
"""

from __future__ import annotations

import io
import os
import subprocess
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tests.real.engine import Engine
from tests.real.images import pack

_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo"}
# By wheels, and there in every slim image.
_ALSO_LINKED = ("libstdc++.so.6", "libgcc_s.so.1", "librt.so.1", "libpthread.so.0", "libdl.so.2")
_SETTINGS = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf", "/etc/nsswitch.conf")


def make_base(engine: Engine, tag: str) -> None:
    packed = io.BytesIO(pack({"etc/passwd": "root:x:0:0::/:/bin/sh\n"}))
    with tarfile.open(fileobj=packed, mode="a") as tar:
        for path in dict.fromkeys(_files()):
            tar.add(path, arcname=path, filter=_anybodys)
        for applet in ("mkdir", "touch"):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    env = {
        "PATH": f"{_program().parent}:/bin",
        "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR"),
        **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
    }
    options = [word for key, value in env.items() for word in ("--change", f"ENV {key}={value}")]
    engine.docker("import", *options, "-", tag, stdin=packed.getvalue())


def _program() -> Path:
    return Path(sysconfig.get_config_var("BINDIR")) / "python3"


def _files() -> Iterator[str]:
    yield from _linked(str(_program()))
    library = Path(sysconfig.get_path("stdlib"))
    for path in library.rglob("*"):
        inside = path.relative_to(library).parts
        if path.is_file() and "__pycache__" not in inside and not _LEFT_OUT.intersection(inside):
            yield str(path)
            if path.suffix == ".so":
                yield from _linked(str(path))
    yield from (str(path) for path in Path("/usr/share/python-wheels").glob("*.whl"))
    yield from (path for path in _SETTINGS if Path(path).is_file())


def _linked(program: str) -> Iterator[str]:
    """It with all links that lead to it, and the libraries that it is linked to."""
    yield from _way(program)
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    libraries = [word for line in said.splitlines() for word in line.split() if word[0] == "/"]
    for library in libraries:
        yield from _way(library)
        if Path(library).name.startswith("libc.so"):
            for name in _ALSO_LINKED:
                yield from _way(str(Path(library).with_name(name)))


def _way(path: str) -> Iterator[str]:
    yield path
    while os.path.islink(path):  # noqa: PTH114 - as it is written, not as it is resolved
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))  # noqa: PTH115, PTH118, PTH120
        yield path


def _anybodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    return entry
