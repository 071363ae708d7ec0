"""A Docker Engine of our own, started by hand beside whatever else runs on this machine.

Traps, each met: `--iptables=false`, or two engines flush each other's chains; its own containerd,
or it joins one that the system runs; the driver cgroupfs, because its parent group is no slice;
no proxy answers, because Swarm asks a registry for each image, and nothing here leaves the
machine; mounts of its own, because both daemons keep things in `/run` and `/etc` whatever they are
told. Ports are published by docker-proxy, which accepts as soon as a container is being
started: connected is not served. `--privileged` may be refused where this runs; nothing needs it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.real.slot import SYSTEM_PATH, Slot, claimed

from prunella.testing.site import until

_TOOLS = ("dockerd", "containerd", "docker", "ip", "busybox", "openssl")
_SWARM_DATA_PORTS = range(42_000, 42_256)  # by slot: the tunnel of a swarm is the machine's
_START_S = 30.0
_STOP_S = 30.0
_JOIN = 'echo $$ > "$0" && exec "$@"'  # a cgroup, before anything is started from there
_HIDE = 'set -e; for at in /run /etc/docker; do mount -t tmpfs tmpfs $at; done; exec "$@"'


def missing() -> str:
    """Why no engine can run here; empty when one can."""
    if os.geteuid() != 0:
        return "a Docker Engine of our own needs root"
    absent = [tool for tool in _TOOLS if shutil.which(tool, path=SYSTEM_PATH) is None]
    return f"a Docker Engine of our own needs {', '.join(absent)}" if absent else ""


class Engine:
    """One dockerd with its containerd. What tests do to it goes through Docker's own client."""

    def __init__(self, slot: Slot, options: Sequence[str] = ()) -> None:
        self.slot = slot
        self.folder = slot.folder
        self.socket = slot.folder / "docker.sock"
        self._options = options
        self._env = {
            "PATH": SYSTEM_PATH,
            "HOME": str(slot.folder),
            "DOCKER_HOST": f"unix://{self.socket}",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
        }
        self._containerd: subprocess.Popen[bytes] | None = None
        self._dockerd: subprocess.Popen[bytes] | None = None
        self._swarm = False

    @property
    def pid(self) -> int:
        """Of dockerd. Raises AssertionError: it does not run."""
        assert self._dockerd is not None
        return self._dockerd.pid

    def docker(self, *argv: str, stdin: bytes = b"") -> str:
        """What `docker ARGV` prints. Raises RuntimeError with what it says: it failed."""
        done = subprocess.run(
            ["docker", *argv], input=stdin, capture_output=True, env=self._env, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(argv)}: {done.stderr.decode().strip()}")
        return done.stdout.decode().strip()

    def answers(self) -> bool:
        """Whether it can be worked with; a swarm has no leader for a moment after its start."""
        argv = ["docker", "node", "ls"] if self._swarm else ["docker", "version"]
        return subprocess.run(argv, capture_output=True, env=self._env, check=False).returncode == 0

    def start(self) -> None:
        """Until it answers; again after it ended in whatever way.

        Raises:
            AssertionError: it does not answer.
            RuntimeError: it ends at once.
        """
        if self._containerd is None:
            Path("/etc/docker").mkdir(exist_ok=True)
            hide = ("unshare", "--mount", "sh", "-c", _HIDE, "sh")
            self._containerd = self._spawn("containerd", *hide, *self._containerd_argv())
            until((self.folder / "containerd.sock").exists, _START_S)
        if self._dockerd is None or self._ended():
            enter = ("nsenter", f"--mount=/proc/{self._containerd.pid}/ns/mnt")
            self._dockerd = self._spawn("dockerd", *enter, *self._dockerd_argv(), *self._options)
        until(lambda: self.answers() or self._ended(), _START_S)
        if self._ended():
            raise RuntimeError(f"dockerd ends at once: {self.log()[-2000:]}")

    def stop(self) -> None:
        """As its administrator does: containers stop with it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As its crash does: containers go on, and stop at its next start unless `--live-restore`
        is among the options.
        """
        self._end(signal.SIGKILL)

    def log(self) -> str:
        return (self.folder / "dockerd.log").read_text(errors="replace")

    def clean(self) -> None:
        """Remove everything that tests have made, as if it were new; start it if need be."""
        self.start()
        if self._swarm and (services := self.docker("service", "ls", "--quiet").split()):
            self.docker("service", "rm", *services)
        until(self._emptied, _STOP_S)
        self.docker("image", "prune", "--all", "--force")
        if volumes := self.docker("volume", "ls", "--quiet").split():
            self.docker("volume", "rm", *volumes)
        self.docker("network", "prune", "--force")

    def begin_swarm(self) -> None:
        """A swarm of one node, on addresses that no second engine has as well.

        Not every kernel has IPVS: publish with ``mode=host`` what a test is to reach.
        """
        gateway = f"prunella{self.slot.number}gw"
        bridge = f"com.docker.network.bridge.name={gateway}"
        subnet = ("--subnet", self.slot.bridges[gateway])
        self.docker("network", "create", *subnet, "--opt", bridge, "docker_gwbridge")
        here = self.slot.loopback
        data_port = str(_SWARM_DATA_PORTS[self.slot.number])
        listen = ("--advertise-addr", here, "--listen-addr", f"{here}:2377")
        self.docker("swarm", "init", *listen, "--data-path-port", data_port)
        self._swarm = True

    def reap(self) -> None:
        """Collect what was killed from outside, so that it is no zombie."""
        for child in (self._dockerd, self._containerd):
            if child is not None:
                child.wait(_STOP_S)

    def _emptied(self) -> bool:
        """Whether no container is left. Those of a swarm are removed by it and by us at once."""
        if containers := self.docker("ps", "--all", "--quiet").split():
            with suppress(RuntimeError):
                self.docker("rm", "--force", "--volumes", *containers)
        return not containers

    def _ended(self) -> bool:
        return self._dockerd is not None and self._dockerd.poll() is not None

    def _end(self, number: int) -> None:
        if self._dockerd is not None:
            self._dockerd.send_signal(number)
            self._dockerd.wait(_STOP_S)
            self._dockerd = None

    def _spawn(self, name: str, *argv: str) -> subprocess.Popen[bytes]:
        procs = self.slot.cgroup_root / self.slot.cgroup / "daemons" / "cgroup.procs"
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                ["sh", "-c", _JOIN, str(procs), *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                start_new_session=True,  # Ctrl-C is for the tests, which end it in order
            )

    def _containerd_argv(self) -> Iterator[str]:
        config = self.folder / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        yield from ("containerd", "--config", str(config), "--log-level", "warn")
        yield from ("--address", str(self.folder / "containerd.sock"))
        yield from ("--root", str(self.folder / "containerd"))
        yield from ("--state", str(self.folder / "containerd-state"))

    def _dockerd_argv(self) -> Iterator[str]:
        config = self.folder / "daemon.json"
        config.write_text("{}")  # and not what the machine's own is told
        yield from ("dockerd", "--config-file", str(config))
        yield from ("--host", f"unix://{self.socket}", "--log-level", "warn")
        yield from ("--containerd", str(self.folder / "containerd.sock"))
        yield from ("--data-root", str(self.folder / "data"))
        yield from ("--exec-root", str(self.folder / "exec"))
        yield from ("--pidfile", str(self.folder / "docker.pid"))
        yield from ("--cgroup-parent", f"/{self.slot.cgroup}")
        yield from ("--exec-opt", "native.cgroupdriver=cgroupfs")
        yield from ("--bridge", f"prunella{self.slot.number}")
        yield from ("--iptables=false", "--ip6tables=false")
        yield from ("--ip-forward=false", "--ip-masq=false")


@contextmanager
def running(*options: str) -> Iterator[Engine]:
    """A started engine, with more `options` for dockerd; gone without a trace on the way out."""
    with claimed() as slot:
        engine = Engine(slot, options)
        try:
            engine.start()
            yield engine
        finally:
            slot.clear()
            engine.reap()
