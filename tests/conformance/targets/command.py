"""Platform ``command``: a script that stands for any supervisor with a command line."""

import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.targets import (
    SERVICE,
    Bench,
    context,
    kill_pid_of_identity,
    pid_of_identity_lives,
)

from prunella.core.model import Action, ActionKind, Epoch, Fact
from prunella.plugins import platforms
from prunella.ports import Platform

PIDFILE_SCRIPT = """
import os, subprocess, sys
verb, path = sys.argv[1:]
def living():
    try:
        pid = open(path).read()
        return pid if open(f"/proc/{pid}/stat").read().rsplit(")")[-1].split()[0] != "Z" else ""
    except OSError:
        return ""
if verb == "observe":
    print(living())
    sys.exit(0 if living() else 3)
if living():
    os.kill(int(living()), 9)
    while living():
        pass
child = subprocess.Popen(
    [sys.executable, "-c", "import signal\\nwhile True: signal.pause()"],
    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    start_new_session=True,
)
open(path + ".new", "w").write(str(child.pid))
os.rename(path + ".new", path)
with open(path + ".starts", "a") as starts:
    starts.write("x")
"""


async def target(folder: Path, stack: AsyncExitStack, request: pytest.FixtureRequest) -> Bench:
    plugin, facts = platforms()["command"], list[Fact]()
    script, pid_file = folder / "script.py", folder / "pid"
    script.write_text(PIDFILE_SCRIPT)
    run = [sys.executable, str(script)]
    body = {
        "observe": [*run, "observe", str(pid_file)],
        "restart": [*run, "restart", str(pid_file)],
    }
    platform = plugin.build(plugin.spec.model_validate(body), context(folder, facts))
    await platform.execute(Action(ActionKind.RESTART, SERVICE), epoch=Epoch(1))
    stack.callback(lambda: end_quietly(int(pid_file.read_text())))

    def blind() -> Platform:
        absent = plugin.spec.model_validate(body | {"observe": [str(folder / "absent")]})
        return plugin.build(absent, context(folder, facts))

    return Bench(
        platform, kill_pid_of_identity, pid_of_identity_lives, blind, tells_facts=False, facts=facts
    )


def end_quietly(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
