"""An Engine that does not do what it says, or does not say what it does; and people beside us."""

import asyncio
from dataclasses import replace

import pytest
from tests.platforms.docker_bed import (
    EPOCH,
    DockerBed,
    blinded,
    kill,
    met,
    one_of,
    restart_of,
    rollback_of,
    scaling,
    seen,
)
from tests.platforms.engine_proxy import Fault, status
from tests.real.images import Release, make_image

from prunella.core.model import ActionKind, FactKind, InstanceState
from prunella.errors import ConflictError, PermanentError, TransientError

RESTART = r"POST /containers/[^/]+/restart"
HANGS = b""


def restarts(dock: DockerBed) -> int:
    return sum("/restart" in request or "/start" in request for request in dock.proxy.asked)


@pytest.mark.parametrize("answer", [status(500), status(409), HANGS], ids=["500", "409", "hang"])
async def test_a_restart_that_took_place_is_not_done_again_whatever_is_answered(
    dock: DockerBed, answer: bytes
) -> None:
    await dock.run("--stop-timeout", "1")
    platform = dock.build(timeout=2.0)
    before = await one_of(platform)
    dock.proxy.faults.append(Fault(RESTART, answer))
    await platform.execute(restart_of(before), epoch=EPOCH)
    after = await one_of(platform)
    assert after.state is InstanceState.RUNNING
    assert after.identity != before.identity
    assert restarts(dock) == 1
    await platform.execute(restart_of(before), epoch=EPOCH)
    assert restarts(dock) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(500), TransientError),
        (status(409), ConflictError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{x:", None),
        (b"garbage\r\n\r\n", TransientError),
        (HANGS, TransientError),
        (None, TransientError),
    ],
    ids=["500", "409", "no JSON", "no HTTP", "hang", "closed"],
)
async def test_a_restart_that_did_not_take_place_is_an_error_and_leaves_the_run_alone(
    dock: DockerBed, answer: bytes | None, error: type[Exception] | None
) -> None:
    await dock.run("--stop-timeout", "1")
    platform = dock.build(timeout=2.0)
    before = await one_of(platform)
    dock.proxy.faults.append(Fault(RESTART, answer, takes_effect=False))
    with pytest.raises(error or TransientError):
        await platform.execute(restart_of(before), epoch=EPOCH)
    assert await one_of(platform) == before
    assert dock.told() == []


async def test_an_engine_that_never_answers_is_told_in_bounded_time(dock: DockerBed) -> None:
    await dock.run()
    dock.proxy.frozen = True
    platform = dock.build(timeout=0.5)
    async with asyncio.timeout(30):
        with pytest.raises(TransientError, match=r"does not answer within 0\.5 s"):
            await platform.observe()


async def test_an_engine_that_stops_answering_is_noticed_while_nothing_happens(
    dock: DockerBed,
) -> None:
    await dock.run()
    platform = dock.build(timeout=2.0)
    await one_of(platform)
    dock.proxy.frozen = True
    error = await blinded(platform)
    assert isinstance(error, TransientError)
    assert "does not answer" in str(error)
    dock.proxy.frozen = False
    await seen(platform, InstanceState.RUNNING)


@pytest.mark.parametrize("path", ["/info", "/events", "/containers/json"])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnull",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n[3, {}]",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n\xff\xfe",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
    ids=["null", "list", "cut off", "no text", "no HTTP"],
)
async def test_nonsense_is_an_error_and_not_an_answer(
    dock: DockerBed, path: str, answer: bytes
) -> None:
    await dock.run()
    dock.proxy.faults.append(Fault(f"GET {path}", answer, takes_effect=False, times=10**6))
    platform = dock.build(timeout=2.0)
    with pytest.raises(TransientError):
        await platform.observe()
    dock.proxy.faults.clear()
    await seen(platform, InstanceState.RUNNING)


async def test_a_container_that_is_described_without_a_state_is_an_error(dock: DockerBed) -> None:
    await dock.run()
    body = b'{"Id":"x","Name":"/shop","State":null}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    looks = r"GET /containers/[0-9a-f]+/json"
    nonsense = Fault(looks, head % len(body) + body, takes_effect=False, times=10**6)
    dock.proxy.faults.append(nonsense)
    platform = dock.build()
    with pytest.raises(TransientError, match="without a proper"):
        await platform.observe()
    dock.proxy.faults.clear()
    assert (await one_of(platform)).state is InstanceState.RUNNING


