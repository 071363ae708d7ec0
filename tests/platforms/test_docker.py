"""Containers of a real Engine: how they end, what they tell, and what can be done to which."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.platforms.docker_bed import (
    EPOCH,
    SERVICE,
    DockerBed,
    kill,
    met,
    one_of,
    restart_of,
    scaling,
    seen,
)
from tests.real.engine import Engine, running
from tests.real.images import Release, make_image
from tests.real.tls import certify, listen

from prunella.core.model import ActionKind, FactKind, InstanceState, Scope, Verdict
from prunella.errors import PermanentError
from prunella.platforms.docker import PLUGIN, DockerPlatform, DockerSpec
from prunella.plugins import PlatformContext, probes
from prunella.runtime.clock import SystemClock
from prunella.testing.site import free_port

HTTPD = ("httpd", "-f", "-p", "80")  # as the first process: deaf to SIGTERM


@pytest.mark.parametrize(
    ("how", "state"),
    [
        (("stop", "--time", "1"), InstanceState.STOPPED),
        (("kill",), InstanceState.STOPPED),
        (("kill", "--signal", "TERM"), InstanceState.STOPPED),
        (("pause",), InstanceState.STOPPED),
        (("exec", "--detach", "shop", "kill", "-TERM", "1"), InstanceState.EXITED),
    ],
    ids=["stop", "kill", "kill TERM", "pause", "by itself"],
)
async def test_only_an_end_that_nobody_asked_for_is_a_fault(
    dock: DockerBed, how: tuple[str, ...], state: InstanceState
) -> None:
    await dock.run()
    platform = dock.build()
    await one_of(platform)
    await dock.docker(*how, *(() if "shop" in how else ("shop",)))
    await seen(platform, state)
    assert (FactKind.EXITED in dock.told()) is (state is InstanceState.EXITED)
    if how == ("pause",):
        await dock.docker("unpause", "shop")


async def test_a_signal_that_does_not_mean_an_end_does_not_excuse_a_later_one(
    dock: DockerBed,
) -> None:
    await dock.run(command=HTTPD)
    platform = dock.build()
    before = await one_of(platform)
    await dock.docker("kill", "--signal", "WINCH", "shop")
    kill(before)
    await seen(platform, InstanceState.EXITED)


async def test_the_stop_signal_of_the_container_means_an_end(dock: DockerBed) -> None:
    await dock.run(
        "--stop-signal", "USR1", command=("sh", "-c", "trap 'exit 7' USR1; sleep 99 & wait")
    )
    platform = dock.build()
    await one_of(platform)
    await dock.docker("kill", "--signal", "USR1", "shop")
    await seen(platform, InstanceState.STOPPED)


async def test_a_person_who_starts_it_again_ends_their_wish(dock: DockerBed) -> None:
    await dock.run()
    platform = dock.build()
    await dock.docker("stop", "shop")
    await seen(platform, InstanceState.STOPPED)
    await dock.docker("start", "shop")
    again = (await seen(platform, InstanceState.RUNNING)).instances[0]
    assert FactKind.STARTED in dock.told()
    kill(again)
    await seen(platform, InstanceState.EXITED)


async def test_a_stop_from_before_our_time_is_known_from_the_memory_of_the_engine(
    dock: DockerBed,
) -> None:
    await dock.run()
    await dock.docker("stop", "shop")
    platform = dock.build()
    assert (await one_of(platform)).state is InstanceState.STOPPED
    await dock.docker("start", "shop")
    pid = int(await dock.inspect("{{.State.Pid}}"))
    await platform.close()
    os.kill(pid, 9)
    await dock.docker("wait", "shop")
    assert (await one_of(dock.build())).state is InstanceState.EXITED


async def test_an_out_of_memory_kill_is_told_as_such(dock: DockerBed) -> None:
    await dock.run(
        *("--memory", "20m", "--memory-swap", "20m"),
        command=("sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done"),
    )
    ended = (await seen(dock.build(), InstanceState.EXITED)).instances[0]
    assert ended.detail == "out of memory, exit code 137"


async def test_a_healthcheck_is_evidence_and_its_change_a_fact(dock: DockerBed) -> None:
    make_image(dock.engine, "shop:h", Release(healthcheck=True))
    await dock.run(image="shop:h")
    platform = dock.build()
    assert (await one_of(platform)).verdict is None
    await dock.until_told(FactKind.VERDICT)
    assert (await one_of(platform)).verdict is Verdict.PASS
    dock.facts.clear()
    await dock.docker("exec", "shop", "sh", "-c", "printf 'status=500' > /run/site")
    await dock.until_told(FactKind.VERDICT)
    assert (await one_of(platform)).verdict is Verdict.FAIL


async def test_restarts_by_docker_itself_are_counted_and_one_is_left_to_it(dock: DockerBed) -> None:
    await dock.run("--restart", "always")
    platform = dock.build()
    before = await one_of(platform)
    kill(before)
    ended = await dock.until_told(FactKind.EXITED)
    assert "Docker is to restart it" in ended.detail
    await platform.execute(restart_of(before), epoch=EPOCH)
    after = await one_of(platform)
    assert (after.state, after.restart_count) == (InstanceState.RUNNING, 1)
    assert dock.proxy.asked == []


async def test_a_restart_respects_the_stop_timeout(dock: DockerBed) -> None:
    await dock.run("--stop-timeout", "2", command=HTTPD)
    platform = dock.build(timeout=1)
    before = await one_of(platform)
    started_s = asyncio.get_running_loop().time()
    await platform.execute(restart_of(before), epoch=EPOCH)
    assert 1.9 < asyncio.get_running_loop().time() - started_s < 4
    assert (await one_of(platform)).identity != before.identity


async def test_a_run_that_ends_right_after_its_restart_is_told(dock: DockerBed) -> None:
    await dock.run("--stop-timeout", "1", command=("sh", "-c", "[ ! -e /x ] || exit 3; > /x"))
    platform = dock.build()
    first = (await seen(platform, InstanceState.EXITED)).instances[0]
    await platform.execute(restart_of(first), epoch=EPOCH)
    await met(lambda: FactKind.EXITED in dock.told())
    assert (await one_of(platform)).detail == "exit code 3"


async def test_replicas_share_what_is_named_and_have_places_of_their_own(dock: DockerBed) -> None:
    await dock.docker("network", "create", "shopnet")
    await dock.run(
        *("--network", "shopnet", "--network-alias", "till", "--publish", "80"),
        *("--volume", "stock:/stock", "--volume", "/own", "--label", "team=shop"),
    )
    platform = dock.build()
    await platform.observe()
    await platform.execute(scaling(ActionKind.SCALE_UP, 1, 3), epoch=EPOCH)
    status = await platform.observe()
    assert [one.id for one in status.instances] == ["shop", "shop-prunella-2", "shop-prunella-3"]
    assert len({(one.address, one.port) for one in status.instances}) == 3
    second = "shop-prunella-2"
    aliases = await dock.inspect("{{json .NetworkSettings.Networks.shopnet.Aliases}}", second)
    assert '"till"' in aliases
    assert '"shop"' not in aliases
    labels = await dock.inspect("{{json .Config.Labels}}", second)
    assert '"prunella.dev/service":"web"' in labels
    assert '"prunella.dev/replica":"2"' in labels
    mounts = "{{range .Mounts}}{{.Destination}}={{.Name}} {{end}}"
    ours, theirs = await dock.inspect(mounts), await dock.inspect(mounts, second)
    assert "/stock=stock" in ours
    assert "/stock=stock" in theirs
    assert ours != theirs
    await platform.execute(scaling(ActionKind.SCALE_DOWN, 3, 1), epoch=EPOCH)
    assert await dock.names() == ["shop"]
    assert FactKind.EXITED not in dock.told()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--publish", "127.0.0.1:{port}:80"), "the host's port {port}"),
        (("--network", "host", "--env", "PORT={port}"), "shares a network"),
    ],
    ids=["fixed port", "host network"],
)
async def test_what_can_be_there_only_once_cannot_be_scaled_and_says_why(
    dock: DockerBed, options: tuple[str, ...], reason: str
) -> None:
    port = free_port()
    await dock.run(*(option.format(port=port) for option in options))
    platform = dock.build()
    assert platform.capabilities[ActionKind.SCALE_UP] is Scope.SERVICE, "nothing is known yet"
    await platform.observe()
    assert set(platform.capabilities) == {ActionKind.RESTART, ActionKind.ROLLBACK}
    with pytest.raises(PermanentError):
        await platform.execute(scaling(ActionKind.SCALE_UP, 1, 2), epoch=EPOCH)
    (remark,) = await platform.examine()
    assert reason.format(port=port) in remark.message
    assert not remark.fault


async def test_what_both_would_restart_is_remarked_on(dock: DockerBed) -> None:
    await dock.run("--restart", "unless-stopped")
    (remark,) = await dock.build().examine()
    assert "Docker restarts it by itself as well" in remark.message
    assert not remark.fault


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"container": "absent"}, "there is no container absent"),
        ({"host": "unix:///no/such.sock"}, "is Docker running, and is `host` right"),
        ({"host": "tcp://127.0.0.1:1"}, "nobody answers at tcp://127.0.0.1:1"),
        ({"tls": {"ca_file": "/no/ca.pem"}, "host": "tcp://127.0.0.1:1"}, "cannot use /no/ca.pem"),
    ],
    ids=["container", "socket", "port", "certificate"],
)
async def test_what_cannot_work_is_a_fault_with_its_reason(
    dock: DockerBed, fields: dict[str, object], words: str
) -> None:
    await dock.run()
    platform = dock.build(**fields)
    (remark,) = await platform.examine()
    assert remark.fault
    assert words in remark.message


def test_a_socket_that_may_not_be_used_is_told_with_the_remedy(docker: Engine) -> None:
    code = (
        "import aiodocker, asyncio, os, sys; from prunella.platforms._docker_api import *\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: asyncio.run(DockerApi(Address(sys.argv[1], 2.0)).get('info'))\n"
        "except PermanentError as error: print(error)\n"
    )
    argv = [sys.executable, "-c", code, f"unix://{docker.socket}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "as a member of the group docker" in done.stdout, done.stderr


async def test_an_engine_is_reached_over_tls_with_both_sides_certified(tmp_path: Path) -> None:
    certify(tmp_path)
    port = free_port()
    with running(*listen(tmp_path, port)) as engine:
        make_image(engine, "shop:1")
        await asyncio.to_thread(engine.docker, "run", "-d", "--name", "shop", "shop:1")
        files = {f"{name}_file": tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}

        def build(**tls: Path) -> DockerPlatform:
            body = {"container": "shop", "host": f"tcp://127.0.0.1:{port}", "tls": tls}
            context = PlatformContext(SERVICE, SystemClock(), tmp_path, lambda _: None)
            return DockerPlatform(DockerSpec.model_validate(body), context)

        known, stranger = build(**files), build(ca_file=files["ca_file"])
        assert (await one_of(known)).state is InstanceState.RUNNING
        assert [remark.fault for remark in await stranger.examine()] == [True]
        await known.close()


async def test_an_environment_that_leads_nowhere_we_can_go_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@there")
    context = PlatformContext(SERVICE, SystemClock(), tmp_path, lambda _: None)
    platform = DockerPlatform(DockerSpec.model_validate({"container": "shop"}), context)
    (remark,) = await platform.examine()
    assert remark.fault
    assert "ssh://me@there is neither" in remark.message
    await platform.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"container": "a/b"},
        {"container": ""},
        {"host": "docker.sock"},
        {"host": "ssh://me@there"},
        {"host": "tcp://there"},
        {"timeout": 0},
        {"tls": {}},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DockerSpec.model_validate({"container": "shop"} | fields)


async def test_what_runs_can_be_surveyed_as_a_config_to_begin_with(
    dock: DockerBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", dock.proxy.host)
    port = free_port()
    await dock.run("--publish", f"127.0.0.1:{port}:80", "--restart", "always")
    await dock.docker("run", "-d", "--name", "quiet", "shop:1")
    await dock.docker("run", "-d", "--label", "com.docker.compose.project=p", "shop:1")
    assert PLUGIN.reach is not None
    assert await PLUGIN.reach(SystemClock()) == ""
    assert PLUGIN.survey is not None
    quiet, shop = await PLUGIN.survey(SystemClock())
    assert (quiet.id, quiet.section, list(quiet.probes)) == ("quiet", {"container": "quiet"}, [])
    assert shop.probes == ({"kind": "http", "url": f"http://127.0.0.1:{port}/"},)
    assert "restart: always" in shop.note
    probes()["http"].spec.model_validate({"url": shop.probes[0]["url"]})
    dock.proxy.cut()
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such.sock")
    assert "is Docker running" in await PLUGIN.reach(SystemClock())
