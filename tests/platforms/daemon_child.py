"""A stand-in for Prunella that a test can kill: takes a service up, says so, and waits.

Arguments: the state folder, the spec as JSON, and the numbers of replicas that it is scaled to.
"""

import asyncio
import json
import sys
from pathlib import Path

from prunella.core.model import Action, ActionKind, Epoch, ServiceId
from prunella.platforms.process import ProcessPlatform, ProcessSpec
from prunella.plugins import PlatformContext
from prunella.runtime.clock import SystemClock


async def main() -> None:
    spec = ProcessSpec.model_validate(json.loads(sys.argv[2]))
    context = PlatformContext(
        ServiceId("web"), SystemClock(), Path(sys.argv[1]), lambda _fact: None
    )
    platform = ProcessPlatform(spec, context)
    sys.stdout.write(json.dumps(list(await platform.ensure())) + "\n")
    sys.stdout.flush()
    for wanted in map(int, sys.argv[3:]):
        present = (await platform.observe()).desired
        kind = ActionKind.SCALE_UP if wanted > present else ActionKind.SCALE_DOWN
        action = Action(kind, context.service, replicas=wanted, before=str(present))
        await platform.execute(action, epoch=Epoch(1))
    await asyncio.Event().wait()


asyncio.run(main())
