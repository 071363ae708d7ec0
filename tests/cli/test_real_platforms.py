"""``init``, ``check`` and ``platforms`` on the real thing: written down, examined, and gone."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.real.engine import Engine
from tests.real.images import make_image
from tests.real.kubernetes import Kubernetes, deployment
from tests.real.systemd import Systemd

from prunella.kube.kinds import DEPLOYMENT
from prunella.testing.kube import FakeCluster

UNIT = """\
[Service]
ExecStart=/bin/sleep 600
Restart=always
"""


@pytest.fixture
def on_docker(alone: Any, docker: Engine) -> Any:
    make_image(docker, "shop:1")
    alone.environ["DOCKER_HOST"] = f"unix://{docker.socket}"
    return alone


def services(prunella: Any, file: str = "made.yaml") -> dict[str, Any]:
    done = prunella("check", file, "--json")
    assert done.returncode == 0, done.stdout
    return {service["id"]: service for service in json.loads(done.stdout)["services"]}


def reachable(prunella: Any, kind: str) -> Any:
    told = json.loads(prunella("platforms", "--json").stdout)
    return next(one["reachable"] for one in told if one["kind"] == kind)


def test_containers_are_written_down_and_a_missing_one_is_a_fault(
    on_docker: Any, docker: Engine
) -> None:
    assert reachable(on_docker, "docker") is True
    docker.docker("run", "--detach", "--name", "Shop_1", "--publish", "127.0.0.1::80", "shop:1")
    docker.docker("run", "--detach", "--name", "worker", "--restart", "always", "shop:1")
    assert on_docker("init", "docker", "-o", "made.yaml").returncode == 0
    assert set(services(on_docker)) == {"shop_1", "worker"}
    assert services(on_docker)["shop_1"]["probes"] == ["http"]
    done = on_docker("check", "made.yaml")
    (warning,) = [line for line in done.stderr.splitlines() if "always" in line]
    assert ": warning: " in warning
    docker.docker("rm", "--force", "Shop_1")
    done = on_docker("check", "made.yaml")
    assert done.returncode == 2
    (fault,) = [line for line in done.stderr.splitlines() if ": warning: " not in line]
    line = int(fault.split(":")[1])
    text = (on_docker.folder / "made.yaml").read_text().splitlines()
    assert text[line - 1].strip() == "docker: {container: Shop_1}"
    assert on_docker("check", "--offline", "made.yaml").returncode == 0


def test_an_engine_that_is_not_there_is_said_at_once(on_docker: Any) -> None:
    on_docker.environ["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    assert reachable(on_docker, "docker") is False
    done = on_docker("init", "docker")
    assert (done.returncode, done.stdout) == (1, "")
    assert "/nowhere/docker.sock" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_project_of_compose_is_written_down_service_by_service(
    on_docker: Any, docker: Engine
) -> None:
    for number in (1, 2):
        labels = {"project": "shop", "service": "web", "container-number": number, "oneoff": False}
        words = [f"--label=com.docker.compose.{name}={value}" for name, value in labels.items()]
        docker.docker("run", "--detach", "--name", f"shop-web-{number}", *words, "shop:1")
    assert on_docker("init", "compose", "-o", "made.yaml").returncode == 0
    assert set(services(on_docker)) == {"shop-web"}
    empty = on_docker("init", "docker")
    assert empty.returncode == 1
    assert empty.stderr == "nothing runs on docker that could be looked after\n"


def test_services_of_a_swarm_are_written_down(alone: Any, swarm: Engine) -> None:
    make_image(swarm, "shop:1")
    swarm.docker("service", "create", "--detach", "--name", "shop_web", "shop:1")
    alone.environ["DOCKER_HOST"] = f"unix://{swarm.socket}"
    end = time.monotonic() + 60
    while alone("init", "swarm", "-o", "made.yaml", "--force").returncode != 0:
        assert time.monotonic() < end
    assert set(services(alone)) == {"shop_web"}


def test_units_are_written_down_and_a_second_owner_is_a_warning(
    alone: Any, systemd: Systemd
) -> None:
    systemd.write_unit("shop.service", UNIT)
    systemd.systemctl("start", "shop.service")
    alone.environ["DBUS_SYSTEM_BUS_ADDRESS"] = systemd.address()
    assert reachable(alone, "systemd") is True
    assert alone("init", "systemd", "-o", "made.yaml").returncode == 0
    assert "shop" in services(alone)
    done = alone("check", "made.yaml")
    assert any("Restart=always" in line for line in done.stderr.splitlines())


async def test_workloads_of_a_cluster_are_written_down_and_examined(
    alone: Any, tmp_path: Path
) -> None:
    async with FakeCluster() as fake:
        alone.environ["KUBECONFIG"] = str(fake.kubeconfig(tmp_path))
        person = Kubernetes(tmp_path / "kubeconfig")
        path = "/apis/apps/v1/namespaces/default"
        for body in (deployment("shop", "shop:1"), deployment("odd", "odd:1", readinessProbe=None)):
            await asyncio.to_thread(person.call, "POST", f"{path}/deployments", body)
        kept = {"labels": {"app.kubernetes.io/managed-by": "Helm"}}
        await asyncio.to_thread(person.merge, f"{path}/deployments/odd", {"metadata": kept})
        assert await asyncio.to_thread(reachable, alone, "kubernetes") is True
        done = await asyncio.to_thread(alone, "init", "kubernetes", "-o", "made.yaml")
        assert done.returncode == 0, done.stderr
        text = (alone.folder / "made.yaml").read_text()
        assert "http://{address}:{port}/" in text
        assert "Helm looks after it" in text
        found = await asyncio.to_thread(services, alone)
        assert {name: one["probes"] for name, one in found.items()} == {"odd": [], "shop": ["http"]}
        done = await asyncio.to_thread(
            alone, "init", "kubernetes", "--policies", "-o", "policies.yaml"
        )
        assert "2 policies; read it, then: kubectl apply -f policies.yaml" in done.stdout
        written = (alone.folder / "policies.yaml").read_text()
        odd, shop = yaml.safe_load_all(written)
        assert shop["spec"]["target"] == {"kind": "Deployment", "name": "shop"}
        assert "# Helm looks after it" in written
        assert odd["metadata"] == {"name": "odd", "namespace": "default"}
        done = await asyncio.to_thread(alone, "check", "made.yaml")
        assert "Helm looks after it and would undo a rollback" in done.stderr
        fake.drop(DEPLOYMENT, "shop")
        done = await asyncio.to_thread(alone, "check", "made.yaml")
        assert done.returncode == 2
        assert "there is no Deployment shop in namespace default" in done.stderr
    assert await asyncio.to_thread(reachable, alone, "kubernetes") is False
