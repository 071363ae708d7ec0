"""Asking platforms and sources of releases whether they can do their work.

For people only: nothing that is found out here decides anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from prunella.config import Config, ServiceConfig
from prunella.core.model import ActionKind, Instant, ServiceId
from prunella.errors import PermanentError, TransientError
from prunella.plugins import gateways
from prunella.ports import Clock, Gateway, Platform, Release, Remark, SupportsExamination
from prunella.runtime.clock import SystemClock
from prunella.runtime.gateways import build_gateway, route_of
from prunella.runtime.target import build

EXAMINE_S = 3.0  # who has not answered by then is not waited for
_CHECKED_AT_ONCE = 128  # each may take a few descriptors
_WATCHED_AT_ONCE = 16
_PAUSE_S = 0.01
_EVERY_S = 600.0  # what was amiss may have been put right, and the other way round


class Finding(NamedTuple):
    """A remark, and whether it concerns the source of releases and not the platform."""

    remark: Remark
    of_release: bool


async def examine(
    platform: Platform, release: Release | None, *, within_s: float = EXAMINE_S
) -> tuple[Finding, ...]:
    """What both have to say, faults first. Who cannot tell, or not in time, is a remark itself.

    With a source of releases, its platform is not asked for a rollback, and need not be able to.
    """
    found = [Finding(one, of_release=False) for one in await _ask("platform", platform, within_s)]
    if release is not None:
        found = [one for one in found if one.remark.about is not ActionKind.ROLLBACK]
        remarks = await _ask("source of releases", release, within_s)
        found += [Finding(one, of_release=True) for one in remarks]
    return tuple(sorted(found, key=lambda finding: not finding.remark.fault))


async def examine_all(
    services: Iterable[ServiceConfig], state_dir: Path, examined: Callable[[], None]
) -> Mapping[ServiceId, tuple[Finding, ...]]:
    """Examine services that nobody watches here, many at once.

    Args:
        services: what is built for them is let go of again, untouched.
        state_dir: as configured; nothing is written there.
        examined: called after each.
    """
    found: dict[ServiceId, tuple[Finding, ...]] = {}
    clock, left = SystemClock(), iter(services)

    async def work() -> None:
        for service in left:
            found[service.id] = await _examine_unwatched(service, clock, state_dir)
            examined()

    async with asyncio.TaskGroup() as group:
        for _ in range(_CHECKED_AT_ONCE):
            group.create_task(work())
    return found


class Examiner:
    """Has everything examined now and then, and when told to; a few at a time, without haste.

    Args:
        examinations: one for each service that is watched, as of now.
    """

    def __init__(
        self, clock: Clock, examinations: Callable[[], Iterable[Callable[[], Awaitable[None]]]]
    ) -> None:
        self._clock = clock
        self._examinations = examinations
        self._hastened = asyncio.Event()

    def hasten(self) -> None:
        """Begin anew, now or right after the present round."""
        self._hastened.set()

    async def run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._hastened.wait()
            self._hastened.clear()
            left = iter(tuple(self._examinations()))
            async with asyncio.TaskGroup() as group:
                for _ in range(_WATCHED_AT_ONCE):
                    group.create_task(self._work(left))

    async def _work(self, left: Iterator[Callable[[], Awaitable[None]]]) -> None:
        for examination in left:
            await examination()
            # One that never waits would keep the loop from its checks.
            await self._clock.sleep_until(Instant(self._clock.now() + _PAUSE_S))


async def examine_gateways(config: Config) -> Mapping[str, tuple[Remark, ...]]:
    """What every gateway of a configuration has to say, by name, faults first."""

    async def one(name: str) -> tuple[Remark, ...]:
        gateway = build_gateway(config.gateways[name], SystemClock(), config.state_dir)
        try:
            if not gateways()[gateway.kind].writes:
                behind = (s for s in config.services.values() if s.route and s.route.name == name)
                await gateway.route([route_of(service, None) for service in behind])
            return await examine_gateway(gateway)
        except (TransientError, PermanentError) as error:
            return (Remark(f"gateway {gateway.kind} cannot be used: {error}", fault=True),)
        finally:
            await gateway.close()

    names = tuple(config.gateways)
    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))


async def examine_gateway(gateway: Gateway, *, within_s: float = EXAMINE_S) -> tuple[Remark, ...]:
    """What one gateway has to say, faults first."""
    found = list(await _ask("gateway", gateway, within_s))
    if gateways()[gateway.kind].experimental:
        found.append(Remark(f"gateway {gateway.kind} is experimental: it has not been tried here"))
    return tuple(sorted(found, key=lambda remark: not remark.fault))


async def _ask(what: str, asked: Platform | Release | Gateway, within_s: float) -> Sequence[Remark]:
    if not isinstance(asked, SupportsExamination):
        return ()
    try:
        async with asyncio.timeout(within_s):
            return await asked.examine()
    except TimeoutError:
        said = f"did not answer within {within_s:g} s, so nothing is known of it"
    except (TransientError, PermanentError) as error:
        said = f"cannot be examined: {error}"
    return (Remark(f"{what} {asked.kind} {said}"),)


async def _examine_unwatched(
    service: ServiceConfig, clock: Clock, state_dir: Path
) -> tuple[Finding, ...]:
    platform, release = build(service, clock, state_dir, lambda _: None)
    try:
        return await examine(platform, release)
    finally:
        if release is not None:
            await release.close()
        await platform.close()
