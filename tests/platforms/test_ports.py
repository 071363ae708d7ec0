"""A port for each replica: found free, told to it, and kept for as long as nobody else has it."""

import json
import os
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.platforms.conftest import LOOP, Bed, Only, Until

from prunella.core.model import Action, ActionKind, Epoch, InstanceState, ServiceId
from prunella.errors import TransientError
from prunella.platforms.process import ProcessPlatform, ProcessSpec
from prunella.testing.site import free_port

RESTART = Action(ActionKind.RESTART, ServiceId("web"))
SAY = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]), flush=True)"
COMMAND = [sys.executable, "-c", f"{SAY}\n{LOOP}", "{port}", "${port}", "a{port}b"]
SERVER = (
    "import socket, sys",
    "server = socket.create_server(('127.0.0.1', int(sys.argv[1])))",
    "while True: server.accept()[0].close()",
)


async def ports_of(platform: ProcessPlatform) -> list[int]:
    return [instance.port for instance in (await platform.observe()).instances]


def of_one(port: int) -> str:
    return f"{port}-{port}"


@pytest.fixture
def pair() -> tuple[int, int]:
    """Two free ports beside each other."""
    first = free_port(2)
    return first, first + 1


async def test_a_replica_is_told_its_port_and_says_where_it_answers(bed: Bed, until: Until) -> None:
    platform = bed.build(command=COMMAND, replicas=2, env={"LISTEN": "127.0.0.1:{port}"})
    await platform.ensure()
    await until(lambda: bed.log(0).endswith("\n") and bed.log(1).endswith("\n"))
    instances = (await platform.observe()).instances
    assert instances[0].port != instances[1].port
    for number, instance in enumerate(instances):
        argv, env = json.loads(bed.log(number))
        assert instance.address == "127.0.0.1"
        assert argv == [f"{instance.port}", "${port}", f"a{instance.port}b"]
        assert env["PRUNELLA_PORT"] == f"{instance.port}"
        assert env["LISTEN"] == f"127.0.0.1:{instance.port}"


async def test_who_asks_for_no_port_is_given_none(bed: Bed, until: Until, only: Only) -> None:
    platform = bed.build(SAY, LOOP)
    await platform.ensure()
    await until(bed.log)
    assert (await only(platform)).port == 0
    assert "PRUNELLA_PORT" not in json.loads(bed.log())[1]


async def test_a_restart_keeps_the_port(bed: Bed) -> None:
    platform = bed.build(command=COMMAND, replicas=2)
    await platform.ensure()
    before = await ports_of(platform)
    await platform.execute(RESTART, epoch=Epoch(1))
    assert await ports_of(platform) == before


@pytest.mark.parametrize("on_exit", ["stop", "leave"])
async def test_the_next_prunella_knows_the_port(bed: Bed, on_exit: str) -> None:
    platform = bed.build(command=COMMAND, on_exit=on_exit)
    await platform.ensure()
    before = await ports_of(platform)
    await platform.shutdown()
    await platform.close()
    heir = bed.build(command=COMMAND, on_exit=on_exit)
    await heir.ensure()
    assert await ports_of(heir) == before


async def test_the_port_of_a_run_that_was_not_recorded_is_read_from_the_run(bed: Bed) -> None:
    platform = bed.build(command=COMMAND)
    (bed.folder / "0.json.new").mkdir(parents=True)
    await platform.ensure()
    before = await ports_of(platform)
    await platform.close()
    (bed.folder / "0.json.new").rmdir()
    heir = bed.build(command=COMMAND)
    await heir.ensure()
    assert await ports_of(heir) == before != [0]


async def test_a_port_that_somebody_else_has_by_now_is_given_up(
    bed: Bed, only: Only, until: Until
) -> None:
    platform = bed.build(command=COMMAND)
    await platform.ensure()
    before = await only(platform)
    os.kill(before.pids[0], signal.SIGKILL)
    await until(lambda: bed.facts)
    with socket.create_server(("127.0.0.1", before.port)):
        await platform.execute(RESTART, epoch=Epoch(1))
    after = await only(platform)
    assert after.state is InstanceState.RUNNING
    assert after.port not in (0, before.port)


async def test_connections_that_have_ended_do_not_cost_a_replica_its_port(
    bed: Bed, only: Only, until: Until
) -> None:
    platform = bed.build(command=[sys.executable, "-c", "\n".join(SERVER), "{port}"])
    await platform.ensure()
    port = (await only(platform)).port

    def ended_by_the_server() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port)) as guest:
                return guest.recv(1) == b""
        except ConnectionRefusedError:
            return False

    await until(ended_by_the_server)
    await platform.execute(RESTART, epoch=Epoch(1))
    assert (await only(platform)).port == port


async def test_a_port_of_another_user_of_this_machine_is_passed_over(
    bed: Bed, pair: tuple[int, int]
) -> None:
    first, last = pair
    for address in ("127.0.0.1", "0.0.0.0", "::1", "::"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for taken, free in ((first, last), (last, first)):
            with closing(socket.create_server((address, taken), family=family)):
                platform = bed.build(command=COMMAND, ports=f"{first}-{last}")
                await platform.ensure()
                assert await ports_of(platform) == [free]
            await platform.stop()
            await platform.close()
            (bed.folder / "0.json").unlink()


async def test_two_services_that_start_together_get_different_ports(
    bed: Bed, tmp_path: Path, pair: tuple[int, int]
) -> None:
    """Nobody listens yet when the second one looks."""
    other = Bed(tmp_path / "other")
    ports = f"{pair[0]}-{pair[1]}"
    one, two = bed.build(command=COMMAND, ports=ports), other.build(command=COMMAND, ports=ports)
    await one.ensure()
    await two.ensure()
    assert {*await ports_of(one), *await ports_of(two)} == set(pair)
    await other.end()


async def test_a_port_goes_back_to_all_when_its_replica_is_let_go(bed: Bed, tmp_path: Path) -> None:
    other, port = Bed(tmp_path / "other"), free_port()
    one = bed.build(command=COMMAND, ports=of_one(port))
    await one.ensure()
    await one.stop()
    await one.close()
    two = other.build(command=COMMAND, ports=of_one(port))
    await two.ensure()
    assert await ports_of(two) == [port]
    await other.end()


async def test_without_a_free_port_a_start_fails_with_the_reason(bed: Bed, only: Only) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as stranger:
        port = stranger.getsockname()[1]
        platform = bed.build(command=COMMAND, ports=of_one(port))
        (word,) = await platform.ensure()
        assert word == f"could not start 0: no free port from {port} to {port}"
        assert (await only(platform)).state is InstanceState.EXITED
        with pytest.raises(TransientError, match="no free port"):
            await platform.execute(RESTART, epoch=Epoch(1))
    await platform.execute(RESTART, epoch=Epoch(1))
    assert await ports_of(platform) == [port]


@pytest.mark.parametrize("ports", ["9000", "9010-9000", "0-10", "9000-65536", "a-b", 9000, [1, 2]])
def test_what_is_no_range_of_ports_is_refused(ports: object) -> None:
    with pytest.raises(ValidationError, match="such as 9000-9010"):
        ProcessSpec.model_validate({"command": ["true"], "ports": ports})


def test_fewer_ports_than_replicas_are_refused_where_each_needs_one() -> None:
    fields = {"ports": "9000-9001", "replicas": 3}
    with pytest.raises(ValidationError, match="3 replicas need a port each, but ports has 2"):
        ProcessSpec.model_validate({"command": ["serve", "{port}"], **fields})
    ProcessSpec.model_validate({"command": ["serve", "${port}"], **fields})
