"""Every source of releases obeys the same rules against the real thing.

A target is found by the source's kind: a source without one is a failure, not a skip.
"""

import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.releases.conftest import ROOT, Repository, build, link, remarks, run, switching
from tests.releases.helm import Shop

from prunella.core.model import Epoch
from prunella.errors import ConflictError, PermanentError, PrunellaError
from prunella.kube.kinds import DEPLOYMENT
from prunella.plugins import releases
from prunella.ports import Release, SupportsExamination
from prunella.testing.kube import FakeCluster, threaded
from prunella.testing.release import FakeRelease

EPOCH = Epoch(1)
ENDING = ExitStack()  # what benches have started, and each test ends


@dataclass
class Bench:
    """One source with three versions, the last of which is deployed by a person.

    Attributes:
        fields: of its configuration.
        versions: oldest first.
        deploy: what a person does.
        deployed: what is deployed, found without the source.
        effects: grows with every change of what is deployed.
        fail: from now on no switch to the first version can work.
        blind: from now on nobody can tell what is deployed.
    """

    fields: dict[str, Any]
    release: Release
    versions: tuple[str, str, str]
    deploy: Callable[[str], None]
    deployed: Callable[[], str]
    effects: Callable[[], object]
    fail: Callable[[], object]
    blind: Callable[[], object]


def symlink_bench(folder: Path) -> Bench:
    names = ("20260101", "20260102", "20260103")
    for name in names:
        (folder / "releases" / name).mkdir(parents=True)
    current = folder / "current"

    def deploy(version: str) -> None:
        link(current, f"releases/{version}")

    deploy(names[2])
    fields: dict[str, Any] = {"current": current}
    return Bench(
        fields,
        build("symlink", folder, **fields),
        names,
        deploy,
        lambda: current.resolve().name,
        lambda: current.lstat().st_ino,
        lambda: shutil.rmtree(folder / "releases" / names[0]),
        current.unlink,
    )


def git_bench(folder: Path) -> Bench:
    repository = Repository(folder)
    ready = "test ! -e {} && cp version built".format(folder / "fail")
    versions = tuple(repository.commit(f"v{n}", version=f"{n}") for n in range(3))
    current = folder / "current"

    def deploy(version: str) -> None:
        tree = folder / "releases" / f"by-hand-{version}"
        if not tree.exists():
            run(
                "git",
                "worktree",
                "add",
                "--quiet",
                "--detach",
                str(tree),
                version,
                cwd=repository.bare,
            )
        link(current, f"releases/{tree.name}")

    deploy(versions[2])
    fields: dict[str, Any] = {
        "repository": repository.bare,
        "ref": "main",
        "current": current,
        "build": ["sh", "-c", ready],
    }
    return Bench(
        fields,
        build("git", folder, **fields),
        (versions[0], versions[1], versions[2]),
        deploy,
        lambda: run("git", "rev-parse", "HEAD", cwd=current).strip(),
        lambda: current.lstat().st_ino,
        (folder / "fail").touch,
        current.unlink,
    )


def git_revert_bench(folder: Path) -> Bench:
    repository = Repository(folder)
    versions = list[str]()
    for n in range(3):
        repository.commit(f"v{n}", apps__shop__version=f"{n}", other=f"{n}")
        versions.append(repository.head("main:apps/shop"))

    def deploy(version: str) -> None:
        number = versions.index(version) if version in versions else 3
        repository.commit(f"by hand: {number}", apps__shop__version=f"{number}")

    fields: dict[str, Any] = {
        "repository": repository.bare,
        "ref": "main",
        "path": "apps/shop",
        "interval": 0.000_001,
    }
    return Bench(
        fields,
        build("git-revert", folder, **fields),
        (versions[0], versions[1], versions[2]),
        deploy,
        lambda: repository.head("main:apps/shop"),
        lambda: repository.head("main"),
        lambda: repository.hook("pre-receive", "echo closed for today; exit 1"),
        lambda: repository.bare.rename(folder / "elsewhere.git"),
    )


def helm_bench(folder: Path) -> Bench:
    cluster = ENDING.enter_context(threaded(controllers=False))
    shop = Shop(folder, cluster.do(lambda fake: fake.kubeconfig(folder)))
    versions = list[str]()

    def deploy(version: str) -> None:
        number = versions.index(version) if version in versions else len(versions)
        shop.deploy(f"shop:{number}")

    for n in range(3):
        deploy(f"v{n}")
        versions.append(shop.version())

    def image() -> str:
        deployment = cluster.do(lambda fake: fake.find(DEPLOYMENT, "shop"))
        assert deployment is not None
        return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    def effects() -> object:
        found = cluster.do(lambda fake: fake.find(DEPLOYMENT, "shop"))
        return found and found["metadata"]["generation"]

    fields: dict[str, Any] = {**shop.fields, "interval": 0.000_001}
    return Bench(
        fields,
        build("helm", folder, **fields),
        (versions[0], versions[1], versions[2]),
        deploy,
        lambda: versions[int(image().removeprefix("shop:"))],
        effects,
        lambda: cluster.do(lambda fake: fake.deny("patch", "deployments")),
        lambda: cluster.wait(FakeCluster.stop),
    )


