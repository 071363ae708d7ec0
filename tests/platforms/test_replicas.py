"""More and fewer replicas: what is wanted is written down first, and survives Prunella."""

import sys
from pathlib import Path

import pytest
from tests.platforms.conftest import LOOP, Bed, Lives, Until

from prunella.core.model import Action, ActionKind, Epoch, InstanceState, ServiceId
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.platforms.process import ProcessPlatform
from prunella.testing.site import free_port

FIRST = Epoch(1)
WITH_PORT = [sys.executable, "-c", LOOP, "{port}"]
SAYS_FAREWELL = (
    "import signal, sys, time",
    "def end(*_):",
    "    with open('order', 'a') as file: file.write(sys.argv[1])",
    "    sys.exit()",
    "signal.signal(signal.SIGTERM, end)",
    "open('ready' + sys.argv[1], 'w')",
    "while True: signal.pause()",
)


def scaling(before: int, replicas: int | None) -> Action:
    kind = ActionKind.SCALE_UP if before < (replicas or 0) else ActionKind.SCALE_DOWN
    return Action(kind, ServiceId("web"), replicas=replicas, before=str(before))


async def pids_of(platform: ProcessPlatform) -> list[int]:
    """Of all replicas, each of which runs."""
    status = await platform.observe()
    assert {instance.state for instance in status.instances} == {InstanceState.RUNNING}
    assert status.desired == len(status.instances)
    return [instance.pids[0] for instance in status.instances]


async def test_scaled_up_replicas_are_adopted_and_not_ended_as_surplus(bed: Bed) -> None:
    platform = bed.build()
    await platform.ensure()
    await platform.execute(scaling(1, 3), epoch=FIRST)
    pids = await pids_of(platform)
    await platform.close()
    heir = bed.build()
    assert await heir.ensure() == tuple(f"adopted {n} (pid {pid})" for n, pid in enumerate(pids))
    assert await pids_of(heir) == pids


async def test_what_was_scaled_and_stopped_with_prunella_starts_with_it_as_it_was(bed: Bed) -> None:
    platform = bed.build()
    await platform.ensure()
    await platform.execute(scaling(1, 2), epoch=FIRST)
    await platform.shutdown()
    await platform.close()
    heir = bed.build()
    await heir.ensure()
    assert len(await pids_of(heir)) == 2


@pytest.mark.parametrize("configured", [1, 2, 4])
async def test_another_number_in_the_configuration_is_a_wish_and_wins(
    bed: Bed, configured: int
) -> None:
    platform = bed.build(replicas=3)
    await platform.ensure()
    await platform.execute(scaling(3, 5), epoch=FIRST)
    await platform.close()
    heir = bed.build(replicas=configured)
    await heir.ensure()
    assert len(await pids_of(heir)) == configured
    await heir.close()
    back = bed.build(replicas=3)
    await back.ensure()
    assert len(await pids_of(back)) == 3, "what was scaled before that wish does not come back"


