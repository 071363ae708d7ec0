"""Whether a service can be built from its config, and whose trouble it is when it cannot."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from prunella.config import ServiceConfig
from prunella.core.model import ServiceId
from prunella.errors import PermanentError, StaleEpochError
from prunella.plugins import ProbeContext, probes
from prunella.ports import Clock
from prunella.runtime.target import build


@contextmanager
def in_the_name_of(service: ServiceId) -> Generator[None]:
    """Put the service before what is said of it. Raises: PermanentError."""
    try:
        yield
    except StaleEpochError:
        raise  # nobody's but our own
    except PermanentError as error:
        raise PermanentError(f"service {service}: {error}") from error


async def require_buildable(config: ServiceConfig, clock: Clock, state_dir: Path) -> None:
    """Build what a service needs and let go of it, before anything is given up for it.

    Raises: PermanentError: a plugin cannot use its spec, such as a file that is not there.
    """
    context = ProbeContext(config.id, clock, lambda _: ())
    async with AsyncExitStack() as built:
        with in_the_name_of(config.id):
            for part in build(config, clock, state_dir, lambda _: None):
                if part is not None:
                    built.push_async_callback(part.close)
            for one in config.probes:
                if one.each is None:
                    built.push_async_callback(probes()[one.kind].build(one.spec, context).close)