def fake_bench(folder: Path) -> Bench:
    versions = ("v1", "v2", "v3")
    release = FakeRelease(versions[2], versions)

    def effects() -> object:
        return release.switch_count, release.deployed

    return Bench(
        {},
        release,
        versions,
        partial(setattr, release, "deployed"),
        lambda: release.deployed,
        effects,
        partial(setattr, release, "broken", True),  # noqa: FBT003 - an attribute's value
        partial(setattr, release, "out_of_reach", True),  # noqa: FBT003 - likewise
    )


BENCHES = {
    "symlink": symlink_bench,
    "git": git_bench,
    "git-revert": git_revert_bench,
    "helm": helm_bench,
    "fake": fake_bench,
}


@pytest.fixture(autouse=True)
def ending() -> Iterator[None]:
    yield
    ENDING.close()


@pytest.fixture(params=sorted({*releases(), "fake"}))
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = BENCHES[request.param](tmp_path)
    yield bench
    await bench.release.close()


async def switch(bench: Bench, to: str, *, before: str | None = None) -> None:
    before = bench.versions[2] if before is None else before
    await bench.release.switch(to, before=before, reason="erroring: 30 % failed", epoch=EPOCH)


@pytest.mark.parametrize("kind", sorted(releases()))
def test_its_kind_is_that_of_its_plugin(kind: str, tmp_path: Path) -> None:
    release = BENCHES[kind](tmp_path).release
    assert (release.kind, releases()[kind].build) == (kind, type(release))


async def test_it_tells_what_is_deployed_whoever_deployed_it(bench: Bench) -> None:
    assert await bench.release.observe() == bench.deployed() == bench.versions[2]
    bench.deploy(bench.versions[1])
    assert await bench.release.observe() == bench.deployed() == bench.versions[1]


async def test_what_cannot_be_told_is_an_error(bench: Bench) -> None:
    await bench.release.observe()
    bench.blind()
    with pytest.raises(PrunellaError):
        await bench.release.observe()
    with pytest.raises(PrunellaError):
        await switch(bench, bench.versions[0])


async def test_a_switch_deploys_a_version_and_a_second_one_does_nothing(bench: Bench) -> None:
    await switch(bench, bench.versions[0])
    assert bench.deployed() == bench.versions[0]
    assert await bench.release.observe() == bench.versions[0]
    before = bench.effects()
    await switch(bench, bench.versions[0])
    assert bench.effects() == before


async def test_it_switches_to_and_fro(bench: Bench) -> None:
    old, middle, new = bench.versions
    for before, to in ((new, old), (old, middle), (middle, new), (new, old)):
        await switch(bench, to, before=before)
        assert await bench.release.observe() == bench.deployed() == to


async def test_a_deployment_that_nobody_spoke_of_wins(bench: Bench) -> None:
    await bench.release.observe()
    bench.deploy(bench.versions[1])
    before = bench.effects()
    with pytest.raises(ConflictError, match=bench.versions[1]):
        await switch(bench, bench.versions[0])
    assert (bench.deployed(), bench.effects()) == (bench.versions[1], before)


@pytest.mark.parametrize("unknown", ["0" * 40, "..", "../../etc", "/etc", "--help", "main", ""])
async def test_a_version_that_was_never_there_is_refused(bench: Bench, unknown: str) -> None:
    before = bench.effects()
    with pytest.raises(PermanentError):
        await switch(bench, unknown)
    assert bench.effects() == before


async def test_a_switch_that_fails_leaves_what_is_deployed_as_it_was(bench: Bench) -> None:
    bench.fail()
    before = bench.effects()
    with pytest.raises(PrunellaError):
        await switch(bench, bench.versions[0])
    assert (bench.deployed(), bench.effects()) == (bench.versions[2], before)
    assert await bench.release.observe() == bench.versions[2]


def output_of(argv: Sequence[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT).stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", sorted(releases()))
async def test_killed_at_any_point_it_leaves_one_of_the_two_and_finishes_when_asked_again(
    kind: str, tmp_path: Path
) -> None:
    """Before each of its effects in turn; that is after each, too."""
    found, said = list[int](), ""
    while said != "switched\n":
        folder = tmp_path / str(len(found))
        folder.mkdir()
        bench = BENCHES[kind](folder)
        before, to = bench.versions[2], bench.versions[0]
        argv = switching(kind, folder, to, before, die_at=len(found) + 1, **bench.fields)
        said = output_of(argv)
        found.append(bench.versions.index(bench.deployed()))
        await switch(bench, to)
        assert bench.deployed() == to
        once = bench.effects()
        await switch(bench, to)
        assert bench.effects() == once
    assert (found[0], found[-1]) == (2, 0)
    assert found == sorted(found, reverse=True)
    assert len(found) > 3


async def test_closing_touches_nothing(bench: Bench) -> None:
    await bench.release.observe()
    before = bench.effects()
    await bench.release.close()
    assert (bench.deployed(), bench.effects()) == (bench.versions[2], before)


async def test_an_examination_finds_nothing_wrong_with_what_works_and_changes_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    before = run("find", str(tmp_path))
    assert await remarks(bench.release) == []
    assert run("find", str(tmp_path)) == before


async def test_an_examination_names_what_cannot_work_and_does_not_raise(bench: Bench) -> None:
    bench.blind()
    assert isinstance(bench.release, SupportsExamination)
    assert any(remark.fault for remark in await bench.release.examine())
