"""Children of Prunella: how they start, end, and are ended."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from tests.platforms.conftest import Bed, Lives, Only, Until

from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    FactKind,
    Instance,
    InstanceId,
    InstanceState,
    ServiceId,
)
from prunella.errors import PermanentError, TransientError
from prunella.platforms._child import Child
from prunella.platforms._proc import Identity, is_unused, read_stat
from prunella.platforms._testimony import of_process
from prunella.platforms.process import ProcessSpec

RESTART = Action(ActionKind.RESTART, ServiceId("web"))
FIRST = Epoch(1)
CHILD = "import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', %r])"
CHILD_APART = CHILD.replace("%r]", "%r], process_group=0")
SAY_PID = "open('pid', 'w').write(str(child.pid))"
WAIT = "import signal\nwhile True: signal.pause()"
STUBBORN = (
    "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen('deaf', 'w')\n" + WAIT
)


def restart_of(instance: Instance) -> Action:
    return Action(ActionKind.RESTART, ServiceId("web"), instance.id, instance.identity)


async def test_nothing_is_said_before_it_was_looked_at(bed: Bed) -> None:
    with pytest.raises(TransientError, match="not been looked at"):
        await bed.build().observe()


async def test_what_was_not_looked_at_is_not_started_by_a_restart_either(bed: Bed) -> None:
    with pytest.raises(TransientError, match="not been looked at"):
        await bed.build().execute(RESTART, epoch=FIRST)


async def test_a_child_knows_its_service_and_its_replica(bed: Bed, until: Until) -> None:
    say = "import os, sys; print(sys.argv[1], os.environ['PRUNELLA_SERVICE'], flush=True)"
    code = f"{say}\nprint(os.environ['PRUNELLA_REPLICA'], os.environ['COLOUR'], flush=True)\n{WAIT}"
    command = ["python3", "-c", code, "port-808{replica}"]
    platform = bed.build(command=command, replicas=2, env={"COLOUR": "red"})
    await platform.ensure()
    await until(lambda: bed.log(0).count("\n") == 2 and bed.log(1).count("\n") == 2)
    assert (bed.log(0), bed.log(1)) == ("port-8080 web\n0 red\n", "port-8081 web\n1 red\n")


async def test_a_child_runs_in_its_folder_with_nothing_to_read(
    bed: Bed, until: Until, tmp_path: Path
) -> None:
    platform = bed.build(
        "import os, sys; print(os.getcwd(), sys.stdin.read(), flush=True)", WAIT, cwd=tmp_path
    )
    await platform.ensure()
    await until(bed.log)
    assert bed.log() == f"{tmp_path} \n"


async def test_a_child_inherits_no_descriptor_of_ours(bed: Bed, until: Until) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(fd, True)  # noqa: FBT003 - positional by its signature
    await bed.build(
        "import os; print(sorted(os.listdir('/proc/self/fd'))[:4], flush=True)"
    ).ensure()
    await until(bed.log)
    os.close(fd)
    assert bed.log() == "['0', '1', '2', '3']\n"  # 3 is the listing itself


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("import sys; sys.exit(3)", "exit code 3"),
        ("pass", "exit code 0"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("import os; os.kill(os.getpid(), 35)", "killed by signal 35"),
    ],
)
async def test_an_end_is_told_with_how_it_came(
    bed: Bed, only: Only, code: str, detail: str
) -> None:
    platform = bed.build(code)
    await platform.ensure()
    await asyncio.wait_for(bed.told.wait(), 5)
    assert [(f.kind, f.instance, f.detail) for f in bed.facts] == [
        (FactKind.EXITED, InstanceId("0"), detail)
    ]
    instance = await only(platform)
    assert (instance.state, instance.detail, instance.pids) == (InstanceState.EXITED, detail, ())


async def test_no_zombie_is_left_of_a_child_that_ended(bed: Bed, only: Only) -> None:
    platform = bed.build()
    await platform.ensure()
    pid = (await only(platform)).pids[0]
    os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(bed.told.wait(), 5)
    assert read_stat(pid) is None


async def test_an_end_is_seen_within_a_few_hundredths_of_a_second(bed: Bed, only: Only) -> None:
    platform = bed.build()
    await platform.ensure()
    spans = []
    for _ in range(5):
        instance = await only(platform)
        bed.told.clear()
        began = time.monotonic()
        os.kill(instance.pids[0], signal.SIGKILL)
        await asyncio.wait_for(bed.told.wait(), 5)
        spans.append(time.monotonic() - began)
        await platform.execute(restart_of(instance), epoch=FIRST)
    assert min(spans) < 0.05


@pytest.mark.parametrize("missing", ["command", "folder"])
async def test_a_command_that_cannot_run_is_an_exited_instance_and_a_named_error(
    bed: Bed, only: Only, missing: str, tmp_path: Path
) -> None:
    absent = str(tmp_path / "absent")
    fields = {"command": [absent]} if missing == "command" else {"cwd": absent}
    platform = bed.build(**fields)
    (word,) = await platform.ensure()
    assert word.startswith("could not start 0: ")
    instance = await only(platform)
    assert instance.state is InstanceState.EXITED
    assert absent in instance.detail
    assert [fact.detail for fact in bed.facts] == [instance.detail]
    with pytest.raises(PermanentError, match=absent):
        await platform.execute(restart_of(instance), epoch=FIRST)


async def test_a_file_without_permission_to_execute_is_refused_by_name(
    bed: Bed, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    platform = bed.build(command=[str(plain)])
    await platform.ensure()
    with pytest.raises(PermanentError, match=f"{plain} cannot be run: Permission denied"):
        await platform.execute(RESTART, epoch=FIRST)


async def test_a_command_that_appears_later_is_started_by_a_restart(
    bed: Bed, only: Only, tmp_path: Path
) -> None:
    late = tmp_path / "late"
    platform = bed.build(command=[str(late)])
    await platform.ensure()
    late.write_text("#!/bin/sh\nexec sleep 60\n")
    late.chmod(0o755)
    await platform.execute(RESTART, epoch=FIRST)
    assert (await only(platform)).state is InstanceState.RUNNING


async def test_a_restart_of_all_gives_every_replica_another_run(bed: Bed) -> None:
    platform = bed.build(replicas=3)
    await platform.ensure()
    before = {i.identity for i in (await platform.observe()).instances}
    await platform.execute(RESTART, epoch=FIRST)
    after = {i.identity for i in (await platform.observe()).instances}
    assert len(before | after) == 6
    assert bed.facts == []


async def test_a_restart_of_one_leaves_the_others_alone(bed: Bed) -> None:
    platform = bed.build(replicas=3)
    await platform.ensure()
    before = (await platform.observe()).instances
    await platform.execute(restart_of(before[1]), epoch=FIRST)
    after = (await platform.observe()).instances
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


async def test_two_restarts_at_once_with_one_identity_make_one_new_run(
    bed: Bed, only: Only
) -> None:
    platform = bed.build("print('ran', flush=True)", WAIT)
    await platform.ensure()
    action = restart_of(await only(platform))
    await asyncio.gather(*(platform.execute(action, epoch=FIRST) for _ in range(5)))
    record = (bed.folder / "0.json").read_text()
    assert '"run": 2' in record


async def test_a_stopped_service_is_stopped_and_no_fault(
    bed: Bed, only: Only, lives: Lives
) -> None:
    platform = bed.build()
    await platform.ensure()
    pid = (await only(platform)).pids[0]
    await platform.stop()
    assert (await only(platform)).state is InstanceState.STOPPED
    assert not lives(pid)
    assert bed.facts == []


async def test_a_suspended_group_can_be_stopped(
    bed: Bed, only: Only, until: Until, lives: Lives
) -> None:
    platform = bed.build(stop_timeout=60)
    await platform.ensure()
    pid = (await only(platform)).pids[0]
    os.killpg(pid, signal.SIGSTOP)
    await until(lambda: ") T " in Path(f"/proc/{pid}/stat").read_text())
    await asyncio.wait_for(platform.stop(), 10)
    assert not lives(pid)


def sleeper() -> int:
    return os.posix_spawn("/bin/sleep", ["sleep", "60"], {}, setsid=True)


async def test_a_group_is_not_signalled_under_another_runs_identity() -> None:
    pid = sleeper()
    stat = read_stat(pid)
    assert stat is not None
    stale = Child(Identity(pid, stat.ticks + 1, "boot"), os.pidfd_open(pid), lambda _child: None)
    await stale.stop(signal.SIGTERM, 0.2)
    assert stale.end == "killed by SIGKILL"  # through the descriptor, which is of that run


async def test_what_ignores_the_stop_signal_is_killed_after_its_time(
    bed: Bed, only: Only, until: Until, lives: Lives, tmp_path: Path
) -> None:
    platform = bed.build(STUBBORN, stop_timeout=0.3, cwd=tmp_path)
    await platform.ensure()
    await until((tmp_path / "deaf").exists)
    pid = (await only(platform)).pids[0]
    began = time.monotonic()
    await platform.stop()
    assert time.monotonic() - began >= 0.3
    assert not lives(pid)


async def test_the_chosen_signal_is_the_one_that_is_sent(bed: Bed, until: Until) -> None:
    hear = "import signal, sys\nsignal.signal(signal.SIGINT, lambda *_: (print('INT'), sys.exit()))"
    platform = bed.build(hear, "print('ready', flush=True)", WAIT, stop_signal="INT")
    await platform.ensure()
    await until(lambda: bed.log() == "ready\n")
    await platform.stop()
    assert bed.log() == "ready\nINT\n"


async def test_the_stop_signal_arrives_once(bed: Bed, until: Until) -> None:
    hear = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('TERM', flush=True))"
    platform = bed.build(hear, "print('ready', flush=True)", WAIT, stop_timeout=0.3)
    await platform.ensure()
    await until(lambda: bed.log() == "ready\n")
    await platform.stop()
    assert bed.log() == "ready\nTERM\n"


@pytest.mark.parametrize("grandchild", [WAIT, STUBBORN], ids=["willing", "stubborn"])
async def test_grandchildren_do_not_outlive_a_stop(
    bed: Bed, until: Until, lives: Lives, tmp_path: Path, grandchild: str
) -> None:
    platform = bed.build(CHILD % grandchild, SAY_PID, WAIT, cwd=tmp_path, stop_timeout=0.5)
    await platform.ensure()
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    if grandchild == STUBBORN:
        await until((tmp_path / "deaf").exists)
    pid = int((tmp_path / "pid").read_text())
    assert lives(pid)
    await platform.stop()
    assert not lives(pid)


@pytest.mark.parametrize("child", [CHILD, CHILD_APART], ids=["same group", "group of its own"])
async def test_what_a_dead_run_left_behind_is_killed_before_the_next_one_starts(
    bed: Bed, only: Only, until: Until, lives: Lives, tmp_path: Path, child: str
) -> None:
    platform = bed.build(child % STUBBORN, SAY_PID, WAIT, cwd=tmp_path)
    await platform.ensure()
    await until((tmp_path / "deaf").exists)
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    orphan = int((tmp_path / "pid").read_text())
    os.kill((await only(platform)).pids[0], signal.SIGKILL)
    await asyncio.wait_for(bed.told.wait(), 5)
    assert lives(orphan)
    await platform.execute(restart_of(await only(platform)), epoch=FIRST)
    assert not lives(orphan)
    assert (await only(platform)).state is InstanceState.RUNNING


async def test_a_restart_that_is_cancelled_says_so_by_leaving_a_fault(
    bed: Bed, until: Until, only: Only, tmp_path: Path
) -> None:
    platform = bed.build(STUBBORN, stop_timeout=60, cwd=tmp_path)
    await platform.ensure()
    await until((tmp_path / "deaf").exists)
    task = asyncio.create_task(platform.execute(RESTART, epoch=FIRST))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    instance = await only(platform)
    assert instance.state is InstanceState.RUNNING
    os.kill(instance.pids[0], signal.SIGKILL)
    await asyncio.wait_for(bed.told.wait(), 5)
    assert (await only(platform)).state is InstanceState.EXITED


async def test_replicas_are_stopped_at_the_same_time(
    bed: Bed, until: Until, tmp_path: Path
) -> None:
    code = STUBBORN.replace("'deaf'", "'deaf' + __import__('os').environ['PRUNELLA_REPLICA']")
    platform = bed.build(code, replicas=4, stop_timeout=1, cwd=tmp_path)
    await platform.ensure()
    await until(lambda: len(list(tmp_path.glob("deaf*"))) == 4)
    began = time.monotonic()
    await platform.stop()
    assert time.monotonic() - began < 3  # one after the other, it would be 4 at least


def test_a_zombie_counts_as_dead() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    stat = read_stat(pid)
    os.waitpid(pid, 0)
    assert stat is not None
    assert not stat.alive


@pytest.mark.parametrize("leaves", ["nobody", "a child", "a child in a group of its own"])
def test_a_number_is_in_use_while_somebody_of_its_session_is_left(leaves: str) -> None:
    stay = {
        "nobody": "",
        "a child": "os.fork() or os.read(0, 1)",
        "a child in a group of its own": "os.fork() or (os.setpgid(0, 0), os.read(0, 1))",
    }
    argv = [sys.executable, "-c", f"import os\n{stay[leaves]}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True) as leader:
        assert leader.stdin is not None
        assert not is_unused(leader.pid, leader.stdin.fileno())
        leader.wait()
        assert is_unused(leader.pid, leader.stdin.fileno()) == (leaves == "nobody")


async def test_a_process_whose_main_thread_has_ended_counts_as_alive(
    bed: Bed, until: Until, only: Only
) -> None:
    code = (
        "import ctypes, threading, time",
        "threading.Thread(target=time.sleep, args=(60,)).start()",
        "print('ending', flush=True)",
        "ctypes.CDLL(None).syscall(60, 0)",  # exit of this thread only (x86-64)
    )
    platform = bed.build(*code)
    await platform.ensure()
    pid = (await only(platform)).pids[0]
    await until(lambda: ") Z " in Path(f"/proc/{pid}/stat").read_text())
    stat = read_stat(pid)
    assert stat is not None
    assert stat.alive
    assert bed.facts == []


def test_an_identity_is_read_back_from_its_text() -> None:
    identity = Identity(12, 345, "a-b-c")
    assert Identity.parse(str(identity)) == identity


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_whole_life_on_either_event_loop(
    tmp_path: Path, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def life() -> list[str]:
        bed = Bed(tmp_path / "state")
        platform = bed.build()
        words = list(await platform.ensure())
        os.kill((await platform.observe()).instances[0].pids[0], signal.SIGKILL)
        await asyncio.wait_for(bed.told.wait(), 5)
        await platform.execute(RESTART, epoch=FIRST)
        await platform.close()
        heir = bed.build()
        words += await heir.ensure()
        await heir.stop()
        words.append((await heir.observe()).instances[0].state)
        await bed.end()
        return [word.split(" ")[0] for word in words] + [fact.detail for fact in bed.facts]

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(life()) == ["started", "adopted", "stopped", "killed by SIGKILL"]


def test_an_empty_command_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        ProcessSpec.model_validate({"command": []})


def test_numbers_out_of_range_are_refused() -> None:
    for wrong in ({"replicas": 0}, {"replicas": 65}, {"log_keep": -1}, {"stop_timeout": 0}):
        with pytest.raises(ValueError, match="should be"):
            ProcessSpec.model_validate({"command": ["true"]} | wrong)


async def test_a_replica_that_is_about_to_be_replaced_is_described(bed: Bed, until: Until) -> None:
    platform = bed.build("print('connecting to the database', flush=True)", WAIT)
    await platform.ensure()
    await until(bed.log)
    (pid,) = (await platform.observe()).instances[0].pids
    async with asyncio.timeout(30):
        while "(sleeping)" not in (seen := await platform.testimony(InstanceId("0"))):  # noqa: ASYNC110 - it cannot be told
            await asyncio.sleep(0.01)
    assert f"pid {pid}: S " in seen
    assert "1 threads in " in seen
    assert "connecting to the database" in seen
    assert await platform.testimony(InstanceId("7")) == ""


async def test_what_is_gone_can_still_be_asked_for(bed: Bed) -> None:
    assert of_process(2**22 + 1, bed.folder / "no.log").endswith(": gone")
