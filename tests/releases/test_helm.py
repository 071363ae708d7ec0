"""Helm's history, as real Helm of both generations writes it, on a fake cluster."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest
from tests.releases.conftest import Until, build, lives, remarks
from tests.releases.helm import PROGRAMS, Shop

from prunella.core.model import Epoch
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.kube.kinds import DEPLOYMENT
from prunella.kube.shared import cluster_at, leave
from prunella.releases.helm import HelmRelease, HelmSpec
from prunella.runtime.clock import SystemClock
from prunella.testing._kube_thread import Remote
from prunella.testing.kube import FakeCluster, threaded

EPOCH = Epoch(1)


class House:
    """A cluster with one release, and sources that look at it.

    Attributes:
        versions: oldest first.
    """

    def __init__(self, folder: Path, cluster: Remote[FakeCluster], **shop: Any) -> None:
        self.folder = folder
        self.cluster = cluster
        self.shop = Shop(folder, cluster.do(lambda fake: fake.kubeconfig(folder)), **shop)
        self.versions: list[str] = []

    def deploy(self, count: int, *options: str) -> None:
        """So many versions, one after the other: ``shop:1`` is the first."""
        for _ in range(count):
            self.shop.deploy(f"shop:{len(self.versions) + 1}", *options)
            self.versions.append(self.shop.version())

    def release(self, **fields: Any) -> HelmRelease:
        found = build("helm", self.folder, **{**self.shop.fields, "interval": 0.000_001, **fields})
        assert isinstance(found, HelmRelease)
        return found

    async def switch(self, release: HelmRelease, to: int, before: int) -> None:
        await release.switch(
            self.versions[to], before=self.versions[before], reason="erroring", epoch=EPOCH
        )

    def image(self) -> str:
        """That is deployed."""
        found = self.cluster.do(lambda fake: fake.find(DEPLOYMENT, "shop"))
        assert found is not None
        return str(found["spec"]["template"]["spec"]["containers"][0]["image"])

    def told(self) -> list[str]:
        """Numbers and statuses, oldest first."""
        return [f"{one['revision']} {one['status']}" for one in self.shop.history()]

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """Helm, as a person who waits for it."""
        where = ("--kubeconfig", str(self.shop.kubeconfig), "--namespace", "default")
        return subprocess.Popen(
            [str(self.shop.charts.program), *argv, *where],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @asynccontextmanager
    async def waiting(self, *argv: str, until: Until) -> AsyncIterator[subprocess.Popen[bytes]]:
        """Helm, while it waits for what never comes."""
        helm = self.start(*argv)
        try:
            await until(lambda: "pending" in self.told()[-1])
            yield helm
        finally:
            helm.kill()
            helm.wait()

    def standing_in(self, script: str) -> Path:
        """A program that does something before it is Helm, when it is to roll back."""
        path = self.folder / "helm"
        path.write_text(
            f'#!/bin/sh\n[ "$1" != rollback ] || {{ {script}; }}\n'
            f'exec {self.shop.charts.program} "$@"\n'
        )
        path.chmod(0o755)
        return path


@pytest.fixture
def cluster() -> Iterator[Remote[FakeCluster]]:
    with threaded(controllers=False) as cluster:
        yield cluster


@pytest.fixture(params=PROGRAMS)
def house(request: pytest.FixtureRequest, tmp_path: Path, cluster: Remote[FakeCluster]) -> House:
    house = House(tmp_path, cluster, package=PROGRAMS[request.param])
    house.deploy(3)
    return house


async def test_a_rollback_by_a_person_brings_back_the_version_and_not_its_number(
    house: House,
) -> None:
    release = house.release()
    assert await release.observe() == house.versions[2]
    house.shop.helm("rollback", "shop", "1")
    assert await release.observe() == house.versions[0]
    assert release.whole
    assert house.versions[0].startswith("shop-1.0.0#")


async def test_the_newest_revision_of_a_version_is_put_in_place_once_more(house: House) -> None:
    house.shop.helm("rollback", "shop", "1")
    house.shop.helm("rollback", "shop", "3")
    release = house.release()
    await house.switch(release, 0, 2)
    assert house.told()[3:] == ["4 superseded", "5 superseded", "6 deployed"]
    assert house.shop.told()[-1] == "6 deployed: Rollback to 4"
    assert (await release.observe(), house.image()) == (house.versions[0], "shop:1")


async def test_the_history_of_others_is_not_cut_off(house: House) -> None:
    house.deploy(9, "--history-max=0")
    await house.switch(house.release(), 0, 11)
    assert len(house.told()) == 13


async def test_what_the_history_has_lost_is_not_rolled_back_to(house: House) -> None:
    house.deploy(1, "--history-max=2")
    with pytest.raises(PermanentError, match=r"not in the history of release shop .*history-max"):
        await house.switch(house.release(), 0, 3)
    assert house.image() == "shop:4"


async def test_an_upgrade_that_failed_counts_and_proves_nothing(house: House) -> None:
    house.cluster.do(lambda fake: fake.deny("patch", "deployments"))
    with pytest.raises(RuntimeError, match="cannot patch"):
        house.deploy(1)
    house.versions.append(house.shop.version())
    house.cluster.do(lambda fake: fake.allow("patch", "deployments"))
    release = house.release()
    assert (await release.observe(), release.whole) == (house.versions[3], False)
    await house.switch(release, 1, 3)
    assert (await release.observe(), release.whole) == (house.versions[1], True)
    assert house.image() == "shop:2"


async def test_a_rollback_that_failed_leaves_the_version_as_it_was_and_says_why(
    house: House,
) -> None:
    release = house.release()
    house.cluster.do(lambda fake: fake.deny("patch", "deployments"))
    with pytest.raises(PermanentError, match=r"cannot patch .*revision 4 is failed"):
        await house.switch(release, 0, 2)
    assert (await release.observe(), release.whole) == (house.versions[2], False)
    house.cluster.do(lambda fake: fake.allow("patch", "deployments"))
    await house.switch(release, 0, 2)
    assert (house.image(), house.told()[-1]) == ("shop:1", "5 deployed")


async def test_who_may_not_write_the_history_leaves_no_trace(house: House) -> None:
    house.cluster.do(lambda fake: fake.deny("create", "secrets"))
    release = house.release()
    (said,) = await remarks(release)
    assert said.startswith("! rollback will fail: we may not create secrets in namespace default")
    with pytest.raises(PermanentError, match=r"cannot create .*another `driver`"):
        await house.switch(release, 0, 2)
    assert house.told() == ["1 superseded", "2 superseded", "3 deployed"]


async def test_a_person_who_upgrades_at_the_moment_of_the_rollback_is_told_of(
    house: House,
) -> None:
    where = f"--kubeconfig {house.shop.kubeconfig} --disable-openapi-validation"
    upgrade = f"{house.shop.charts.program} upgrade shop {house.shop.chart} --set image=shop:9"
    release = house.release(program=house.standing_in(f"{upgrade} {where} >/dev/null"))
    with pytest.raises(ConflictError, match=r"revision 4 .* helm rollback shop 4 --namespace"):
        await house.switch(release, 0, 2)
    assert house.told()[3:] == ["4 superseded", "5 deployed"]


async def test_an_upgrade_in_progress_is_waited_for_and_its_failure_is_taken_back(
    house: House, until: Until
) -> None:
    release = house.release()
    arguments = ("--set", "image=shop:4", "--disable-openapi-validation", "--wait", "--timeout=3s")
    argv = ("upgrade", "shop", str(house.shop.chart), *arguments)
    async with house.waiting(*argv, until=until):
        house.versions.append(house.shop.version())
        assert (await release.observe(), release.whole) == (house.versions[3], False)
        await house.switch(release, 0, 3)
    assert house.told()[3:] == ["4 failed", "5 deployed"]
    assert house.image() == "shop:1"


async def test_where_another_helm_is_quicker_its_end_is_waited_for(house: House) -> None:
    other = f"{house.shop.charts.program} rollback shop 1 --kubeconfig {house.shop.kubeconfig}"
    script = f"[ -e {house.folder}/once ] || {{ {other} >/dev/null; touch {house.folder}/once; "
    script += (
        "echo 'Error: create: secrets sh.helm.release.v1.shop.v4 already exists' >&2; exit 1; }"
    )
    release = house.release(program=house.standing_in(script))
    await house.switch(release, 0, 2)
    assert house.told()[3:] == ["4 deployed"]


async def test_what_a_killed_helm_has_left_is_not_touched_and_said(
    house: House, until: Until
) -> None:
    arguments = ("--set", "image=shop:4", "--disable-openapi-validation", "--wait")
    async with house.waiting("upgrade", "shop", str(house.shop.chart), *arguments, until=until):
        house.versions.append(house.shop.version())
    release = house.release(timeout=0.5)
    assert "revision 4 of release shop in namespace default is pending-upgrade" in (
        await remarks(release)
    )
    with pytest.raises(TransientError, match=r"pending-upgrade for 0\.5 s: .*helm rollback shop 3"):
        await house.switch(release, 0, 3)
    assert house.told()[3:] == ["4 pending-upgrade"]


async def test_a_rollback_that_was_cut_short_is_done_once_more(house: House, until: Until) -> None:
    async with house.waiting("rollback", "shop", "1", "--wait", until=until):
        pass
    release = house.release(timeout=0.5)
    assert (await release.observe(), release.whole) == (house.versions[0], False)
    await house.switch(release, 0, 2)
    assert (await release.observe(), release.whole) == (house.versions[0], True)


async def test_nothing_is_left_in_a_persons_home(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = house.folder / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    release = house.release()
    await house.switch(release, 0, 2)
    await release.examine()
    assert list(home.iterdir()) == []


async def test_what_prunella_itself_has_scaled_stands_in_the_way_of_helm_4_and_is_named(
    house: House,
) -> None:
    cluster = cluster_at(house.cluster.do(lambda fake: fake.access), SystemClock())
    body = {"spec": {"replicas": 3}}
    await cluster.patch(DEPLOYMENT, "shop", "default", body, sub="scale")
    await leave(cluster)
    release = house.release()
    if "v4" not in house.shop.charts.helm("version"):
        await house.switch(release, 0, 2)
        assert house.image() == "shop:1"
        return
    with pytest.raises(TransientError, match=r"Prunella has scaled it.*revision 4 is failed"):
        await house.switch(release, 0, 2)
    assert await release.observe() == house.versions[2]


@pytest.fixture
def quick(tmp_path: Path, cluster: Remote[FakeCluster]) -> House:
    """With the Helm of one generation, where that is no matter."""
    house = House(tmp_path, cluster)
    house.deploy(2)
    return house


async def test_a_history_in_config_maps_needs_no_right_to_secrets(
    tmp_path: Path, cluster: Remote[FakeCluster]
) -> None:
    house = House(tmp_path, cluster, driver="configmap")
    house.deploy(2)
    for verb in ("get", "list", "create", "update"):
        cluster.do(methodcaller("deny", verb, "secrets"))
    release = house.release(driver="configmap")
    assert await remarks(release) == []
    await house.switch(release, 0, 1)
    assert (await release.observe(), house.image()) == (house.versions[0], "shop:1")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "shed"}, "there is no release shed in namespace default .driver secret"),
        ({"namespace": "other"}, "there is no release shop in namespace other"),
        ({"driver": "configmap"}, "there is no release shop in .* .driver configmap.: `helm list"),
        ({"context": "nowhere"}, 'context "nowhere" does not exist: `kubectl config get-contexts'),
        ({"context": "--help"}, 'context "--help" does not exist'),
        ({"kubeconfig": "/no/such/file"}, "there is no kubeconfig /no/such/file"),
        ({"program": "helm-of-nobody"}, "command not found: helm-of-nobody"),
    ],
)
async def test_what_is_not_there_is_named_with_what_to_do(
    quick: House, fields: dict[str, str], says: str
) -> None:
    release = quick.release(**fields)
    with pytest.raises(PermanentError, match=says):
        await release.observe()
    with pytest.raises(PermanentError, match=says):
        await quick.switch(release, 0, 1)
    assert any(one.startswith("! ") for one in await remarks(release))


async def test_who_may_not_look_is_told_of_the_right_and_of_the_driver(quick: House) -> None:
    quick.cluster.do(lambda fake: fake.deny("list", "secrets"))
    with pytest.raises(PermanentError, match=r'cannot list resource "secrets".*another `driver`'):
        await quick.release().observe()


async def test_what_has_been_uninstalled_is_said(quick: House) -> None:
    quick.shop.helm("uninstall", "shop", "--keep-history")
    with pytest.raises(TransientError, match="has been uninstalled"):
        await quick.release().observe()


async def test_a_first_version_has_nothing_to_go_back_to(
    tmp_path: Path, cluster: Remote[FakeCluster]
) -> None:
    house = House(tmp_path, cluster)
    house.deploy(1)
    (said,) = await remarks(house.release())
    assert said == "release shop in namespace default has no earlier revision to roll back to yet"


async def test_helm_is_asked_no_more_often_than_it_is_told_to_be_but_in_doubt(
    quick: House,
) -> None:
    release = quick.release(interval=3600)
    await release.observe()
    quick.deploy(1)
    assert await release.observe() == quick.versions[1]
    release.doubt()
    assert await release.observe() == quick.versions[2]


async def test_a_silent_cluster_holds_nobody_up_and_no_helm_is_left_behind(
    quick: House, until: Until
) -> None:
    quick.cluster.do(FakeCluster.freeze)
    program = quick.folder / "helm"
    pids = quick.folder / "pids"
    program.write_text(f'#!/bin/sh\necho $$ >> {pids}\nexec {quick.shop.charts.program} "$@"\n')
    program.chmod(0o755)
    release = quick.release(program=program)
    async with asyncio.timeout(8):
        with pytest.raises(TransientError, match="has not told of release shop"):
            await release.observe()
    async with asyncio.timeout(3):
        await release.close()
    (pid,) = map(int, pids.read_text().split())
    await until(lambda: not lives(pid))


async def test_no_more_than_four_helms_are_run_at_once_for_one_cluster(quick: House) -> None:
    program = quick.folder / "helm"
    running, most = quick.folder / "running", quick.folder / "most"
    running.mkdir()
    program.write_text(
        f"#!/bin/sh\ntouch {running}/$$\nls {running} | wc -l >> {most}\n"
        f'{quick.shop.charts.program} "$@"\nended=$?\nrm {running}/$$\nexit $ended\n'
    )
    program.chmod(0o755)
    releases = [quick.release(program=program) for _ in range(12)]
    told = await asyncio.gather(*(release.observe() for release in releases))
    assert set(told) == {quick.versions[1]}
    assert max(map(int, most.read_text().split())) in (2, 3, 4)


async def test_an_answer_that_makes_no_sense_is_an_error(quick: House) -> None:
    program = quick.folder / "helm"
    program.write_text('#!/bin/sh\necho \'[{"revision": "none"}]\'\n')
    program.chmod(0o755)
    release = quick.release(program=program)
    with pytest.raises(TransientError, match="makes no sense"):
        await release.observe()
    assert any("tried are Helm 3 and 4" in one for one in await remarks(release))


async def test_what_would_lead_helm_elsewhere_is_not_handed_on(
    quick: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELM_NAMESPACE", "other")
    monkeypatch.setenv("HELM_KUBECONTEXT", "nowhere")
    monkeypatch.setenv("HELM_KUBEAPISERVER", "http://127.0.0.1:1")
    assert await quick.release().observe() == quick.versions[1]
    monkeypatch.setenv("HELM_DRIVER", "configmap")
    with pytest.raises(PermanentError, match="driver configmap"):
        await quick.release().observe()
    assert await quick.release(driver="secret").observe() == quick.versions[1]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "-x"},
        {"name": "Shop"},
        {"name": "a" * 54},
        {"namespace": "--all"},
        {"driver": "sql"},
        {"interval": 0},
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        HelmSpec.model_validate({"name": "shop"} | fields)


def test_a_program_is_a_name_or_a_path() -> None:
    assert HelmSpec.model_validate({"name": "shop"}).program == "helm"
    spec = HelmSpec.model_validate({"name": "shop", "program": "./bin/helm"})
    assert isinstance(spec.program, Path)
