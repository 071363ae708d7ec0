"""A bus that is cut, hangs or goes mad: nothing is done twice, and nothing is missed for ever."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.platforms.bus_proxy import BusProxy, before_the_bus
from tests.platforms.conftest import Until
from tests.platforms.systemd_house import (
    COUNTED,
    EXITED,
    RUNNING,
    SLEEP,
    STOPPED,
    House,
    look,
    look_until,
    restart,
    restart_of,
)

from prunella.core.model import Epoch, FactKind, InstanceState
from prunella.errors import PermanentError, TransientError
from prunella.platforms.systemd import SystemdPlatform


@pytest.fixture
async def proxy(house: House, tmp_path: Path) -> AsyncIterator[BusProxy]:
    async with before_the_bus(house.machine.buses["system"], tmp_path) as proxy:
        yield proxy
        await house.close()


async def patiently(platform: SystemdPlatform, state: InstanceState = RUNNING) -> None:
    """Look until it can be told, and is so."""
    async with asyncio.timeout(20):
        while True:
            try:
                await look_until(platform, state)
            except TransientError:
                await asyncio.sleep(0.02)
            else:
                return


async def test_all_units_of_a_bus_share_one_connection_that_ends_with_them(
    house: House, proxy: BusProxy, until: Until
) -> None:
    await house.write(SLEEP, "app@.service")
    platforms = [house.build(f"app@x{number}", bus=proxy.address) for number in range(40)]
    await asyncio.gather(*(platform.observe() for platform in platforms))
    await platforms[0].close()
    assert (await look(platforms[1])).state is STOPPED
    assert proxy.connection_count == proxy.open_count == 1
    await house.close()
    await until(lambda: proxy.open_count == 0)


async def test_what_happened_while_the_bus_was_away_is_told_once(
    house: House, proxy: BusProxy, until: Until
) -> None:
    platform = await house.running(bus=proxy.address)
    await proxy.vanish()
    await house.systemctl("kill", "--signal", "KILL", "shop")
    with pytest.raises(TransientError):
        await platform.observe()
    assert house.told() == []
    await proxy.listen()
    await until(lambda: FactKind.EXITED in house.told())
    await patiently(platform, EXITED)
    assert house.told() == [FactKind.EXITED]


async def test_a_bus_that_was_never_there_is_said_to_be(house: House, tmp_path: Path) -> None:
    platform = house.build(bus=f"unix:path={tmp_path}/nothing")
    with pytest.raises(TransientError, match=r"no bus at .*nothing: No such file"):
        await platform.observe()


@pytest.mark.parametrize(
    ("says", "error", "words"),
    [
        (b"HTTP/1.0 400 Bad Request\r\n\r\n", TransientError, "talks no D-Bus"),
        (b"", TransientError, "talks no D-Bus"),
        (b"REJECTED EXTERNAL\r\n", PermanentError, "lets us not in"),
    ],
)
async def test_a_socket_that_is_no_bus_is_said_to_be_none(
    house: House, tmp_path: Path, says: bytes, error: type[Exception], words: str
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(says)
        await writer.drain()
        if says:
            await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(answer, tmp_path / "odd"):
        with pytest.raises(error, match=words):
            await house.build(bus=f"unix:path={tmp_path}/odd").observe()
        await house.close()


async def test_an_address_that_cannot_be_one_is_an_error(house: House) -> None:
    with pytest.raises(PermanentError, match="no address of a bus"):
        await house.build(bus="unix:path=/with blank").observe()


async def test_a_cut_bus_is_used_again_at_once(house: House, proxy: BusProxy, until: Until) -> None:
    platform = await house.running(bus=proxy.address)
    proxy.cut()
    await until(lambda: proxy.connection_count == 2)
    await patiently(platform)
    await restart(platform)
    assert (await look(platform)).state is RUNNING


async def test_a_bus_that_talks_nonsense_is_left_and_used_again(
    house: House, proxy: BusProxy, until: Until
) -> None:
    platform = await house.running(bus=proxy.address)
    proxy.send_nonsense()
    await until(lambda: proxy.connection_count == 2)
    await patiently(platform)


async def test_a_bus_that_is_killed_comes_back(house: House, until: Until) -> None:
    platform = await house.running()
    await house.systemctl("kill", "--signal", "KILL", "dbus.service")
    await patiently(platform)
    await house.systemctl("kill", "--signal", "KILL", "shop")
    await until(lambda: FactKind.EXITED in house.told())


async def test_a_systemd_that_is_executed_anew_is_heard_again(house: House, until: Until) -> None:
    platform = await house.running()
    await house.systemctl("daemon-reexec")
    await patiently(platform)
    await house.systemctl("kill", "--signal", "KILL", "shop")
    await until(lambda: FactKind.EXITED in house.told())
    await patiently(platform, EXITED)
    assert house.told() == [FactKind.EXITED]


@pytest.mark.parametrize("last", [b"deactivating", b"JobRemoved"])
async def test_a_restart_whose_end_is_not_heard_of_is_read_back_and_done_once(
    house: House, proxy: BusProxy, last: bytes
) -> None:
    platform = await house.running(COUNTED, bus=proxy.address)
    before = await look(platform)
    proxy.lose = last
    await restart(platform)
    after = await look(platform)
    assert (after.state, after.identity == before.identity) == (RUNNING, False)
    assert proxy.connection_count == 2
    assert await house.starts() == 2


async def test_a_restart_that_did_not_arrive_is_an_error_and_not_done(
    house: House, proxy: BusProxy
) -> None:
    platform = await house.running(COUNTED, bus=proxy.address)
    before = await look(platform)
    proxy.cut_before = b"RestartUnit"
    with pytest.raises(TransientError, match="lost on its way"):
        await restart(platform)
    proxy.cut_before = b""
    await patiently(platform)
    assert (await look(platform)).identity == before.identity
    assert await house.starts() == 1


async def test_a_bus_that_hangs_ends_an_action_in_time_and_it_is_not_done_twice(
    house: House, proxy: BusProxy
) -> None:
    platform = await house.running(COUNTED, bus=proxy.address, timeout=2)
    action = restart_of(await look(platform))
    proxy.hang_after = b"RestartUnit"
    async with asyncio.timeout(15):
        with pytest.raises(TransientError):
            await platform.execute(action, epoch=Epoch(1))
    proxy.mend()
    await patiently(platform)
    await platform.execute(action, epoch=Epoch(1))
    assert await house.starts() == 2


async def test_a_bus_that_hangs_while_all_is_calm_is_noticed(house: House, proxy: BusProxy) -> None:
    platform = await house.running(bus=proxy.address)
    proxy.hang()

    async def blind() -> None:
        while True:
            await platform.observe()
            await asyncio.sleep(0.1)

    with pytest.raises(TransientError, match="no answer to Ping"):
        await asyncio.wait_for(blind(), timeout=30)
    proxy.mend()
    await patiently(platform)
