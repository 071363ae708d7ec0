"""Units of a real systemd: killed and serving again, and a thousand of them watched while calm."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.machine import free_port, running, until
from bench.report import Row, middle, spread
from bench.respawn import kill
from bench.supervisors import prunella_argv
from tests.real import engine as real_engine
from tests.real import systemd as real_systemd
from tests.real.systemd import Systemd

_UNIT = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart={command}\n"
_MANY = 1000
_WARM_UP_S = 15.0
_SLICE_S = 10.0
_PAUSE_S = 0.7  # verification ends meanwhile: the next fault is new
_CALM_LIMIT = 5.0
_CALM_CONFIG = """
store: "sqlite:///{folder}/prunella.db"
state_dir: "{folder}/state"
api: off
services:
"""


def missing() -> str:
    """Why there is no systemd to measure with; empty if there can be one."""
    return real_engine.missing() or real_systemd.missing()


@contextlib.contextmanager
def _booted() -> Iterator[Systemd]:
    with real_engine.running() as engine, real_systemd.booted(engine) as machine:
        yield machine


def measure_kill(round_count: int = 15) -> list[Row]:
    """The same server in two units, one with Restart=always and its RestartSec as it comes."""
    figure = "unit: kill -9 to serving"
    if why := missing():
        return [Row(figure, None, "ms", note=why)]
    took: dict[str, list[float]] = {"ours": [], "theirs": []}
    with _booted() as machine, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ports = {name: free_port() for name in took}
        for name, port in ports.items():
            command = f"/bin/busybox httpd -f -p 127.0.0.1:{port} -h /etc"
            more = "Restart=always\n" if name == "theirs" else ""
            machine.write_unit(f"{name}.service", _UNIT.format(command=command) + more)
            machine.systemctl("start", name)
        section: dict[str, object] = {"unit": "ours.service", "bus": machine.address()}
        argv = prunella_argv(Path(folder), ports["ours"], "systemd", section)
        log = Path(folder) / "output.log"
        with running(argv, log):
            until(lambda: "serving" in log.read_text(), 20.0, "Prunella starts", 0.02)
            for number in range(round_count + 1):
                for name, port in ports.items():
                    time.sleep(_PAUSE_S)
                    took_ms = kill(port)
                    if number > 0:  # the first round warms up
                        took[name].append(took_ms)
    return [
        Row(
            figure,
            middle(took["ours"]),
            "ms",
            peer=middle(took["theirs"]),
            peer_name="Restart=always",
            ratio_limit=1.0,
            note=f"ours {spread(took['ours'])}; systemd's own {spread(took['theirs'])}",
        )
    ]


def measure_calm(slice_count: int = 5) -> list[Row]:
    """A daemon without probes looks at each unit every 5 s, and at nothing else."""
    figure = f"{_MANY:,} calm units: CPU of one core"
    if why := missing():
        return [Row(figure, None, "%", note=why)]
    used: list[float] = []
    with _booted() as machine, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        machine.write_unit("calm@.service", _UNIT.format(command="/bin/sleep infinity"))
        names = [f"calm@x{number}.service" for number in range(_MANY)]
        machine.systemctl("start", *names)
        section = f"platform: systemd, systemd: {{unit: %s, bus: {machine.address()!r}}}"
        services = "".join(f"  u{n}: {{{section % name}}}\n" for n, name in enumerate(names))
        config = Path(folder) / "prunella.yaml"
        config.write_text(_CALM_CONFIG.format(folder=folder) + services)
        log = Path(folder) / "output.log"
        with running([sys.executable, "-m", "bench.daemon", str(config)], log) as daemon:
            until(lambda: "serving" in log.read_text(), 60.0, "Prunella starts", 0.05)
            time.sleep(_WARM_UP_S)
            for _ in range(slice_count):
                before = _cpu_s(daemon.pid)
                time.sleep(_SLICE_S)
                used.append(100 * (_cpu_s(daemon.pid) - before) / _SLICE_S)
    return [
        Row(
            figure,
            middle(used),
            "%",
            limit=_CALM_LIMIT,
            note=f"slices of {_SLICE_S:g} s: {spread(used)}",
        )
    ]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
