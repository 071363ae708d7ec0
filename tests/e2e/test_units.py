"""The daemon in front of a real systemd: healed once, also if it is killed in the middle."""

import signal
from collections.abc import Iterator

import pytest
from tests.real.systemd import Systemd

from prunella.testing.site import Site, free_port, until

pytestmark = pytest.mark.e2e

# Its start takes a while, so that there is time to die in the middle of it.
UNIT = """
[Unit]
StartLimitIntervalSec=0
[Service]
Type=exec
ExecStartPre=/bin/sh -c "echo x >> /tmp/starts; sleep 1"
ExecStart={command}
"""


@pytest.fixture
def machine(systemd: Systemd) -> Iterator[Systemd]:
    yield systemd
    systemd.run("rm", "-f", "/tmp/starts")


def starts(machine: Systemd) -> int:
    return len(machine.run("cat", "/tmp/starts").split())


def watch(site: Site, machine: Systemd, unit: str, more: str = "") -> None:
    section = f"platform: systemd\n    systemd: {{unit: {unit}, bus: {machine.address()!r}}}"
    site.write(f"  unit:\n    {section}\n{more}")
    site.start()


def healed(site: Site) -> list[str]:
    return [
        one["action"] for one in site.history() if one["serviceId"] == "unit" and one["success"]
    ]


def test_a_killed_unit_is_restarted_once_though_prunella_is_killed_meanwhile(
    site: Site, machine: Systemd
) -> None:
    port = free_port()
    command = f"/bin/busybox httpd -f -p 127.0.0.1:{port} -h /etc"
    machine.write_unit("shop.service", UNIT.format(command=command))
    machine.systemctl("start", "shop")
    probe = f'    probes: [{{kind: http, url: "http://127.0.0.1:{port}/passwd"}}]\n'
    watch(site, machine, "shop.service", probe)
    machine.systemctl("kill", "--signal", "KILL", "shop")
    until(lambda: machine.show("shop", "ActiveState") == "activating")
    site.end(signal.SIGKILL)
    site.start()
    until(lambda: healed(site) == ["restart"])
    assert starts(machine) == 2


def test_a_unit_is_scaled_once_though_prunella_is_killed_meanwhile(
    site: Site, machine: Systemd
) -> None:
    machine.write_unit("app@.service", UNIT.format(command="/bin/sleep infinity"))
    machine.systemctl("start", "app@1")
    watch(site, machine, "app@1.service", "    scale: {min: 1, max: 3}\n")
    order = {"action": "scale-up", "reason": "a test", "wait": False}
    until(lambda: "id" in (site.ask("POST", "/api/v1/services/unit/heal", order) or {}))
    until(lambda: machine.show("app@2", "ActiveState") == "activating")
    site.end(signal.SIGKILL)
    site.start()
    until(lambda: healed(site) == ["scale-up"])
    assert starts(machine) == 2
    assert machine.show("app@3", "ActiveState") == "inactive"
