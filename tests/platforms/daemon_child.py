"""A stand-in for Prunella that a test can kill: takes a service up, says so, and waits.

Arguments: the state folder, and the spec as JSON.
"""

import asyncio
import json
import sys
from pathlib import Path

from prunella.core.model import ServiceId
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
    await asyncio.Event().wait()


asyncio.run(main())
