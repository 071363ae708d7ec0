"""What a service manager hears of us, on a socket as it makes one."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunella.runtime.systemd import ServiceManager
from prunella.testing.stepped import SteppedClock


@pytest.fixture(params=["a path", "an abstract name"])
def ear(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """The socket, and its address as the environment says it."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        abstract = request.param != "a path"
        listening.bind(f"\0{name}" if abstract else name)
        listening.setblocking(False)  # noqa: FBT003
        yield listening, f"@{name}" if abstract else name


def heard(listening: socket.socket) -> list[str]:
    found: list[str] = []
    try:
        while True:
            found.append(listening.recv(4096).decode())
    except BlockingIOError:
        return found


def test_it_hears_what_is_said_and_what_we_start_does_not_know_of_it(
    ear: tuple[socket.socket, str],
) -> None:
    listening, address = ear
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    manager = ServiceManager.taken_from(environ)
    manager.tell("READY=1")
    assert heard(listening) == ["READY=1"]
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    ("extra", "beats"),
    [
        ({"WATCHDOG_USEC": "4000000"}, 6),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}, 6),
        ({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, 0),
        ({}, 0),
    ],
    ids=["asked", "asked of us", "asked of another", "not asked"],
)
async def test_it_is_told_at_half_the_time_that_we_live_if_it_asks_us(
    ear: tuple[socket.socket, str],
    clock: SteppedClock,
    begin: Any,
    extra: dict[str, str],
    beats: int,
) -> None:
    listening, address = ear
    begin(ServiceManager.taken_from({"NOTIFY_SOCKET": address, **extra}).beat(clock))
    await clock.elapse(11)
    assert heard(listening) == ["WATCHDOG=1"] * beats


async def test_where_nobody_asks_or_listens_nothing_happens(
    clock: SteppedClock, tmp_path: Path
) -> None:
    ServiceManager.taken_from({}).tell("READY=1")
    await ServiceManager.taken_from({"WATCHDOG_USEC": "4000000"}).beat(clock)
    ServiceManager(str(tmp_path / "nobody")).tell("READY=1")


def test_one_that_does_not_read_holds_us_up_no_longer_than_it_takes_to_see(
    tmp_path: Path,
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "deaf"))
        manager = ServiceManager(str(tmp_path / "deaf"))
        for _ in range(1000):
            manager.tell("WATCHDOG=1")
        listening.setblocking(False)  # noqa: FBT003
        assert 0 < len(heard(listening)) < 1000