async def test_the_highest_numbers_go_first_one_after_the_other_and_end_by_themselves(
    bed: Bed, until: Until, lives: Lives, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", "\n".join(SAYS_FAREWELL), "{replica}"]
    platform = bed.build(command=command, cwd=tmp_path, replicas=4)
    await platform.ensure()
    pids = await pids_of(platform)
    await until(lambda: len(list(tmp_path.glob("ready*"))) == 4)
    await platform.execute(scaling(4, 2), epoch=FIRST)
    assert (tmp_path / "order").read_text() == "32"
    assert [lives(pid) for pid in pids] == [True, True, False, False]
    assert await pids_of(platform) == pids[:2]
    assert bed.facts == []


async def test_another_number_than_it_starts_from_is_somebody_elses_and_stays(bed: Bed) -> None:
    platform = bed.build(replicas=2)
    await platform.ensure()
    pids = await pids_of(platform)
    for action in (scaling(1, 3), scaling(3, 1)):
        with pytest.raises(ConflictError, match=r"web has 2 replicas by now, not [13]"):
            await platform.execute(action, epoch=FIRST)
    assert await pids_of(platform) == pids


@pytest.mark.parametrize("replicas", [None, 0])
async def test_a_service_is_not_scaled_to_nothing(bed: Bed, replicas: int | None) -> None:
    platform = bed.build()
    await platform.ensure()
    with pytest.raises(PermanentError, match="to no replica at all"):
        await platform.execute(scaling(1, replicas), epoch=FIRST)
    assert len(await pids_of(platform)) == 1


async def test_what_was_not_looked_at_is_not_scaled(bed: Bed) -> None:
    with pytest.raises(TransientError, match="not been looked at"):
        await bed.build().execute(scaling(1, 2), epoch=FIRST)


async def test_a_number_that_cannot_be_written_down_starts_and_ends_nothing(bed: Bed) -> None:
    platform = bed.build(replicas=2)
    await platform.ensure()
    pids = await pids_of(platform)
    (bed.folder / "replicas.json.new").mkdir()
    for replicas in (1, 3):
        with pytest.raises(TransientError, match=r"replicas\.json: Is a directory"):
            await platform.execute(scaling(2, replicas), epoch=FIRST)
    assert await pids_of(platform) == pids


async def test_a_number_that_was_cut_off_by_a_loss_of_power_is_that_of_the_configuration(
    bed: Bed,
) -> None:
    bed.folder.mkdir()
    (bed.folder / "replicas.json").write_text("")
    platform = bed.build(replicas=2)
    await platform.ensure()
    assert len(await pids_of(platform)) == 2


async def test_without_a_free_port_a_scale_up_leaves_nothing_behind(bed: Bed) -> None:
    port = free_port()
    platform = bed.build(command=WITH_PORT, ports=f"{port}-{port}")
    await platform.ensure()
    pids = await pids_of(platform)
    with pytest.raises(TransientError, match=f"no free port from {port} to {port}"):
        await platform.execute(scaling(1, 2), epoch=FIRST)
    assert await pids_of(platform) == pids
    assert bed.facts == []
    await platform.close()
    heir = bed.build(command=WITH_PORT, ports=f"{port}-{port}")
    await heir.ensure()
    assert await pids_of(heir) == pids


async def test_when_one_of_the_new_replicas_cannot_be_started_the_others_go_again(
    bed: Bed, tmp_path: Path, lives: Lives
) -> None:
    for number in (0, 1):
        (tmp_path / f"run{number}").symlink_to("/bin/sleep")
    command = ["./run{replica}", "1000"]
    platform = bed.build(command=command, cwd=tmp_path)
    await platform.ensure()
    pids = await pids_of(platform)
    with pytest.raises(PermanentError, match=r"command not found: \./run2"):
        await platform.execute(scaling(1, 3), epoch=FIRST)
    assert await pids_of(platform) == pids
    assert not (bed.folder / "1.json").exists()
    await platform.close()
    heir = bed.build(command=command, cwd=tmp_path)
    await heir.ensure()
    assert await pids_of(heir) == pids


async def test_a_replica_that_cannot_be_forgotten_is_wanted_still(bed: Bed) -> None:
    platform = bed.build(replicas=2)
    await platform.ensure()
    record = bed.folder / "1.json"
    record.rename(bed.folder / "kept")
    record.mkdir()
    with pytest.raises(TransientError, match="cannot remove"):
        await platform.execute(scaling(2, 1), epoch=FIRST)
    status = await platform.observe()
    assert (status.desired, status.instances[1].state) == (2, InstanceState.EXITED)
    record.rmdir()
    await platform.execute(scaling(2, 1), epoch=FIRST)
    assert len(await pids_of(platform)) == 1


@pytest.mark.parametrize(
    ("command", "cwd", "reason"),
    [
        (["no-such-command"], ".", "command not found: no-such-command"),
        (["./serve"], ".", "command not found: ./serve"),
        (["./there"], ".", "command ./there cannot be run: it is not executable"),
        (["a\0b"], ".", "command not found: a\0b"),
        (["sleep", "1"], "absent", "cannot start sleep in folder {}/absent: there is no such"),
        (["sleep", "1"], "there", "cannot start sleep in folder {}/there: there is no such"),
    ],
)
async def test_what_cannot_be_started_is_a_fault_before_it_is_tried(
    bed: Bed, tmp_path: Path, command: list[str], cwd: str, reason: str
) -> None:
    (tmp_path / "there").write_text("#!/bin/sh\n")
    (remark,) = await bed.build(command=command, cwd=tmp_path / cwd).examine()
    assert remark.fault
    assert remark.message.startswith(reason.format(tmp_path))


async def test_what_can_be_started_gets_no_remark(bed: Bed, tmp_path: Path) -> None:
    script = tmp_path / "run0"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert await bed.build(command=["./run{replica}"], cwd=tmp_path).examine() == ()
    assert await bed.build(command=["run0"], env={"PATH": str(tmp_path)}).examine() == ()
    assert await bed.build().examine() == ()
    assert not bed.folder.exists(), "looking changes nothing"