async def test_an_end_during_a_cut_stream_is_told_when_it_is_back(dock: DockerBed) -> None:
    await dock.run()
    platform = dock.build()
    before = await one_of(platform)
    dock.proxy.frozen = True
    dock.proxy.cut()
    kill(before)
    await asyncio.to_thread(dock.engine.docker, "wait", "shop")
    dock.proxy.frozen = False
    fact = await dock.until_told(FactKind.EXITED)
    assert fact.detail == "exit code 137"
    assert (await one_of(platform)).state is InstanceState.EXITED


async def test_a_stop_during_a_cut_stream_is_still_known_to_be_a_wish(dock: DockerBed) -> None:
    await dock.run("--stop-timeout", "1", command=("httpd", "-f", "-p", "80"))
    platform = dock.build()
    await one_of(platform)
    dock.proxy.frozen = True
    dock.proxy.cut()
    await dock.docker("stop", "shop")
    dock.proxy.frozen = False
    await seen(platform, InstanceState.STOPPED)
    assert FactKind.EXITED not in dock.told()


async def test_a_restart_during_a_cut_stream_is_seen_as_another_run(dock: DockerBed) -> None:
    await dock.run("--stop-timeout", "1")
    platform = dock.build()
    before = await one_of(platform)
    dock.proxy.frozen = True
    dock.proxy.cut()
    await dock.docker("restart", "shop")
    dock.proxy.frozen = False
    await dock.until_told(FactKind.STARTED)
    assert (await one_of(platform)).identity != before.identity


async def test_what_ended_with_the_engine_is_a_fault_and_can_be_healed(dock: DockerBed) -> None:
    await dock.run("--stop-timeout", "1")
    platform = dock.build()
    before = await one_of(platform)
    await asyncio.to_thread(dock.engine.kill)
    assert isinstance(await blinded(platform), TransientError)
    await asyncio.to_thread(dock.engine.start)
    ended = (await seen(platform, InstanceState.EXITED)).instances[0]
    assert ended.identity == before.identity
    assert "Docker Engine" in ended.detail
    await platform.execute(restart_of(ended), epoch=EPOCH)
    assert (await one_of(platform)).state is InstanceState.RUNNING


async def test_an_engine_that_dies_in_the_middle_of_a_restart_leaves_one_that_can_be_healed(
    dock: DockerBed,
) -> None:
    await dock.run("--stop-timeout", "1")
    platform = dock.build(timeout=1)
    before = await one_of(platform)

    async def die() -> None:
        await asyncio.to_thread(dock.engine.kill)

    dock.proxy.faults.append(Fault(RESTART, first=die))
    with pytest.raises(TransientError):
        await platform.execute(restart_of(before), epoch=EPOCH)
    await asyncio.to_thread(dock.engine.start)
    ended = (await seen(platform, InstanceState.EXITED)).instances[0]
    await platform.execute(restart_of(ended), epoch=EPOCH)
    assert (await one_of(platform)).state is InstanceState.RUNNING
    assert await dock.names() == ["shop"]


async def test_a_person_who_stops_it_in_the_same_second_wins(dock: DockerBed) -> None:
    await dock.run("--stop-timeout", "1")
    platform = dock.build()
    decided = restart_of(await one_of(platform))
    await dock.docker("stop", "shop")
    with pytest.raises(ConflictError, match="stopped"):
        await platform.execute(decided, epoch=EPOCH)
    assert await dock.inspect("{{.State.Status}}") == "exited"


async def test_a_person_who_removes_it_in_the_same_second_wins(dock: DockerBed) -> None:
    await dock.run("--stop-timeout", "1")
    platform = dock.build()
    decided = restart_of(await one_of(platform))

    async def remove() -> None:
        await dock.docker("rm", "--force", "shop")

    dock.proxy.faults.append(Fault(RESTART, first=remove))
    with pytest.raises((ConflictError, PermanentError)):
        await platform.execute(decided, epoch=EPOCH)
    assert await dock.names() == []


