"""Units of a real systemd: what is seen of them, what is done to them, and who wins."""

import asyncio
from pathlib import Path

import pytest
from psutil import Process
from pydantic import ValidationError
from tests.platforms.conftest import Until
from tests.platforms.systemd_house import (
    COUNTED,
    EXITED,
    RUNNING,
    SERVICE,
    SLEEP,
    STOPPED,
    House,
    look,
    look_until,
    restart,
    restart_of,
    shell,
)

from prunella.core.model import Action, ActionKind, Epoch, FactKind
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.platforms.systemd import SystemdPlatform, SystemdSpec
from prunella.plugins import PlatformContext
from prunella.runtime.clock import SystemClock


async def scale(platform: SystemdPlatform, before: int, replicas: int) -> None:
    kind = ActionKind.SCALE_UP if replicas > before else ActionKind.SCALE_DOWN
    action = Action(kind, SERVICE, replicas=replicas, before=str(before))
    await platform.execute(action, epoch=Epoch(1))


async def names(platform: SystemdPlatform) -> list[str]:
    return [instance.id for instance in (await platform.observe()).instances]


# One process in the unit's own control group, and one in a group below it.
GROUPS = """
root=/sys/fs/cgroup
if test -d $root/unified; then root=$root/unified; fi
group=$root$(sed -n s/^0:://p /proc/self/cgroup)
mkdir $group/below
sleep 1000 &
echo $! > $group/below/cgroup.procs
exec sleep 2000
"""


async def test_an_instance_has_the_processes_of_its_control_group_and_those_below(
    house: House,
) -> None:
    script = "; ".join(GROUPS.strip().splitlines()).replace("$", "$$").replace("&;", "&")
    platform = await house.running(shell(script, "Delegate=yes"))

    async def commands() -> list[str]:
        return sorted([Process(pid).cmdline()[1] for pid in (await look(platform)).pids])

    async with asyncio.timeout(30):
        while await commands() != ["1000", "2000"]:  # noqa: ASYNC110 - the shell is another process
            await asyncio.sleep(0.005)


async def test_the_processes_of_a_unit_that_somebody_starts_are_known(
    house: House, until: Until
) -> None:
    await house.write(SLEEP)
    platform = house.build()
    assert (await look(platform)).state is STOPPED
    await house.systemctl("start", "shop")
    await until(lambda: house.told() == [FactKind.STARTED])
    assert len((await look_until(platform, RUNNING)).pids) == 1


@pytest.mark.parametrize("code", [0, 1])
async def test_what_somebody_stops_is_stopped_however_it_ends(house: House, code: int) -> None:
    script = f"trap 'exit {code}' TERM; systemd-notify --ready; while :; do sleep 0.01; done"
    platform = await house.running(shell(script, "Type=notify", "NotifyAccess=all"))
    await house.systemctl("stop", "shop")
    await look_until(platform, STOPPED, f"stopped, exit code {code}")
    assert house.told() == [FactKind.CHANGED]


async def test_an_end_without_a_stop_is_a_fault_even_with_exit_code_0(house: House) -> None:
    platform = await house.running(shell("while test ! -e /tmp/end; do sleep 0.01; done"))
    before = await look(platform)
    await asyncio.to_thread(house.machine.run, "touch", "/tmp/end")
    after = await look_until(platform, EXITED)
    assert (after.identity, after.detail) == (before.identity, "exit code 0")
    assert house.told() == [FactKind.EXITED]
    await restart(platform)
    assert (await look(platform)).identity != before.identity


async def test_a_fault_is_remembered_when_systemd_has_forgotten_it(house: House) -> None:
    platform = await house.running(shell("while test ! -e /tmp/end; do sleep 0.01; done"))
    await asyncio.to_thread(house.machine.run, "touch", "/tmp/end")
    before = await look_until(platform, EXITED)
    await house.systemctl("daemon-reload")
    assert await house.show("InvocationID") == ""
    assert await look(platform) == before


async def test_what_somebody_resets_is_stopped_on_purpose(house: House) -> None:
    platform = await house.running(shell("exit 3"))
    await look_until(platform, EXITED)
    await house.systemctl("reset-failed", "shop")
    await look_until(platform, STOPPED, "stopped, exit code 3")


