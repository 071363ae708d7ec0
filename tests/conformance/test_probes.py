"""What every probe does, built in or not. A new kind is picked up without a line here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from prunella import plugins
from prunella.core.model import ServiceId, Verdict
from prunella.plugins import ProbeContext, ProbePlugin
from prunella.ports import Probe
from prunella.runtime.clock import SystemClock
from prunella.spec import ProbeSpec
from prunella.testing import toxic
from prunella.testing.toxic import Behaviour, ToxicServer

Serve = Callable[[Behaviour], Awaitable[ToxicServer]]
PROBES = list(plugins.probes().values())
every_probe = pytest.mark.parametrize("plugin", PROBES, ids=lambda plugin: plugin.kind)
NEVER_WAITS = {"process"}  # they ask the kernel, and nothing can keep that waiting
SECOND_HAND = {"prometheus"}  # they ask a third party, whose silence is no evidence
every_probe_that_waits = pytest.mark.parametrize(
    "plugin",
    [plugin for plugin in plugins.probes().values() if plugin.kind not in NEVER_WAITS],
    ids=lambda plugin: plugin.kind,
)


@dataclass(frozen=True)
class Target:
    """The keys that point a probe at something, and the processes of that something."""

    keys: dict[str, Any]
    pids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Targets:
    """What a kind is tried on; ``silent`` None: nothing can keep it waiting."""

    good: Target
    bad: Target
    silent: Target | None


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(behaviour: Behaviour) -> ToxicServer:
            server = ToxicServer(behaviour, SystemClock())
            return await stack.enter_async_context(server.listening())

        yield start


@pytest.fixture
def gone() -> int:
    """The number of a process that is no more."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def said_by_prometheus(value: float) -> bytes:
    sample = {"metric": {"service": "web"}, "value": [SystemClock().wall().timestamp(), str(value)]}
    data = {"resultType": "vector", "result": [sample]}
    return json.dumps({"status": "success", "data": data}).encode()


@pytest.fixture
async def targets(serve: Serve, gone: int) -> dict[str, Targets]:
    """A good, a bad and a silent target by kind; a kind without a row gets the general tests."""
    ok = await serve(toxic.reply(b"HTTP/1.1 200 OK\r\n", b"well"))
    broken = await serve(toxic.reply(b"HTTP/1.1 500 Oops\r\n"))
    silent = await serve(toxic.silent)
    mute = await serve(toxic.half_close)
    figures = await serve(toxic.reply(b"HTTP/1.1 200 OK\r\n", b"served_total 7\n"))
    few = await serve(toxic.reply(b"HTTP/1.1 200 OK\r\n", said_by_prometheus(0.01)))
    many = await serve(toxic.reply(b"HTTP/1.1 200 OK\r\n", said_by_prometheus(0.5)))
    counted = {"requests": "served_total"}
    asked = {"query": "errors", "labels": {"service": "web"}, "fail_above": 0.1, "max_age": "1h"}
    return {
        "http": Targets(
            Target({"url": ok.url}), Target({"url": broken.url}), Target({"url": silent.url})
        ),
        "metrics": Targets(
            Target({"url": figures.url, **counted}),
            Target({"url": broken.url, **counted}),
            Target({"url": silent.url, **counted}),
        ),
        "prometheus": Targets(
            Target({"url": few.url, **asked}),
            Target({"url": many.url, **asked}),
            Target({"url": silent.url, **asked}),
        ),
        "tcp": Targets(
            Target({"port": ok.port}),
            Target({"port": mute.port, "expect": "hello"}),
            Target({"port": silent.port, "expect": "hello"}),
        ),
        "exec": Targets(
            Target({"command": ["true"]}),
            Target({"command": ["false"]}),
            Target({"command": ["sleep", "60"]}),
        ),
        "process": Targets(Target({}, (os.getpid(),)), Target({}, (gone,)), None),
    }


@pytest.fixture
async def build() -> AsyncIterator[Callable[..., Probe]]:
    made: list[Probe] = []

    def make(plugin: ProbePlugin, target: Target, **more: Any) -> Probe:
        spec = plugin.spec.model_validate({**target.keys, **more})
        context = ProbeContext(ServiceId("web"), SystemClock(), lambda _of: target.pids)
        made.append(plugin.build(spec, context))
        return made[-1]

    yield make
    for probe in made:
        await probe.close()


@pytest.fixture
def row(plugin: ProbePlugin, targets: dict[str, Targets]) -> Targets:
    if plugin.kind not in targets:
        pytest.fail(f"add good and bad targets for a probe of kind {plugin.kind} here")
    return targets[plugin.kind]


@pytest.fixture
def out_of_descriptors() -> Iterator[Callable[[], None]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def exhaust() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))

    yield exhaust
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for fd in taken:
        os.close(fd)


