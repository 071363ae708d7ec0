"""Children outlive Prunella: the next one finds them, and starts none of them twice."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.platforms.conftest import LOOP, Bed, Lives, Only, Until

from prunella.core.model import Action, ActionKind, Epoch, InstanceState, ServiceId
from prunella.errors import TransientError
from prunella.platforms._proc import marked_processes
from prunella.runtime.clock import SystemClock

HERE = Path(__file__).parent
RESTART = Action(ActionKind.RESTART, ServiceId("web"))
STRAY = (
    "import subprocess, sys",
    f"child = subprocess.Popen([sys.executable, '-c', {LOOP!r}])",
    "open('stray', 'w').write(str(child.pid))",
    LOOP,
)


Daemon = asyncio.subprocess.Process
Daemons = Callable[..., Awaitable[Daemon]]


class OtherBoot(SystemClock):
    @property
    def boot(self) -> str:
        return "another-boot"


@pytest.fixture
async def daemons(bed: Bed) -> AsyncIterator[Daemons]:
    """Start another Prunella on the test's state folder, under `wrapper` if there is one."""
    started = list[Daemon]()

    async def start(
        *code: str, wrapper: tuple[str, ...] = (), scaled_to: tuple[str, ...] = (), **fields: object
    ) -> Daemon:
        spec = {"command": [sys.executable, "-c", "\n".join(code)], **fields}
        script = str(HERE / "daemon_child.py")
        argv = [sys.executable, script, str(bed.folder), json.dumps(spec), *scaled_to]
        started.append(
            await asyncio.create_subprocess_exec(
                *wrapper, *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
        )
        return started[-1]

    yield start
    for daemon in started:
        if daemon.returncode is None:
            daemon.kill()
        await daemon.communicate()


def kill_and_leave_a_zombie(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def kill_and_collect(pid: int) -> None:
    kill_and_leave_a_zombie(pid)
    os.waitpid(pid, 0)


def runs_of(bed: Bed, number: int = 0) -> list[str]:
    """Every living leader that carries the mark of this folder's replica of that number."""
    mark = f"PRUNELLA_INSTANCE={(bed.folder / 'instance-id').read_text()}:{number}"
    search = marked_processes(mark, "PRUNELLA_RUN", SystemClock().boot)
    return [str(one.identity) for one in search.marked if one.leads]


async def words_of(daemon: Daemon) -> list[str]:
    assert daemon.stdout is not None
    line = await asyncio.wait_for(daemon.stdout.readline(), 10)
    words: list[str] = json.loads(line)
    return words


async def test_children_of_a_killed_prunella_are_adopted_and_not_started_twice(
    bed: Bed, daemons: Daemons, only: Only
) -> None:
    daemon = await daemons(LOOP)
    (word,) = await words_of(daemon)
    daemon.kill()
    await daemon.wait()
    platform = bed.build(LOOP)
    assert await platform.ensure() == (word.replace("started", "adopted"),)
    assert runs_of(bed) == [(await only(platform)).identity]


async def test_the_end_of_an_adopted_child_is_told_without_its_code(
    bed: Bed, daemons: Daemons, only: Only
) -> None:
    daemon = await daemons(LOOP)
    await words_of(daemon)
    daemon.kill()
    await daemon.wait()
    platform = bed.build()
    await platform.ensure()
    os.kill((await only(platform)).pids[0], signal.SIGKILL)
    await asyncio.wait_for(bed.told.wait(), 5)
    assert [fact.detail for fact in bed.facts] == ["exited"]
    await platform.execute(RESTART, epoch=Epoch(1))
    assert (await only(platform)).state is InstanceState.RUNNING


async def test_an_adopted_child_is_stopped_with_its_group(
    bed: Bed,
    daemons: Daemons,
    only: Only,
    until: Until,
    lives: Lives,
    tmp_path: Path,
) -> None:
    daemon = await daemons(*STRAY, cwd=str(tmp_path))
    await words_of(daemon)
    await until(lambda: (tmp_path / "stray").exists() and (tmp_path / "stray").read_text())
    daemon.kill()
    await daemon.wait()
    platform = bed.build(*STRAY, cwd=str(tmp_path))
    await platform.ensure()
    pids = [(await only(platform)).pids[0], int((tmp_path / "stray").read_text())]
    assert [lives(pid) for pid in pids] == [True, True]
    await platform.stop()
    assert [lives(pid) for pid in pids] == [False, False]


async def test_a_child_started_right_before_the_kill_is_found_without_its_record(
    bed: Bed, daemons: Daemons, only: Only, until: Until
) -> None:
    """The second rename is that of the first record: Prunella is killed as it enters it."""
    assert shutil.which("strace"), "this test needs strace (apt-get install strace)"
    inject = ("-e", "trace=rename", "-e", "inject=rename:signal=SIGKILL:when=2")
    daemon = await daemons(LOOP, wrapper=("strace", "-o", "/dev/null", *inject))
    assert await asyncio.wait_for(daemon.wait(), 20) != 0
    assert not (bed.folder / "0.json").exists()
    await until(lambda: len(runs_of(bed)) == 1)
    platform = bed.build(LOOP)
    (word,) = await platform.ensure()
    assert word.startswith("adopted 0 (pid ")
    assert word.endswith("which was not recorded")
    identity = (await only(platform)).identity
    assert runs_of(bed) == [identity]
    assert identity in (bed.folder / "0.json").read_text()


@pytest.mark.parametrize(
    ("call", "nth", "left"),
    [
        ("rename", 3, 1),  # of the number 2
        ("vfork", 2, 2),  # of the second replica
        ("rename", 4, 2),  # of its record
        ("rename", 5, 2),  # of the number 1
        ("kill", 1, 1),  # with SIGTERM
        ("kill", 2, 1),  # with SIGCONT
        ("unlink", 1, 1),  # of the second replica's record
    ],
)
async def test_killed_at_any_step_of_a_scaling_prunella_leaves_a_number_and_as_many_replicas(
    bed: Bed, daemons: Daemons, until: Until, call: str, nth: int, left: int
) -> None:
    """It is killed as it enters the call, when scaling up to 2 and then down to 1 again."""
    assert shutil.which("strace"), "this test needs strace (apt-get install strace)"
    inject = ("-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={nth}")
    command = [sys.executable, "-c", LOOP, "{port}"]
    daemon = await daemons(
        wrapper=("strace", "-o", "/dev/null", *inject), scaled_to=("2", "1"), command=command
    )
    assert await asyncio.wait_for(daemon.wait(), 20) != 0
    heir = bed.build(command=command)
    await heir.ensure()
    status = await heir.observe()
    assert status.desired == left
    assert [i.state for i in status.instances] == [InstanceState.RUNNING] * left
    assert len({i.port for i in status.instances} - {0}) == left
    wanted = [[i.identity] for i in status.instances] + [[]] * (3 - left)
    await until(lambda: [runs_of(bed, number) for number in range(3)] == wanted)
    scale = Action(ActionKind.SCALE_UP, ServiceId("web"), replicas=2, before="1")
    await heir.execute(scale, epoch=Epoch(2))
    await until(lambda: [len(runs_of(bed, number)) for number in range(3)] == [1, 1, 0])


async def test_a_record_that_cannot_be_written_is_told_and_the_child_is_still_found(
    bed: Bed, only: Only
) -> None:
    platform = bed.build()
    (bed.folder / "0.json.new").mkdir(parents=True)
    await platform.ensure()
    before = await only(platform)
    assert before.detail == "not recorded: Is a directory"
    await platform.close()
    (bed.folder / "0.json.new").rmdir()
    heir = bed.build()
    await heir.ensure()
    assert (await only(heir)).identity == before.identity


async def test_a_record_cut_off_by_a_loss_of_power_is_as_good_as_none(bed: Bed, only: Only) -> None:
    platform = bed.build()
    await platform.ensure()
    before = await only(platform)
    await platform.close()
    (bed.folder / "0.json").write_text("")
    heir = bed.build()
    await heir.ensure()
    assert (await only(heir)).identity == before.identity


async def test_what_died_unwatched_is_a_fault_and_is_left_to_the_healer(
    bed: Bed, only: Only
) -> None:
    platform = bed.build()
    await platform.ensure()
    run = await only(platform)
    await platform.close()
    kill_and_collect(run.pids[0])
    heir = bed.build()
    assert await heir.ensure() == (f"found 0 dead (was pid {run.pids[0]})",)
    dead = await only(heir)
    assert (dead.state, dead.identity) == (InstanceState.EXITED, run.identity)
    assert len(bed.facts) == 1


async def test_a_zombie_is_not_adopted(bed: Bed, only: Only) -> None:
    platform = bed.build()
    await platform.ensure()
    run = await only(platform)
    await platform.close()
    kill_and_leave_a_zombie(run.pids[0])
    heir = bed.build()
    await heir.ensure()
    assert (await only(heir)).state is InstanceState.EXITED
    kill_and_collect(run.pids[0])


async def test_what_a_dead_run_left_behind_unwatched_is_killed_before_the_next_one(
    bed: Bed, only: Only, until: Until, lives: Lives, tmp_path: Path
) -> None:
    platform = bed.build(*STRAY, cwd=tmp_path)
    await platform.ensure()
    await until(lambda: (tmp_path / "stray").exists() and (tmp_path / "stray").read_text())
    stray = int((tmp_path / "stray").read_text())
    run = await only(platform)
    await platform.close()
    kill_and_collect(run.pids[0])
    heir = bed.build(*STRAY, cwd=tmp_path)
    await heir.ensure()
    assert lives(stray)
    await heir.execute(RESTART, epoch=Epoch(1))
    assert not lives(stray)


async def test_after_a_reboot_everything_is_started(bed: Bed, only: Only) -> None:
    platform = bed.build(clock=OtherBoot())
    await platform.ensure()
    run = await only(platform)
    await platform.close()
    kill_and_collect(run.pids[0])
    (word,) = await bed.build().ensure()
    assert word.startswith("started 0 (pid ")


async def test_what_was_stopped_with_prunella_is_started_with_the_next_one(bed: Bed) -> None:
    platform = bed.build()
    await platform.ensure()
    await platform.shutdown()
    await platform.close()
    (word,) = await bed.build().ensure()
    assert word.startswith("started 0 (pid ")


async def test_what_may_stay_is_left_running_and_adopted(bed: Bed, only: Only) -> None:
    platform = bed.build(on_exit="leave")
    await platform.ensure()
    run = await only(platform)
    await platform.shutdown()
    await platform.close()
    heir = bed.build(on_exit="leave")
    assert await heir.ensure() == (f"adopted 0 (pid {run.pids[0]})",)


async def test_ensuring_twice_does_nothing_the_second_time(bed: Bed, only: Only) -> None:
    platform = bed.build()
    await platform.ensure()
    run = await only(platform)
    assert await platform.ensure() == ()
    assert await only(platform) == run


async def test_replicas_beyond_the_wanted_number_are_stopped(bed: Bed, lives: Lives) -> None:
    platform = bed.build(replicas=3)
    await platform.ensure()
    pids = [i.pids[0] for i in (await platform.observe()).instances]
    await platform.close()
    fewer = bed.build(replicas=1)
    words = await fewer.ensure()
    assert words == (
        "stopped 1, which is one too many",
        "stopped 2, which is one too many",
        f"adopted 0 (pid {pids[0]})",
    )
    assert [lives(pid) for pid in pids] == [True, False, False]
    assert bed.facts == []


async def test_a_service_is_not_taken_for_another_ones_child(bed: Bed, tmp_path: Path) -> None:
    one, other = bed.build(), Bed(tmp_path / "other")
    await one.ensure()
    (word,) = await other.build().ensure()
    assert word.startswith("started 0")
    await other.end()


async def test_a_state_folder_that_cannot_be_made_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    platform = Bed(tmp_path / "file" / "state").build()
    with pytest.raises(TransientError, match="Not a directory"):
        await platform.ensure()
    await platform.close()


async def test_stopping_for_good_reaches_what_an_earlier_prunella_left(
    bed: Bed, only: Only, lives: Lives
) -> None:
    platform = bed.build()
    await platform.ensure()
    run = await only(platform)
    await platform.close()
    await bed.build().stop()
    assert not lives(run.pids[0])


async def test_a_reused_pid_is_never_signalled(tmp_path: Path) -> None:
    """In a pid namespace of its own, where the next number can be chosen (needs root)."""
    assert os.geteuid() == 0, "this test needs root for a pid namespace"
    alone = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    script = (sys.executable, str(HERE / "reuse_child.py"), str(tmp_path / "state"))
    child = await asyncio.create_subprocess_exec(
        *alone, *script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 0, err.decode()
    found = json.loads(out)
    assert found.pop("words")[0].startswith("found 0 dead")
    assert found == dict.fromkeys(
        ("refused", "same_number", "stranger_lives", "restarted_elsewhere"), True
    )
