"""The components that other tests rely on: they do what is expected of them, and leave nothing."""

import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from tests.real.engine import Engine, running
from tests.real.images import Release, make_image, tell
from tests.real.slot import Slot, claimed, run
from tests.real.systemd import Bus, Systemd, booted
from tests.real.tls import certify, listen

from prunella.testing.site import free_port, until

pytestmark = pytest.mark.usefixtures("docker")  # which knows whether any can run here


def ask(port: int) -> tuple[int, str]:
    """The status and the version that a server answers with; 0 when none does."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return answer.status, answer.read().decode().strip()
    except HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode().strip()
    except OSError:
        return 0, ""


def serve(engine: Engine, image: str = "") -> int:
    """Start the container `shop` and wait until it answers; its port."""
    if not image:
        make_image(engine, image := "shop:1")
    port = free_port()
    publish = ("--publish", f"127.0.0.1:{port}:80")
    engine.docker("run", "--detach", "--name", "shop", *publish, image)
    assert until(lambda: ask(port)[0])
    return port


def test_two_engines_run_side_by_side_and_leave_nothing(docker: Engine) -> None:
    with running() as other:
        port = serve(other)
        assert ask(port) == (200, "1")
        assert len(other.slot.pids()) > 3
        assert docker.docker("ps", "--quiet") == ""
    assert other.slot.traces() == []
    assert docker.answers()


def test_a_server_answers_as_it_is_told_until_it_starts_again(docker: Engine) -> None:
    port = serve(docker)
    tell(port, status=503)
    assert ask(port) == (503, "1")
    docker.docker("restart", "shop")
    assert until(lambda: ask(port) == (200, "1"))


def test_a_bad_release_is_another_image_of_the_same_name(docker: Engine) -> None:
    good = make_image(docker, "shop:latest")
    bad = make_image(docker, "shop:latest", Release("2", status=500, healthcheck=True))
    port = serve(docker, "shop:latest")
    assert ask(port) == (500, "2")
    health = ("inspect", "--format", "{{.State.Health.Status}}", "shop")
    assert until(lambda: docker.docker(*health) == "unhealthy")
    docker.docker("rm", "--force", "shop")
    docker.docker("rmi", bad)
    assert docker.docker("images", "--all", "--quiet", "--no-trunc").split() == [good]


def test_a_release_can_end_at_its_start(docker: Engine) -> None:
    make_image(docker, "shop:3", Release("3", crashes=7))
    docker.docker("create", "--name", "shop", "shop:3")
    docker.docker("start", "shop")
    assert docker.docker("wait", "shop") == "7"


def test_a_container_that_takes_too_much_memory_is_killed_and_said_to_be(docker: Engine) -> None:
    make_image(docker, "shop:1")
    limits = ("--memory", "20m", "--memory-swap", "20m")
    greedy = ("sh", "-c", "x=xxxxxxxx; while :; do x=$x$x; done")
    docker.docker("run", "--detach", "--name", "shop", *limits, "shop:1", *greedy)
    assert docker.docker("wait", "shop") == "137"
    assert docker.docker("inspect", "--format", "{{.State.OOMKilled}}", "shop") == "true"


@pytest.mark.parametrize("options", [(), ("--live-restore",)], ids=["as usual", "live restore"])
def test_containers_outlive_a_killed_daemon_until_it_starts_again(options: tuple[str]) -> None:
    with running(*options) as engine:
        serve(engine)
        server = int(engine.docker("inspect", "--format", "{{.State.Pid}}", "shop"))
        engine.kill()
        assert not engine.answers()
        assert server in engine.slot.pids()
        engine.start()
        assert until(lambda: (server in engine.slot.pids()) == bool(options))
        assert bool(engine.docker("ps", "--quiet")) == bool(options)


def test_an_engine_over_tls_knows_its_clients(tmp_path: Path) -> None:
    certify(tmp_path)
    port = free_port()
    with running(*listen(tmp_path, port)) as engine:
        host = ("--host", f"tcp://127.0.0.1:{port}", "--tlsverify")
        ours = (f"--tlscacert={tmp_path / 'ca.pem'}", f"--tlscert={tmp_path / 'cert.pem'}")
        assert engine.docker(*host, *ours, f"--tlskey={tmp_path / 'key.pem'}", "ps", "-q") == ""
        with pytest.raises(RuntimeError, match="certificate"):
            engine.docker(*host, ours[0], "ps")


def test_an_engine_is_as_new_after_each_test(docker: Engine) -> None:
    serve(docker)
    docker.docker("network", "create", "shop")
    docker.docker("volume", "create", "shop")
    docker.kill()
    docker.clean()
    lists = (("ps", "--all"), ("images", "--all"), ("volume", "ls"))
    assert [docker.docker(*words, "--quiet") for words in lists] == ["", "", ""]
    names = docker.docker("network", "ls", "--format", "{{.Name}}").split()
    assert sorted(names) == ["bridge", "host", "none"]


def test_what_a_killed_test_run_left_is_removed_by_the_next() -> None:
    code = "import signal; from tests.real.engine import running\nwith running() as engine:\n"
    code += "    print(engine.slot.number, flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as lost:
        assert lost.stdout is not None
        slot = Slot(int(lost.stdout.readline()))
        lost.kill()
    left = set(slot.pids())
    assert len(left) == 2
    with claimed():
        assert until(lambda: not left & set(slot.pids()))


def test_a_swarm_replaces_a_task_and_its_engine_comes_back(swarm: Engine) -> None:
    make_image(swarm, "shop:1")
    port = free_port()
    publish = ("--publish", f"mode=host,published={port},target=80")
    restart = ("--restart-delay", "100ms")
    swarm.docker("service", "create", "--detach", "--name", "shop", *publish, *restart, "shop:1")
    assert until(lambda: ask(port) == (200, "1"))
    (first,) = swarm.docker("ps", "--quiet").split()
    swarm.docker("kill", first)
    assert until(lambda: ask(port) == (200, "1"))
    assert swarm.docker("ps", "--quiet") != first
    swarm.kill()
    swarm.start()
    assert until(lambda: ask(port) == (200, "1"))


def test_two_swarms_run_side_by_side_and_leave_nothing(swarm: Engine) -> None:
    with running() as other:
        other.begin_swarm()
        make_image(other, "shop:1")
        other.docker("service", "create", "--detach", "--replicas", "2", "shop:1")
        assert until(lambda: len(other.docker("ps", "--quiet").split()) == 2)
        assert swarm.docker("service", "ls", "--quiet") == ""
    assert other.slot.traces() == []


@pytest.mark.parametrize("bus", ["system", "user"])
def test_systemd_answers_on_its_buses(systemd: Systemd, bus: Bus) -> None:
    systemd.write_unit("shop.service", "[Service]\nExecStart=/bin/sleep infinity\n", bus=bus)
    systemd.systemctl("start", "shop.service", bus=bus)
    name = "org.freedesktop.systemd1"
    call = ("call", name, "/org/freedesktop/systemd1", f"{name}.Manager", "GetUnit", "s")
    said = run("busctl", f"--address={systemd.address(bus)}", *call, "shop.service")
    assert said == 'o "/org/freedesktop/systemd1/unit/shop_2eservice"\n'


def test_systemd_restarts_what_it_shall_and_gives_up_at_its_limit(systemd: Systemd) -> None:
    unit = "[Unit]\nStartLimitBurst=2\n[Service]\nRestart=always\nExecStart=%s\n"
    systemd.write_unit("shop.service", unit % "/bin/sleep infinity")
    systemd.write_unit("broken.service", unit % "/bin/false")
    systemd.systemctl("start", "shop.service", "broken.service")
    systemd.systemctl("kill", "--signal", "KILL", "shop.service")
    assert until(lambda: systemd.show("shop.service", "NRestarts") == "1")
    assert until(lambda: systemd.show("shop.service", "ActiveState") == "active")
    assert until(lambda: systemd.show("broken.service", "ActiveState") == "failed")


def test_units_of_a_template_listen_on_ports_that_tests_reach(systemd: Systemd) -> None:
    ports = [free_port(), free_port()]
    serve = "/bin/busybox httpd -f -p 127.0.0.1:%i -h /etc"
    systemd.write_unit("app@.service", f"[Service]\nExecStart={serve}\n")
    systemd.systemctl("start", *(f"app@{port}.service" for port in ports))
    assert until(lambda: all(ask(port)[0] == 404 for port in ports))


def test_a_second_systemd_leaves_nothing_and_spoils_nothing(systemd: Systemd) -> None:
    hierarchies = Path("/proc/self/cgroup").read_text()
    with running() as engine, booted(engine) as other:
        other.write_unit("shop.service", "[Service]\nExecStart=/bin/sleep infinity\n")
        other.systemctl("start", "shop.service")
        with pytest.raises(RuntimeError, match="could not be found"):
            systemd.systemctl("status", "shop.service")
        assert Path("/proc/self/cgroup").read_text() == hierarchies
    assert engine.slot.traces() == []
