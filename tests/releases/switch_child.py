"""A stand-in for Prunella that a test can kill: switches once, and says how that ended.

Arguments: before which of its effects it dies by itself (0: never), kind of source, state folder,
its fields as JSON, the revision, and the one before. An effect is a change of a file or a folder,
a lock, or the start of another program.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tests.releases.conftest import build

from prunella.core.model import Epoch
from prunella.errors import PrunellaError

EFFECTS = {
    "fcntl.flock",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.utime",
    "shutil.rmtree",
    "subprocess.Popen",
}


def die_before(number: int) -> None:
    left = number

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        creates = event == "open" and int(str(arguments[2])) & os.O_CREAT
        if event in EFFECTS or creates:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


async def main() -> None:
    number, kind, folder, fields, revision, before = sys.argv[1:]
    release = build(kind, Path(folder), **json.loads(fields))
    die_before(int(number))
    try:
        await release.switch(revision, before=before, reason="erroring", epoch=Epoch(1))
        said = "switched"
    except PrunellaError as error:
        said = f"{type(error).__name__}: {error}"
    sys.stdout.write(f"{said}\n")


asyncio.run(main())
