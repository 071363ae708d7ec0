"""systemd as the first process of a container, with a system bus and a user bus.

It is the machine's own systemd: the container has its `/usr`, read-only, and an `/etc` of its own,
so there is nothing to download and nothing to wait for.

Traps, each met: it wants the cgroups of the machine, writable, and CAP_SYS_ADMIN, but not
`--privileged`. It would mount each cgroup hierarchy of version 1 that the kernel lists and the
machine does not use; as long as one exists, no containerd on the machine hears of memory running
out. So that list is hidden from it. A user manager needs a runtime directory, and no login.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tests.real.engine import Engine
from tests.real.slot import SYSTEM_PATH

from prunella.testing.site import until

Bus = Literal["system", "user"]

_TOOLS = ("systemctl", "dbus-daemon")
_NAME = "systemd"
_BOOT = "mount --bind /dev/null /proc/cgroups && exec /lib/systemd/systemd --unit=tests.target"
_BOOT_S = 30.0
_UNITS = {
    "system/tests.target": """[Unit]
Requires=dbus.socket users.service
After=dbus.socket users.service
""",
    "system/users.service": """[Service]
Type=notify
Environment=HOME=/root XDG_RUNTIME_DIR=/run/dbus/user
ExecStartPre=/bin/mkdir -p -m 700 /run/dbus/user
ExecStart=/lib/systemd/systemd --user
Delegate=yes
KillMode=mixed
""",
    "user/dbus.socket": """[Socket]
ListenStream=%t/bus
""",
    "user/dbus.service": """[Unit]
Requires=dbus.socket
[Service]
Type=notify
ExecStart=/usr/bin/dbus-daemon --session --address=systemd: --nofork --nopidfile \
    --systemd-activation --syslog-only
""",
    "user/default.target": """[Unit]
Requires=dbus.socket
After=dbus.socket
""",
}
_ETC = {
    "machine-id": f"{'7': >32}\n".replace(" ", "0"),
    "passwd": "root:x:0:0::/root:/bin/sh\nmessagebus:x:101:101::/:/usr/sbin/nologin\n",
    "group": "root:x:0:\nmessagebus:x:101:\n",
}


def missing() -> str:
    """Why no systemd can run here although an engine can; empty when one can."""
    absent = [tool for tool in _TOOLS if shutil.which(tool, path=SYSTEM_PATH) is None]
    if absent:
        return f"a systemd of our own needs {', '.join(absent)}"
    return "" if Path("/lib").is_symlink() else "a systemd of our own needs /lib below /usr"


class Systemd:
    """A running one; its services share the machine's network, so that tests reach their ports."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._units = folder / "units"
        self.buses: dict[Bus, Path] = {
            "system": folder / "bus" / "system_bus_socket",
            "user": folder / "bus" / "user" / "bus",
        }

    def address(self, bus: Bus = "system") -> str:
        """As D-Bus clients want it."""
        return f"unix:path={self.buses[bus]}"

    def run(self, *argv: str) -> str:
        """What a command prints inside. Raises RuntimeError with what it says: it failed."""
        return self._engine.docker("exec", "--env", "XDG_RUNTIME_DIR=/run/dbus/user", _NAME, *argv)

    def systemctl(self, *argv: str, bus: Bus = "system") -> str:
        return self.run("systemctl", f"--{bus}", "--no-pager", *argv)

    def write_unit(self, name: str, text: str, *, bus: Bus = "system") -> None:
        """Make or replace the unit file `name`, and let it be read; started is nothing by this."""
        (self._units / bus / name).write_text(text)
        self.systemctl("daemon-reload", bus=bus)

    def show(self, unit: str, prop: str, *, bus: Bus = "system") -> str:
        """One property of a unit, for example ``MainPID``."""
        return self.systemctl("show", "--value", "--property", prop, unit, bus=bus)

    def boot(self) -> None:
        """Until both buses answer. Raises AssertionError: they do not."""
        for name, text in _UNITS.items():
            (self._units / name).parent.mkdir(parents=True, exist_ok=True)
            (self._units / name).write_text(text)
        bus = self.buses["system"].parent
        bus.mkdir()
        self._engine.docker("import", "-", "systemd", stdin=_pack())
        self._engine.docker(
            *("run", "--detach", "--name", _NAME, "--network", "host"),
            *("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"),
            *("--security-opt", "apparmor=unconfined", "--cgroupns", "host"),
            *("--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--volume", "/usr:/usr:ro"),
            *("--volume", f"{bus}:/run/dbus", "--volume", f"{self._units}:/etc/systemd"),
            *("--tmpfs", "/run", "--tmpfs", "/tmp", "--env", "container=docker"),
            *("systemd", "sh", "-c", _BOOT),
        )
        until(self._answers, _BOOT_S)

    def clean(self) -> None:
        """Stop and forget every unit that was written, as if it were new."""
        for bus in self.buses:
            for file in (self._units / bus).iterdir():
                if f"{bus}/{file.name}" not in _UNITS:
                    self.systemctl("stop", file.name.replace("@.", "@*."), bus=bus)
                    file.unlink()
            self.systemctl("daemon-reload", bus=bus)
            self.systemctl("reset-failed", bus=bus)

    def _answers(self) -> bool:
        try:
            return self.systemctl("is-active", "tests.target") == "active" and bool(
                self.systemctl("is-active", "dbus.socket", bus="user")
            )
        except RuntimeError:
            return False


@contextmanager
def booted(engine: Engine) -> Iterator[Systemd]:
    """One on that engine; it ends with it."""
    machine = Systemd(engine, engine.folder / "systemd")
    machine.boot()
    yield machine


def _pack() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path("/", name).is_symlink():
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
                tar.addfile(link)
        for name in ("usr", "run", "tmp", "root", "var", "etc/systemd"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, text in _ETC.items():
            entry = tarfile.TarInfo(f"etc/{name}")
            entry.size, entry.mode = len(text), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()
