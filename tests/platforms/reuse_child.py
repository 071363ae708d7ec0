"""Runs alone in a pid namespace: gives a dead child's number to a stranger, and says what came.

Argument: the state folder. Prints one JSON object.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from prunella.core.model import Action, ActionKind, Epoch, Fact, ServiceId
from prunella.platforms._child import Child
from prunella.platforms._proc import Identity, open_pidfd, read_stat, session_members
from prunella.platforms.process import ProcessPlatform, ProcessSpec
from prunella.plugins import PlatformContext
from prunella.runtime.clock import SystemClock

LOOP = "import signal\nwhile True: signal.pause()"
STRANGER = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {LOOP!r}])\n{LOOP}"


def build(facts: list[Fact]) -> ProcessPlatform:
    spec = ProcessSpec.model_validate({"command": [sys.executable, "-c", LOOP]})
    context = PlatformContext(ServiceId("web"), SystemClock(), Path(sys.argv[1]), facts.append)
    return ProcessPlatform(spec, context)


def stranger_under(pid: int, not_ticks: int) -> subprocess.Popen[bytes]:
    """A process group of somebody else's whose leader has that number, born at another tick."""
    for _ in range(200):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        stranger = subprocess.Popen([sys.executable, "-c", STRANGER], start_new_session=True)
        stat = read_stat(stranger.pid)
        assert stat is not None
        if stranger.pid == pid and stat.ticks != not_ticks:
            return stranger
        stranger.kill()
        stranger.wait()
    raise SystemExit("the number could not be had")


def read_ticks(pid: int) -> int:
    stat = read_stat(pid)
    assert stat is not None
    return stat.ticks


def kill_and_collect(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


async def main() -> None:
    facts: list[Fact] = []
    first = build(facts)
    await first.ensure()
    run = (await first.observe()).instances[0]
    identity = Identity.parse(run.identity)
    await first.close()
    kill_and_collect(identity.pid)
    stranger = stranger_under(identity.pid, identity.ticks)

    heir = build(facts)
    words = list(await heir.ensure())
    async with asyncio.timeout(30):
        while not session_members(identity._replace(ticks=read_ticks(identity.pid))):  # noqa: ASYNC110 - its child comes when it comes
            await asyncio.sleep(0.01)
    refused = (
        open_pidfd(identity) is None
        and session_members(identity) == ()
        and Child.adopt(identity, lambda _child: None) is None
    )
    await heir.execute(
        Action(ActionKind.RESTART, ServiceId("web"), None, run.identity), epoch=Epoch(1)
    )
    restarted = (await heir.observe()).instances[0].pids[0]
    await heir.stop()
    await heir.close()
    sys.stdout.write(
        json.dumps(
            {
                "words": words,
                "refused": refused,
                "same_number": stranger.pid == identity.pid,
                "stranger_lives": stranger.poll() is None,
                "restarted_elsewhere": restarted != identity.pid,
            }
        )
    )
    os.killpg(stranger.pid, signal.SIGKILL)
    stranger.wait()


asyncio.run(main())