def unanswered(plugin: ProbePlugin) -> Verdict:
    return Verdict.INCONCLUSIVE if plugin.kind in SECOND_HAND else Verdict.FAIL


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def settled(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a condition of the kernel's
            await asyncio.sleep(0.005)


def fields_of(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        yield f"{model.__name__}.{name}", field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields_of(field.annotation)


def test_the_four_kinds_that_are_built_in_are_found() -> None:
    assert {"http", "tcp", "exec", "process"} <= set(plugins.probes())


@every_probe
def test_its_kind_is_a_plain_word(plugin: ProbePlugin) -> None:
    assert plugin.kind.isascii()
    assert plugin.kind == plugin.kind.lower()
    assert plugin.kind.replace("-", "").isalnum()


@every_probe
def test_its_spec_is_frozen_and_refuses_unknown_keys(plugin: ProbePlugin) -> None:
    assert issubclass(plugin.spec, ProbeSpec)
    assert plugin.spec.model_config.get("frozen") is True
    with pytest.raises(ValidationError) as caught:
        plugin.spec.model_validate({"no_such_key": 1})
    refused = {error["loc"]: error["type"] for error in caught.value.errors()}
    assert refused["no_such_key",] == "extra_forbidden"


@every_probe
def test_every_key_is_described(plugin: ProbePlugin) -> None:
    assert plugin.spec.__doc__
    assert [name for name, field in fields_of(plugin.spec) if not field.description] == []


@every_probe
def test_its_schema_can_be_written(plugin: ProbePlugin) -> None:
    assert plugin.spec.model_json_schema()["additionalProperties"] is False


@every_probe
async def test_passes_on_a_good_target(
    plugin: ProbePlugin, row: Targets, build: Callable[..., Probe]
) -> None:
    probe = build(plugin, row.good)
    assert probe.kind == plugin.kind
    observation = await probe.check()
    assert (observation.verdict, observation.cause, observation.detail) == (Verdict.PASS, None, "")
    assert 0 <= observation.latency_s < 2


@every_probe
async def test_fails_on_a_bad_target_and_says_why(
    plugin: ProbePlugin, row: Targets, build: Callable[..., Probe]
) -> None:
    observation = await build(plugin, row.bad).check()
    assert observation.verdict is Verdict.FAIL
    assert observation.cause is not None
    assert observation.detail.isprintable()
    assert 0 < len(observation.detail) <= 200


@every_probe_that_waits
async def test_ends_by_its_deadline_on_a_silent_target(
    plugin: ProbePlugin, row: Targets, build: Callable[..., Probe]
) -> None:
    assert row.silent is not None, "name a silent target, or add this kind to NEVER_WAITS"
    probe = build(plugin, row.silent, timeout=0.8)
    observations = [await probe.check() for _ in range(3)]
    assert {observation.verdict for observation in observations} == {unanswered(plugin)}
    latencies_s = [observation.latency_s for observation in observations]
    assert min(latencies_s) + 0.005 >= 0.8
    assert min(latencies_s) <= 0.88, "of three, as a busy machine may hold up one"


@every_probe
async def test_its_own_lack_of_descriptors_is_no_evidence_against_the_target(
    plugin: ProbePlugin,
    row: Targets,
    build: Callable[..., Probe],
    out_of_descriptors: Callable[[], None],
) -> None:
    probe = build(plugin, row.good)
    before = open_descriptors()
    await probe.check()
    # What watches sockets stays; the target lets go of its end a moment later than we of ours.
    await settled(lambda: open_descriptors() <= before + 1)
    out_of_descriptors()
    observation = await probe.check()
    assert (observation.verdict, observation.cause) == (Verdict.INCONCLUSIVE, None)
    assert "open files" in observation.detail


@every_probe_that_waits
async def test_can_be_cancelled_and_used_again(
    plugin: ProbePlugin, row: Targets, build: Callable[..., Probe]
) -> None:
    assert row.silent is not None, "name a silent target, or add this kind to NEVER_WAITS"
    probe = build(plugin, row.silent, timeout=0.2)
    await probe.check()
    await settled(lambda: True)
    before = open_descriptors()
    for _ in range(10):
        task = asyncio.create_task(probe.check())
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await settled(lambda: open_descriptors() <= before)
    assert (await probe.check()).verdict is unanswered(plugin)


@every_probe
async def test_two_hundred_checks_leave_no_descriptor_behind(
    plugin: ProbePlugin, row: Targets, build: Callable[..., Probe]
) -> None:
    good, bad = build(plugin, row.good), build(plugin, row.bad)
    for probe in (good, bad):
        await probe.check()
    await settled(lambda: True)
    before = open_descriptors()
    for _ in range(100):
        assert (await good.check()).verdict is Verdict.PASS
        assert (await bad.check()).verdict is Verdict.FAIL
    await settled(lambda: open_descriptors() <= before)


@every_probe
async def test_can_be_closed_twice(
    plugin: ProbePlugin, row: Targets, build: Callable[..., Probe]
) -> None:
    probe = build(plugin, row.good)
    await probe.check()
    await probe.close()
    await probe.close()


_ON_UVLOOP = """
import asyncio, sys, pytest, uvloop
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", "not uvloop", sys.argv[1]]))
"""


def test_all_of_this_holds_on_uvloop_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ON_UVLOOP, __file__], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout.decode()
    assert b" passed" in done.stdout
