"""Platform ``command``: a script that stands for any supervisor with a command line."""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import psutil
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

SCRIPT = """
import os, subprocess, sys
verb, folder, *rest = sys.argv[1:]
def path(name):
    return os.path.join(folder, name)
def read(name):
    with open(path(name)) as file:
        return file.read()
def write(name, text):
    with open(path(name + ".new"), "w") as file:
        file.write(text)
    os.rename(path(name + ".new"), path(name))
def lives(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False
def living():
    return [pid for pid in read("pids").split() if lives(pid)]
def end(pid):
    os.kill(int(pid), 9)
    while lives(pid):
        pass
def start():
    child = subprocess.Popen(
        [sys.executable, "-c", "import signal\\nwhile True: signal.pause()"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return str(child.pid)
def run(pids):
    pids = pids[: int(read("wanted"))]
    for pid in set(living()) - set(pids):
        end(pid)
    write("pids", " ".join(pids + [start() for _ in range(int(read("wanted")) - len(pids))]))
if verb == "observe":
    print(*living()[:1])
    sys.exit(0 if living() else 3)
elif verb in ("version", "wanted"):
    print(read(verb))
else:
    kept = living()
    if verb == "scale":
        write("wanted", rest[0])
    else:
        kept = []
    if verb == "deploy":
        write("version", rest[0])
    run(kept)
"""


async def target(folder: Path, stack: AsyncExitStack, request: pytest.FixtureRequest) -> Bench:
    plugin, facts = platforms()["command"], list[Fact]()
    script = folder / "script.py"
    for name, text in {"wanted": "1", "pids": "", "version": "v1", script.name: SCRIPT}.items():
        (folder / name).write_text(text)

    def argv(*words: str) -> list[str]:
        return [sys.executable, str(script), words[0], str(folder), *words[1:]]

    async def tell(*words: str) -> None:
        done = await asyncio.create_subprocess_exec(*argv(*words))
        assert await done.wait() == 0

    async def count() -> int:
        pids = [int(pid) for pid in (folder / "pids").read_text().split()]
        return sum(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)

    body = {
        "observe": argv("observe"),
        "restart": argv("restart"),
        "scale": argv("scale", "{replicas}"),
        "replicas": argv("wanted"),
        "rollback": argv("deploy", "{revision}"),
        "version": argv("version"),
    }
    platform = plugin.build(plugin.spec.model_validate(body), context(folder, facts))
    stack.callback(end_all, folder / "pids")
    await platform.execute(Action(ActionKind.RESTART, SERVICE), epoch=Epoch(1))

    def blind() -> Platform:
        absent = plugin.spec.model_validate(body | {"observe": [str(folder / "absent")]})
        return plugin.build(absent, context(folder, facts))

    return Bench(
        platform,
        kill_pid_of_identity,
        pid_of_identity_lives,
        blind,
        tells_facts=False,
        facts=facts,
        shows_each=False,
        count=count,
        rescale=lambda replicas: tell("scale", str(replicas)),
        deploy=lambda: tell("deploy", "v2"),
    )


def end_all(pids: Path) -> None:
    for pid in pids.read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