async def test_a_restart_by_systemd_is_no_end_and_is_counted(house: House, until: Until) -> None:
    platform = await house.running(SLEEP + "Restart=always\nRestartSec=20ms\n")
    before = await look(platform)
    await house.systemctl("kill", "--signal", "KILL", "shop")
    await until(lambda: house.told() == [FactKind.STARTED])
    after = await look(platform)
    assert (after.state, after.restart_count) == (RUNNING, 1)
    assert after.identity != before.identity


async def test_a_unit_that_systemd_is_about_to_restart_can_be_restarted_at_once(
    house: House,
) -> None:
    platform = await house.running(SLEEP + "Restart=always\nRestartSec=60\n")
    before = await look(platform)
    await house.systemctl("kill", "--signal", "KILL", "shop")
    async with asyncio.timeout(30):
        while not (await look(platform)).detail:  # noqa: ASYNC110 - systemd is another process
            await asyncio.sleep(0.005)
    waiting = await look(platform)
    assert (waiting.state, waiting.identity) == (RUNNING, before.identity)
    assert waiting.detail == "systemd restarts it: killed by SIGKILL"
    await restart(platform)
    after = await look(platform)
    assert (after.detail, after.identity == before.identity) == ("", False)


async def test_a_unit_at_its_start_limit_is_restarted_all_the_same(house: House) -> None:
    limit = "[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=1h\n"
    platform = await house.running(limit + SLEEP)
    await restart(platform)
    with pytest.raises(TransientError, match="start limit"):
        await restart(platform)
    refused = await look(platform)
    assert (refused.state, refused.detail) == (
        EXITED,
        "started too often in a short time (start limit)",
    )
    await restart(platform)
    assert (await look(platform)).state is RUNNING


async def test_a_unit_that_does_not_come_up_is_an_error_with_its_reason(house: House) -> None:
    platform = await house.running()
    await house.write("[Service]\nType=exec\nExecStart=/bin/no-such-command\n")
    with pytest.raises(TransientError, match="did not start: exit code 203"):
        await restart(platform)


async def test_a_unit_whose_requirement_fails_is_an_error_with_its_reason(house: House) -> None:
    platform = await house.running()
    await house.write("[Service]\nType=oneshot\nExecStart=/bin/false\n", "broken.service")
    await house.write("[Unit]\nRequires=broken.service\nAfter=broken.service\n" + SLEEP)
    with pytest.raises(TransientError, match="a unit that it requires did not start"):
        await restart(platform)
    # systemd shows it as if somebody had stopped it; and that was us.
    for one in (platform, house.build()):
        down = await look(one)
        assert (down.state, down.detail) == (EXITED, "a restart has not brought it up again")
    await house.write(SLEEP)
    await restart(platform)
    assert (await look(platform)).state is RUNNING
    await house.systemctl("stop", "shop")
    await look_until(platform, STOPPED)
    assert (await look(house.build())).state is STOPPED


async def test_a_stop_between_look_and_restart_wins(house: House) -> None:
    platform = await house.running()
    action = restart_of(await look(platform))
    await house.systemctl("stop", "shop")
    with pytest.raises(ConflictError, match="was stopped by somebody else"):
        await platform.execute(action, epoch=Epoch(1))
    assert await house.show("ActiveState") == "inactive"


async def test_what_was_seen_stopped_is_started_when_that_is_asked_for(house: House) -> None:
    platform = await house.running()
    await house.systemctl("stop", "shop")
    stopped = await look_until(platform, STOPPED)
    await platform.execute(restart_of(stopped), epoch=Epoch(1))
    assert (await look(platform)).state is RUNNING


async def test_a_restart_between_look_and_restart_is_enough(house: House) -> None:
    platform = await house.running()
    action = restart_of(await look(platform))
    await house.systemctl("restart", "shop")
    theirs = await house.show("InvocationID")
    await platform.execute(action, epoch=Epoch(1))
    assert await house.show("InvocationID") == theirs


async def test_a_stop_in_the_middle_of_a_restart_wins(house: House, until: Until) -> None:
    platform = await house.running()
    await house.write("[Service]\nType=notify\nExecStart=/bin/sleep infinity\n")
    doing = asyncio.create_task(restart(platform))
    async with asyncio.timeout(30):
        while await house.show("ActiveState") != "activating":  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
    await house.systemctl("stop", "shop")
    with pytest.raises(ConflictError, match="somebody else's job"):
        await doing
    assert await house.show("ActiveState") == "inactive"
    assert FactKind.EXITED not in house.told()


