"""What is said of units of a real systemd before anything is done, and to whom."""

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.platforms.systemd_house import SERVICE, SLEEP, House, look

from prunella.errors import PermanentError, TransientError
from prunella.platforms.systemd import SystemdPlatform, SystemdSpec
from prunella.plugins import PlatformContext, platforms
from prunella.ports import Remark
from prunella.runtime.clock import SystemClock
from prunella.testing.site import free_port, until

POLKIT = Path("/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service").exists()
RULE = "/etc/polkit-1/rules.d/shop.rules"


def listens(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


async def test_a_user_without_rights_may_look_and_is_told_the_rule_that_it_lacks(
    house: House,
) -> None:
    before = await look(await house.running())
    state, remark, refusal = await as_nobody(house)
    assert state == "running"
    assert remark.startswith("doubt" if POLKIT else "fault")
    assert "user nobody may not do that to shop.service: " in remark
    assert "user nobody may not do that to shop.service: " in refusal
    assert await look(house.platforms[0]) == before
    if POLKIT:
        rule = refusal.partition("add a polkit rule: ")[2]
        await asyncio.to_thread(house.machine.run, "sh", "-c", f"echo '{rule}' > {RULE}")
        await house.systemctl("restart", "polkit")
        try:
            assert await as_nobody(house) == ["running", remark]
        finally:
            await asyncio.to_thread(house.machine.run, "rm", RULE)
            await house.systemctl("stop", "polkit")
        assert (await look(house.platforms[0])).identity != before.identity


async def as_nobody(house: House) -> list[str]:
    """What unprivileged.py says: the state of the unit, a remark, and whether it may restart it."""
    script = str(Path(__file__).with_name("unprivileged.py"))
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, script, str(house.machine.buses["system"])),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await child.communicate()
    return said.decode().splitlines()


async def said_of(
    house: House, unit: str = "shop.service", **fields: Any
) -> list[tuple[bool, str]]:
    """What is said of a unit that nobody else looks after: whether it is a fault, and what."""
    platform = house.build(unit, **fields)
    found = await platform.examine()
    await platform.close()
    return [(remark.fault, remark.message) for remark in found]


async def test_what_speaks_against_a_unit_is_said_before_anything_is_done(house: House) -> None:
    await house.write(SLEEP)
    assert await said_of(house) == []
    assert await said_of(house, "absent") == [(True, "systemd knows no unit absent.service")]
    assert await said_of(house, "absent@.service") == [
        (True, "systemd knows no unit absent@1.service"),
        (False, "no numbered instance like absent@1.service runs: there is nothing to heal yet"),
    ]
    await house.write(SLEEP + "Restart=on-failure\n")
    ((fault, message),) = await said_of(house)
    assert not fault
    assert message.startswith("shop.service has Restart=on-failure: systemd restarts it by itself")
    await house.write("[Unit]\nRefuseManualStop=yes\n" + SLEEP)
    assert await said_of(house) == [
        (True, "shop.service has RefuseManualStop=yes: it is not restarted")
    ]
    await house.write("[Service]\nType=oneshot\nExecStart=/bin/true\n")
    assert await said_of(house) == [
        (False, "shop.service has Type=oneshot: that it ends is no fault, unless it fails")
    ]
    await house.write("[Service]\nRestart=no\n")
    ((fault, message),) = await said_of(house)
    assert fault
    assert message.startswith("shop.service cannot be loaded: ")
    await house.write(SLEEP)
    ((fault, message),) = await said_of(house, bus=f"unix:path={house.folder}/no-bus")
    assert fault
    assert message.endswith("No such file or directory; is systemd running?")


async def test_a_unit_that_two_services_look_after_is_a_fault(house: House) -> None:
    await house.running()
    (remark,) = await house.build().examine()
    assert remark == Remark("another service looks after shop.service as well", fault=True)


async def test_a_masked_unit_and_one_that_a_socket_starts_are_remarked_on(house: House) -> None:
    await house.systemctl("mask", "shop")
    try:
        assert await said_of(house) == [
            (True, "shop.service is masked, so that nobody can start it")
        ]
    finally:
        await house.systemctl("unmask", "shop")
    await house.write(SLEEP)
    await house.write("[Socket]\nListenStream=/run/shop.sock\n", "shop.socket")
    await house.systemctl("start", "shop.socket")
    ((fault, message),) = await said_of(house)
    assert not fault
    assert message.startswith("shop.service is started by shop.socket")


async def test_what_runs_is_drafted_with_a_probe_of_the_port_that_it_listens_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", house.machine.address())
    plugin = platforms()["systemd"]
    assert plugin.reach is not None
    assert plugin.survey is not None
    assert await plugin.reach(SystemClock()) == ""
    port = free_port()
    await house.write(f"[Service]\nExecStart=/bin/busybox httpd -f -p 127.0.0.1:{port} -h /etc\n")
    await house.write(SLEEP + "Restart=always\n", "batch.service")
    await house.write(SLEEP, "app@.service")
    await house.systemctl("start", "shop", "batch", "app@1", "app@2")
    await asyncio.to_thread(until, lambda: listens(port))
    batch, app, shop = sorted(
        [draft for draft in await plugin.survey(SystemClock()) if draft.id != "users"],
        key=lambda draft: ["batch", "app", "shop"].index(draft.id),
    )
    assert (shop.section, shop.scale, shop.note) == ({"unit": "shop.service"}, {}, "")
    assert list(shop.probes) == [{"kind": "tcp", "host": "127.0.0.1", "port": port}]
    assert list(batch.probes) == [{"kind": "process"}]
    assert batch.note.startswith("batch.service has Restart=always")
    assert (app.section, app.scale) == ({"unit": "app@.service"}, {"min": 2, "max": 4})
    for draft in (batch, app, shop):
        plugin.spec.model_validate(draft.section)


async def test_a_machine_without_systemd_is_said_to_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    plugin = platforms()["systemd"]
    assert plugin.reach is not None
    assert plugin.survey is not None
    assert "is systemd running?" in await plugin.reach(SystemClock())
    with pytest.raises(TransientError, match=r"is systemd running\?"):
        await plugin.survey(SystemClock())


async def test_a_user_without_a_session_has_no_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    context = PlatformContext(SERVICE, SystemClock(), tmp_path, lambda _fact: None)
    platform = SystemdPlatform(SystemdSpec(unit="shop", bus="user"), context)
    with pytest.raises(PermanentError, match="no user bus: neither"):
        await platform.observe()
