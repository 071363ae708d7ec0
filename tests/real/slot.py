"""What one engine has of this machine, all of it under one number, and none of it afterwards.

A test run that is killed leaves its daemons running. So nothing is remembered: who holds the lock
of a number removes what the last holder left, before it begins and when it ends, by the same steps.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from prunella.testing.site import until

SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_CGROUPS = Path("/sys/fs/cgroup")
_SLOT_COUNT = 256
_CLEAR_S = 20.0
_ARP_RETRY_MS = 20  # a second unless set: what knocks while a container starts waits that long


def run(*argv: str) -> str:
    """Raises RuntimeError with what the command said: it failed."""
    env = {**os.environ, "PATH": SYSTEM_PATH}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Slot:
    """The names and addresses that follow from a number.

    Addresses are of the networks for benchmarks (RFC 2544), which nobody routes.
    """

    number: int

    @property
    def folder(self) -> Path:
        return Path(f"/var/lib/prunella-tests/{self.number}")

    @property
    def bridges(self) -> dict[str, str]:
        """By network: of containers, and of swarm tasks."""
        return {
            f"prunella{self.number}": f"198.18.{self.number}.1/24",
            f"prunella{self.number}gw": f"198.19.{self.number}.1/24",
        }

    @property
    def loopback(self) -> str:
        """Where its swarm talks to itself: the port of its gossip is fixed."""
        return f"127.198.{self.number}.1"

    @property
    def cgroup(self) -> str:
        """Of everything that runs here: the daemons, and below it each container."""
        return f"prunella-tests-{self.number}"

    @property
    def cgroup_root(self) -> Path:
        """A hierarchy that each process is in, whichever the kernel was started with."""
        roots = (_CGROUPS / "unified", _CGROUPS, _CGROUPS / "pids")
        return next(root for root in roots if (root / "cgroup.procs").exists())

    def controllers(self) -> list[Path]:
        """Of cgroups of the first version: a hierarchy for each; none of the second."""
        folders = (folder for folder in _CGROUPS.iterdir() if folder.is_dir())
        return [folder for folder in folders if (folder / "cgroup.procs").exists()]

    def pids(self) -> list[int]:
        found: list[int] = []
        for folder, _, _ in os.walk(self.cgroup_root / self.cgroup):
            with suppress(OSError):  # it ended, and its folder with it
                found += map(int, (Path(folder) / "cgroup.procs").read_text().split())
        return found

    def traces(self) -> list[str]:
        """What is still there, for tests; empty when nothing is."""
        links = [name for name in self.bridges if (Path("/sys/class/net") / name).exists()]
        cgroups = [str(folder) for folder in self._cgroups()]
        folders = [str(self.folder)] if self.folder.exists() else []
        return [*map(str, self.pids()), *links, *cgroups, *folders]

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, mode=0o700)
        (self.cgroup_root / self.cgroup / "daemons").mkdir(parents=True)
        for name, address in self.bridges.items():
            run("ip", "link", "add", name, "type", "bridge")
            run("ip", "address", "add", address, "dev", name)
            run("ip", "link", "set", name, "up")
            retry = Path(f"/proc/sys/net/ipv4/neigh/{name}/retrans_time_ms")
            retry.write_text(str(_ARP_RETRY_MS))

    def clear(self) -> None:
        """Processes first: they hold the rest, and their mounts go with them.

        Raises:
            AssertionError: something does not go.
        """
        until(self._killed, _CLEAR_S)
        for name in self.bridges:
            if (Path("/sys/class/net") / name).exists():
                run("ip", "link", "delete", name)
        until(self._cgroups_removed, _CLEAR_S)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not self.traces()

    def _killed(self) -> bool:
        pids = self.pids()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    def _cgroups(self) -> list[Path]:
        roots = [_CGROUPS, *_CGROUPS.iterdir()]
        return [root / self.cgroup for root in roots if (root / self.cgroup).is_dir()]

    def _cgroups_removed(self) -> bool:
        for top in self._cgroups():
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):  # busy until the kernel has let the dead go: again then
                    Path(folder).rmdir()
        return not self._cgroups()


@contextmanager
def claimed() -> Iterator[Slot]:
    """A slot that nobody else on this machine has, ready for use; cleared on the way out."""
    for number in range(_SLOT_COUNT):
        with Path(f"/run/prunella-tests-{number}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            slot = Slot(number)
            slot.clear()
            try:
                slot.prepare()
                yield slot
            finally:
                slot.clear()
            return
    raise RuntimeError(f"all {_SLOT_COUNT} slots for engines are taken")
