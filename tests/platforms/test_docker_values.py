"""What the Engine's words mean, without an Engine."""

import pytest

from prunella.core.model import InstanceState
from prunella.errors import PermanentError
from prunella.platforms._docker_api import Address
from prunella.platforms._docker_container import Container, Culprit, Trail, judge, read_container
from prunella.platforms._docker_roster import Roster, Row
from prunella.platforms.docker import SameAs
from prunella.runtime.clock import SystemClock

Words = dict[str, object]


def container(status: str = "exited", code: int = 0, **state: object) -> Container:
    return read_container(
        {
            "Id": "c" * 64,
            "Name": "/shop",
            "Image": "sha256:1",
            "Created": "2026-01-01T00:00:00Z",
            "State": {"Status": status, "ExitCode": code, "StartedAt": "2026-01-01T00:00:01Z"}
            | state,
            "Config": {"Labels": None, "StopSignal": "SIGUSR1"},
            "HostConfig": {"NetworkMode": "default", "PortBindings": None},
            "NetworkSettings": {"Ports": {}, "Networks": {}},
        }
    )


def trail(*events: str) -> Trail:
    followed = Trail()
    for event in events:
        action, _, signal = event.partition(" ")
        followed.follow(action, {"signal": signal})
    return followed


@pytest.mark.parametrize(
    ("one", "events", "culprit", "state"),
    [
        (container("running"), "", None, InstanceState.RUNNING),
        (container("restarting", 1), "", None, InstanceState.EXITED),
        (container("paused"), "", None, InstanceState.STOPPED),
        (container("removing"), "", None, InstanceState.STOPPED),
        (container("created"), "", None, InstanceState.STOPPED),
        (container("created", Error="port is taken"), "", None, InstanceState.EXITED),
        (container("dead", 1), "", None, InstanceState.EXITED),
        (container(code=137), "die", None, InstanceState.EXITED),
        (container(code=137), "kill 9,die", None, InstanceState.STOPPED),
        (container(code=137), "kill 15,kill 9,die,stop", None, InstanceState.STOPPED),
        (container(code=0), "kill 15,die,stop", None, InstanceState.STOPPED),
        (container(code=1), "kill 10,die", None, InstanceState.STOPPED),
        (container(code=1), "kill SIGUSR1,die", None, InstanceState.STOPPED),
        (container(code=1), "kill 12,die", None, InstanceState.EXITED),
        (container(code=1), "kill HUP,die", None, InstanceState.EXITED),
        (container(code=1), "kill,die", None, InstanceState.EXITED),
        (container(code=137), "kill 9,die,start,die", None, InstanceState.EXITED),
        (container(code=137, OOMKilled=True), "kill 9,die", None, InstanceState.EXITED),
        (container(code=137), "kill 9,die", Culprit.PRUNELLA, InstanceState.EXITED),
        (container(code=137), "kill 9,die", Culprit.ENGINE, InstanceState.EXITED),
        (container(code=0), "", None, InstanceState.STOPPED),
        (container(code=143), "", None, InstanceState.STOPPED),
        (container(code=137), "", None, InstanceState.STOPPED),
        (container(code=1), "", None, InstanceState.EXITED),
    ],
)
def test_in_doubt_an_end_was_somebodys_wish(
    one: Container, events: str, culprit: Culprit | None, state: InstanceState
) -> None:
    followed = trail(*(event for event in events.split(",") if event))
    assert judge(one, followed, culprit).state is state


def test_a_stop_signal_may_be_a_real_time_one() -> None:
    asked = trail("kill 37")
    assert asked.was_asked_to_end("SIGRTMIN+3")
    assert not asked.was_asked_to_end("RTMIN")
    assert not asked.was_asked_to_end("")


def test_an_id_that_several_containers_begin_with_is_nobodys() -> None:
    roster = Roster(Address("unix:///none", 1.0), SystemClock())
    for one in ("abcd1", "abcd2", "abce3"):
        roster._put(Row(one, f"name-{one}", {}))
    crew = SameAs("abcd", "web")
    with pytest.raises(PermanentError, match="2 containers have an id like abcd"):
        crew.places(roster)
    assert [place.instance for place in SameAs("abce", "web").places(roster)] == ["name-abce3"]