async def test_restarts_at_the_same_time_are_one_each_at_most(house: House) -> None:
    platform = await house.running(COUNTED)
    action = restart_of(await look(platform))
    others = [house.systemctl("restart", "shop") for _ in range(3)]
    await asyncio.gather(platform.execute(action, epoch=Epoch(1)), *others)
    assert 2 <= await house.starts() <= 5
    assert (await look(platform)).identity == await house.show("InvocationID")


async def test_a_new_run_that_is_long_in_starting_has_been_brought_about(house: House) -> None:
    platform = await house.running(timeout=0.5)
    before = await look(platform)
    await house.write("[Service]\nType=notify\nExecStart=/bin/sleep infinity\n")
    await restart(platform)
    after = await look(platform)
    assert (after.state, after.identity == before.identity) == (RUNNING, False)


async def test_an_old_run_that_does_not_end_in_time_is_left_to_systemd(house: House) -> None:
    stubborn = SLEEP + "KillSignal=SIGWINCH\nTimeoutStopSec=3\n"
    platform = await house.running(stubborn, timeout=0.3)
    before = await look(platform)
    with pytest.raises(TransientError, match="systemd is still at it"):
        await restart(platform)
    again = Action(ActionKind.RESTART, SERVICE, before.id, before.identity)
    with pytest.raises(TransientError, match="systemd is still at it"):
        await platform.execute(again, epoch=Epoch(1))
    async with asyncio.timeout(30):
        while (await look(platform)).identity == before.identity:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
    theirs = await house.show("InvocationID")
    await platform.execute(again, epoch=Epoch(1))
    assert await house.show("InvocationID") == theirs


async def test_a_unit_whose_file_has_gone_runs_on_and_is_not_killed_for_nothing(
    house: House,
) -> None:
    platform = await house.running()
    before = await look(platform)
    await asyncio.to_thread(house.machine.run, "rm", "/etc/systemd/system/shop.service")
    await house.systemctl("daemon-reload")
    assert (await look(platform)).identity == before.identity
    with pytest.raises(PermanentError, match=r"shop\.service"):
        await platform.execute(restart_of(before), epoch=Epoch(1))
    assert (await look(platform)).identity == before.identity
    await house.systemctl("stop", "shop")


async def test_an_unknown_unit_is_an_error_and_not_a_stopped_one(house: House) -> None:
    platform = house.build("no-such-unit")
    with pytest.raises(PermanentError, match=r"systemd knows no unit no-such-unit\.service"):
        await platform.observe()


async def test_a_trouble_with_one_unit_is_not_that_of_another(house: House) -> None:
    platform = await house.running()
    with pytest.raises(PermanentError):
        await house.build("no-such-unit").observe()
    assert (await look(platform)).state is RUNNING


async def test_another_name_of_a_unit_is_that_unit(house: House, until: Until) -> None:
    await house.write(SLEEP + "[Install]\nAlias=store.service\n")
    await house.systemctl("enable", "shop")
    try:
        await house.systemctl("start", "store")
        platform = house.build("store.service")
        assert (await look(platform)).id == "shop.service"
        assert [r.message for r in await platform.examine()] == [
            "store.service is another name of shop.service"
        ]
        await house.systemctl("kill", "--signal", "KILL", "shop")
        await until(lambda: house.told() == [FactKind.EXITED])
        await restart(platform)
        assert (await look(platform)).state is RUNNING
    finally:
        await house.systemctl("disable", "shop")


async def test_units_of_a_user_are_looked_after_as_well(house: House, until: Until) -> None:
    await house.write(SLEEP, bus="user")
    await house.systemctl("start", "shop", bus="user")
    platform = house.build(bus=house.machine.address("user"))
    before = await look(platform)
    await house.systemctl("kill", "--signal", "KILL", "shop", bus="user")
    await until(lambda: house.told() == [FactKind.EXITED])
    await platform.execute(restart_of(before), epoch=Epoch(1))
    after = await look(platform)
    assert (after.state, after.identity == before.identity) == (RUNNING, False)