async def test_a_person_who_deploys_in_the_same_second_wins(dock: DockerBed) -> None:
    make_image(dock.engine, "shop:2", Release(version="2"))
    theirs = make_image(dock.engine, "shop:3", Release(version="3"))
    old = await dock.docker("image", "inspect", "--format", "{{.Id}}", "shop:1")
    await dock.run(image="shop:2")
    platform = dock.build()
    decided = rollback_of(await one_of(platform), old)
    await dock.docker("rm", "--force", "shop")
    await dock.run(image="shop:3")
    with pytest.raises(ConflictError):
        await platform.execute(decided, epoch=EPOCH)
    assert await dock.inspect("{{.Image}} {{.State.Running}}") == f"{theirs} true"


async def test_a_person_who_scales_in_the_same_second_wins(dock: DockerBed) -> None:
    await dock.run()
    platform, other = dock.build(), dock.build()
    await platform.observe()
    await other.execute(scaling(ActionKind.SCALE_UP, 1, 3), epoch=EPOCH)
    with pytest.raises(ConflictError):
        await platform.execute(scaling(ActionKind.SCALE_UP, 1, 2), epoch=EPOCH)
    assert len(await dock.names()) == 3


@pytest.mark.parametrize("answer", [status(500), HANGS], ids=["500", "hang"])
async def test_a_replica_that_was_made_without_being_told_is_not_left_behind(
    dock: DockerBed, answer: bytes
) -> None:
    await dock.run()
    platform = dock.build(timeout=2.0)
    await platform.observe()
    dock.proxy.faults.append(Fault("POST /containers/create", answer))
    with pytest.raises(TransientError):
        await platform.execute(scaling(ActionKind.SCALE_UP, 1, 2), epoch=EPOCH)
    await met(lambda: not any("-prunella-" in name for name in dock.engine_names()))
    await platform.execute(scaling(ActionKind.SCALE_UP, 1, 2), epoch=EPOCH)
    assert await dock.names() == ["shop", "shop-prunella-2"]


async def test_a_container_that_cannot_be_started_is_told_and_not_taken_for_stopped(
    dock: DockerBed,
) -> None:
    await dock.run("--stop-timeout", "1")
    platform = dock.build()
    before = await one_of(platform)
    start = Fault(r"POST /containers/[^/]+/start", status(500, "no space left"), takes_effect=False)
    dock.proxy.faults.append(start)
    kill(before)
    ended = (await seen(platform, InstanceState.EXITED)).instances[0]
    with pytest.raises(TransientError, match="no space left"):
        await platform.execute(restart_of(ended), epoch=EPOCH)
    assert (await one_of(platform)).state is InstanceState.EXITED
    await platform.execute(replace(restart_of(ended), instance=None), epoch=EPOCH)
    assert (await one_of(platform)).state is InstanceState.RUNNING


async def test_a_stop_after_a_restart_that_did_not_take_place_is_a_wish(dock: DockerBed) -> None:
    await dock.run("--stop-timeout", "1")
    platform = dock.build()
    before = await one_of(platform)
    dock.proxy.faults.append(Fault(RESTART, status(500), takes_effect=False))
    with pytest.raises(TransientError):
        await platform.execute(restart_of(before), epoch=EPOCH)
    await dock.docker("stop", "shop")
    await seen(platform, InstanceState.STOPPED)


async def test_taking_up_a_lost_stream_costs_one_list_and_no_look(dock: DockerBed) -> None:
    await dock.run()
    for number in range(5):
        await dock.docker("run", "--detach", "--name", f"other-{number}", "shop:1")
    platforms = [dock.build(), *(dock.build(container=f"other-{n}") for n in range(5))]
    for platform in platforms:
        await one_of(platform)
    dock.proxy.heard.clear()
    dock.proxy.cut()
    await met(lambda: any("/containers/json" in request for request in dock.proxy.heard))
    for platform in platforms:
        await one_of(platform)
    paths = [request.split()[1].partition("?")[0] for request in dock.proxy.heard]
    assert sorted(paths) == ["/containers/json", "/events", "/events", "/info", "/version"]
