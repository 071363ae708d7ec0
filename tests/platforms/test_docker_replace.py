"""A rollback of a container: what it keeps, how it fails, and where it can be interrupted."""

import asyncio
import contextlib
from dataclasses import replace

import pytest
from tests.platforms.docker_bed import (
    EPOCH,
    DockerBed,
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
from prunella.errors import PermanentError, TransientError
from prunella.platforms.docker import DockerPlatform

CHANGES = "(POST|DELETE) "
# What is asked of Docker one after the other, from the creation of the new container on.
STEPS = ("create", "stop", "rename", "rename", "start")
LEFTOVERS = 2  # are asked to be removed before: a new one and an old one of an earlier time


async def deployed(dock: DockerBed, *options: str) -> tuple[DockerPlatform, str]:
    """A container of version 2, and the image of version 1."""
    make_image(dock.engine, "shop:2", Release(version="2"))
    await dock.run("--stop-timeout", "1", *options, image="shop:2")
    old = await dock.docker("image", "inspect", "--format", "{{.Id}}", "shop:1")
    return dock.build(), old


async def test_a_rollback_is_these_steps(dock: DockerBed) -> None:
    platform, old = await deployed(dock)
    await platform.execute(rollback_of(await one_of(platform), old), epoch=EPOCH)
    steps = [request.partition("?")[0].rpartition("/")[2] for request in dock.proxy.asked]
    assert tuple(steps[LEFTOVERS:]) == STEPS
    assert all(request.startswith("DELETE") for request in dock.proxy.asked[:LEFTOVERS])


@pytest.mark.parametrize("takes_effect", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("step", range(len(STEPS)), ids=[f"{n}-{s}" for n, s in enumerate(STEPS)])
@pytest.mark.parametrize("again", [True, False], ids=["rollback", "restart"])
async def test_a_rollback_that_was_cut_short_at_any_step_is_taken_up_or_undone(
    dock: DockerBed, step: int, *, takes_effect: bool, again: bool
) -> None:
    platform, old = await deployed(dock)
    action = rollback_of(await one_of(platform), old)
    fault = Fault(CHANGES, b"", takes_effect=takes_effect, after=LEFTOVERS + step)
    dock.proxy.faults.append(fault)
    doing = asyncio.create_task(platform.execute(action, epoch=EPOCH))
    await met(lambda: fault.times == 0)
    if takes_effect:
        await met(lambda: len(dock.proxy.asked) > LEFTOVERS + step)
        await met(lambda: fault.done)
    doing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await doing
    await platform.close()

    later = dock.build()
    found = await one_of(later)
    assert found.state is not InstanceState.STOPPED, "nobody has wished that"
    await later.execute(
        replace(rollback_of(found, old), before="") if again else restart_of(found), epoch=EPOCH
    )
    healed = await one_of(later)
    assert healed.state is InstanceState.RUNNING
    if again:
        assert healed.revision == old
    assert set(await dock.names()) <= {"shop", "shop.prunella-old"}
    await later.complete(action, epoch=EPOCH)
    assert await dock.names() == ["shop"]


async def test_the_old_container_is_kept_until_the_new_one_is_proven(dock: DockerBed) -> None:
    platform, old = await deployed(dock)
    before = await one_of(platform)
    await platform.execute(rollback_of(before, old), epoch=EPOCH)
    assert await dock.names() == ["shop", "shop.prunella-old"]
    kept = await dock.inspect("{{.Image}} {{.State.Running}}", "shop.prunella-old")
    assert kept == f"{before.revision} false"
    await platform.complete(rollback_of(before, old), epoch=EPOCH)
    assert await dock.names() == ["shop"]
    assert FactKind.EXITED not in dock.told()


async def test_an_image_that_is_gone_is_refused_before_anything_is_touched(dock: DockerBed) -> None:
    platform, _ = await deployed(dock)
    before = await one_of(platform)
    with pytest.raises(PermanentError, match="is not there any more"):
        await platform.execute(rollback_of(before, "sha256:" + "0" * 64), epoch=EPOCH)
    assert await one_of(platform) == before
    assert dock.proxy.asked == []


async def test_a_new_container_that_cannot_be_started_makes_room_for_the_old_one(
    dock: DockerBed,
) -> None:
    platform, _ = await deployed(dock)
    before = await one_of(platform)
    await dock.docker("commit", "--change", 'CMD ["/no/such/command"]', "shop", "bad:1")
    bad = await dock.docker("image", "inspect", "--format", "{{.Id}}", "bad:1")
    with pytest.raises((TransientError, PermanentError), match="back in its place and runs"):
        await platform.execute(rollback_of(before, bad), epoch=EPOCH)
    after = await one_of(platform)
    assert (after.state, after.revision) == (InstanceState.RUNNING, before.revision)
    assert await dock.names() == ["shop"]
    assert FactKind.EXITED not in dock.told()


async def test_a_new_container_that_cannot_be_made_leaves_the_old_one_running(
    dock: DockerBed,
) -> None:
    platform, old = await deployed(dock)
    before = await one_of(platform)
    full = Fault("POST /containers/create", status(500, "no space left"), takes_effect=False)
    dock.proxy.faults.append(full)
    with pytest.raises(TransientError, match="no space left"):
        await platform.execute(rollback_of(before, old), epoch=EPOCH)
    assert await one_of(platform) == before
    assert await dock.names() == ["shop"]


async def test_a_rollback_keeps_all_but_the_image(dock: DockerBed) -> None:
    await dock.docker("network", "create", "shopnet")
    options = (
        *("--network", "shopnet", "--network-alias", "till", "--publish", "127.0.0.1:0:80"),
        *("--env", "COLOUR=red", "--label", "team=shop", "--volume", "/data", "--memory", "64m"),
        *("--restart", "on-failure:3", "--workdir", "/tmp"),
    )
    platform, old = await deployed(dock, *options)
    await dock.docker("exec", "shop", "sh", "-c", "printf kept > /data/file")
    before = await one_of(platform)
    await platform.execute(rollback_of(before, old), epoch=EPOCH)
    await platform.complete(rollback_of(before, old), epoch=EPOCH)
    assert await dock.docker("exec", "shop", "cat", "/data/file") == "kept"
    form = (
        "{{.Image}} {{.Config.WorkingDir}} {{.HostConfig.Memory}}"
        ' {{.HostConfig.RestartPolicy.Name}} {{index .Config.Labels "team"}} {{.Config.Cmd}}'
    )
    assert await dock.inspect(form) == f"{old} /tmp {64 * 2**20} on-failure shop [serve]"
    env = await dock.inspect("{{json .Config.Env}}")
    assert env.count("COLOUR=red") == env.count("PATH=/bin") == 1
    aliases = await dock.inspect("{{json .NetworkSettings.Networks.shopnet.Aliases}}")
    assert '"till"' in aliases
    assert before.identity[:12] not in aliases
    assert await dock.inspect("{{json .HostConfig.PortBindings}}") != "{}"
    assert (await one_of(platform)).port not in (0, 80)


async def test_what_an_image_says_by_itself_is_taken_from_the_image_rolled_back_to(
    dock: DockerBed,
) -> None:
    await dock.docker("create", "--name", "model", "shop:1")
    changes = ("--change", 'CMD ["httpd", "-f", "-p", "80"]', "--change", "ENV MODE=new")
    await dock.docker("commit", *changes, "model", "shop:2")
    await dock.docker("rm", "model")
    await dock.run("--stop-timeout", "1", image="shop:2")
    platform = dock.build()
    old = await dock.docker("image", "inspect", "--format", "{{.Id}}", "shop:1")
    await platform.execute(rollback_of(await one_of(platform), old), epoch=EPOCH)
    assert await dock.inspect("{{.Config.Cmd}}") == "[serve]"
    assert "MODE" not in await dock.inspect("{{json .Config.Env}}")


async def test_each_replica_is_rolled_back_by_itself(dock: DockerBed) -> None:
    platform, old = await deployed(dock)
    await platform.observe()
    await platform.execute(scaling(ActionKind.SCALE_UP, 1, 2), epoch=EPOCH)
    first, second = (await seen(platform, InstanceState.RUNNING, 2)).instances
    await platform.execute(rollback_of(second, old), epoch=EPOCH)
    between = await platform.observe()
    assert [one.revision for one in between.instances] == [first.revision, old]
    await platform.execute(rollback_of(first, old), epoch=EPOCH)
    after = await platform.observe()
    assert [one.revision for one in after.instances] == [old, old]
    assert (after.revision, after.desired) == (old, 2)


async def test_a_container_known_by_its_id_is_still_found_after_a_rollback(dock: DockerBed) -> None:
    platform, old = await deployed(dock)
    by_id = dock.build(container=(await dock.inspect("{{.Id}}"))[:12])
    await by_id.execute(rollback_of(await one_of(by_id), old), epoch=EPOCH)
    await by_id.complete(rollback_of(await one_of(by_id), old), epoch=EPOCH)
    assert (await one_of(by_id)).revision == (await one_of(platform)).revision == old


async def test_a_container_that_removes_itself_cannot_be_rolled_back(dock: DockerBed) -> None:
    platform, _ = await deployed(dock, "--rm")
    await platform.observe()
    assert ActionKind.ROLLBACK not in platform.capabilities