async def test_numbered_instances_are_one_service_and_no_others_are(house: House) -> None:
    await house.write(SLEEP, "app@.service")
    await house.systemctl("start", "app@2", "app@10", "app@blue", "app@02")
    platform = house.build("app@.service")
    assert await names(platform) == ["app@2.service", "app@10.service"]
    await house.systemctl("stop", "app@2", "app@10", "app@blue", "app@02")
    async with asyncio.timeout(30):
        while (await platform.observe()).desired:  # noqa: ASYNC110 - systemd is another process
            await asyncio.sleep(0.005)
    assert await names(platform) == []


async def test_an_instance_that_somebody_adds_or_stops_is_told(house: House, until: Until) -> None:
    await house.write(SLEEP, "app@.service")
    await house.systemctl("start", "app@1")
    platform = house.build("app@1.service")
    await platform.observe()
    await house.systemctl("start", "app@2")
    await until(lambda: house.told() == [FactKind.STARTED])
    assert await names(platform) == ["app@1.service", "app@2.service"]
    await house.systemctl("stop", "app@2")
    await until(lambda: house.told() == [FactKind.STARTED, FactKind.CHANGED])
    assert await names(platform) == ["app@1.service"]


async def test_scaling_up_takes_the_next_numbers_and_down_the_highest(house: House) -> None:
    await house.write(SLEEP, "app@.service")
    await house.systemctl("start", "app@1", "app@3")
    platform = house.build("app@1.service")
    await scale(platform, 2, 4)
    assert await names(platform) == [f"app@{n}.service" for n in (1, 3, 4, 5)]
    await scale(platform, 4, 1)
    assert await names(platform) == ["app@1.service"]
    assert FactKind.EXITED not in house.told()


async def test_a_scale_up_that_fails_leaves_nothing_behind(house: House) -> None:
    await house.write(SLEEP, "app@.service")
    await house.write("[Service]\nType=exec\nExecStart=/bin/no-such-command\n", "app@3.service")
    await house.systemctl("start", "app@1")
    platform = house.build("app@1.service")
    with pytest.raises(TransientError, match=r"app@3\.service did not start: exit code 203"):
        await scale(platform, 1, 3)
    assert await names(platform) == ["app@1.service"]
    shown = await house.systemctl("list-units", "--all", "--plain", "--no-legend", "app@*.service")
    assert [line.split()[0] for line in shown.splitlines()] == ["app@1.service"]


async def test_an_instance_that_has_failed_can_be_taken_away(house: House, until: Until) -> None:
    await house.write(SLEEP, "app@.service")
    await house.systemctl("start", "app@1", "app@2")
    platform = house.build("app@1.service")
    await platform.observe()
    await house.systemctl("kill", "--signal", "KILL", "app@2")
    await until(lambda: FactKind.EXITED in house.told())
    assert (await platform.observe()).desired == 2
    await scale(platform, 2, 1)
    status = await platform.observe()
    assert (status.desired, len(status.instances)) == (1, 1)


def test_only_a_template_can_be_scaled(tmp_path: Path) -> None:
    def kinds(unit: str) -> set[ActionKind]:
        context = PlatformContext(SERVICE, SystemClock(), tmp_path, lambda _fact: None)
        return {*SystemdPlatform(SystemdSpec(unit=unit), context).capabilities}

    plain = {ActionKind.RESTART}
    assert kinds("shop.service") == kinds("postgresql@15-main.service") == plain
    both = {ActionKind.RESTART, ActionKind.SCALE_UP, ActionKind.SCALE_DOWN}
    assert kinds("app@.service") == kinds("app@1.service") == both


@pytest.mark.parametrize(
    ("given", "taken"),
    [("shop", "shop.service"), ("my.app", "my.app.service"), ("a@1", "a@1.service")],
)
def test_the_ending_of_a_unit_may_be_left_out(given: str, taken: str) -> None:
    assert SystemdSpec(unit=given).unit == taken


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"unit": "shop.socket"}, "one service unit"),
        ({"unit": "shop*"}, "one service unit"),
        ({"unit": "shop admin"}, "one service unit"),
        ({"unit": ""}, "one service unit"),
        ({"unit": "shop", "bus": "session"}, "expected system, user, or an address"),
        ({"unit": "shop", "bus": "/run/bus"}, "expected system, user, or an address"),
    ],
)
def test_what_names_no_unit_or_no_bus_is_refused(fields: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        SystemdSpec.model_validate(fields)
