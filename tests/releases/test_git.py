"""Commits that are checked out and built: what goes wrong on the way, and what stays."""

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.releases.conftest import (
    Repository,
    Switches,
    Until,
    build,
    link,
    lives,
    remarks,
    run,
    small_disk,
    switching,
)

from prunella.core.model import Epoch
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.ports import Release

EPOCH = Epoch(1)
UNLOGGED = """
git config core.logAllRefUpdates false
git switch -c mine
rm -r $(git rev-parse --git-dir)/logs
"""
BUILD = "cp version built; echo $PWD >> ../../builds"  # what proves that it was run, and where


class Shop:
    """Three versions in a repository; a person has deployed the newest."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.repository = Repository(folder)
        self.versions = [self.repository.commit(f"v{n}", version=f"{n}\n") for n in range(3)]
        self.current = folder / "current"
        self.deploy(self.versions[2])

    @property
    def fields(self) -> dict[str, Any]:
        return {"repository": self.repository.bare, "ref": "main", "current": self.current}

    def release(self, script: str = BUILD, **fields: Any) -> Release:
        body = self.fields | {"build": ["sh", "-c", script]} | fields
        return build("git", self.folder, **body)

    def deploy(self, version: str) -> None:
        """What a person does."""
        tree = self.folder / "releases" / f"by-hand-{version}"
        if not tree.exists():
            argv = ("git", "worktree", "add", "--detach", str(tree), version)
            run(*argv, cwd=self.repository.bare)
        link(self.current, f"releases/{tree.name}")

    async def switch(self, release: Release, to: int, before: int = 2) -> None:
        await release.switch(
            self.versions[to], before=self.versions[before], reason="erroring", epoch=EPOCH
        )

    def deployed(self) -> int:
        """Which version is deployed, found without Prunella."""
        return self.versions.index(run("git", "rev-parse", "HEAD", cwd=self.current).strip())

    def ours(self, ending: str = "") -> list[str]:
        """The names of what Prunella keeps beside the releases."""
        names = (path.name for path in (self.folder / "releases").iterdir())
        return sorted(
            name for name in names if re.fullmatch(rf"prunella-shop-.*-\d+{ending}", name)
        )

    def builds(self) -> list[str]:
        file = self.folder / "builds"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


async def test_a_fresh_checkout_is_built_and_led_to_and_the_old_one_stays(shop: Shop) -> None:
    old = shop.current.resolve()
    await shop.switch(shop.release(), 0)
    assert (shop.current / "built").read_text() == "0\n"
    assert shop.builds() == [str(shop.current.resolve())]
    assert (old / "version").read_text() == "2\n"
    assert not shop.current.readlink().is_absolute()


async def test_nothing_has_to_be_built(shop: Shop) -> None:
    await shop.switch(shop.release(build=None), 0)
    assert (shop.deployed(), (shop.current / "built").exists()) == (0, False)


async def test_a_checkout_that_was_built_once_is_used_again(shop: Shop) -> None:
    release = shop.release()
    for before, to in ((2, 0), (0, 1), (1, 0), (0, 1)):
        await shop.switch(release, to, before)
    assert len(shop.builds()) == 2
    assert len(shop.ours()) == 2


@pytest.mark.parametrize(
    "damage", ["echo 9 > version", "git checkout --quiet HEAD^", 'rm -r "$PWD"']
)
async def test_a_checkout_that_somebody_changed_is_not_used_again(shop: Shop, damage: str) -> None:
    release = shop.release()
    await shop.switch(release, 1)
    changed = shop.current.resolve()
    await shop.switch(release, 0, 1)
    run("sh", "-c", damage, cwd=changed)
    await shop.switch(release, 1, 0)
    assert (shop.deployed(), len(shop.builds())) == (1, 3)
    assert (shop.current / "version").read_text() == "1\n"


async def test_only_the_checkouts_used_last_are_kept_and_those_of_others_always(
    shop: Shop,
) -> None:
    release = shop.release(keep=2)
    versions = [shop.repository.commit(f"w{n}", version=f"{n}") for n in range(4)]
    before = shop.versions[2]
    for version in versions:
        await release.switch(version, before=before, reason="", epoch=EPOCH)
        before = version
    wanted = sorted(f"prunella-shop-{version}-1" for version in versions[2:])
    assert shop.ours() == wanted
    assert shop.ours(r"\.(log|complete)") == sorted(
        f"{name}.{ending}" for name in wanted for ending in ("complete", "log")
    )
    by_hand = shop.folder / "releases" / f"by-hand-{shop.versions[2]}"
    assert by_hand.is_dir()
    registered = run("git", "worktree", "list", "--porcelain", cwd=shop.repository.bare)
    assert "prunable" not in registered


async def test_what_was_used_again_is_kept_longer_than_what_was_made_later(shop: Shop) -> None:
    release = shop.release(keep=2)
    for before, to in ((2, 0), (0, 1), (1, 0), (0, 2)):
        await shop.switch(release, to, before)
    assert shop.ours() == sorted(f"prunella-shop-{shop.versions[n]}-1" for n in (0, 2))


async def test_what_somebody_cleared_away_with_all_its_traces_is_made_anew(shop: Shop) -> None:
    release = shop.release()
    await shop.switch(release, 0)
    shop.deploy(shop.versions[2])
    run("sh", "-c", "rm -r releases/prunella-*", cwd=shop.folder)
    await shop.switch(release, 0)
    assert (shop.deployed(), len(shop.builds())) == (0, 2)


async def test_a_build_that_fails_says_its_last_line_and_where_the_rest_is(shop: Shop) -> None:
    release = shop.release("echo compiling; echo no such symbol: x >&2; exit 3")
    with pytest.raises(TransientError, match="exit code 3: no such symbol: x") as caught:
        await shop.switch(release, 0)
    (log,) = shop.ours(r"\.log")
    assert log in str(caught.value)
    assert "compiling" in (shop.folder / "releases" / log).read_text()
    assert (shop.deployed(), shop.ours()) == (2, [])


async def test_a_failed_build_is_begun_anew(shop: Shop) -> None:
    script = f"test -e {shop.folder}/well && {{ {BUILD}; }}"
    release = shop.release(script)
    with pytest.raises(TransientError, match="it said nothing"):
        await shop.switch(release, 0)
    (shop.folder / "well").touch()
    await shop.switch(release, 0)
    assert (shop.deployed(), len(shop.ours()), len(shop.ours(r"\.log"))) == (0, 1, 1)


async def test_a_build_without_end_is_killed_with_all_that_it_started(
    shop: Shop, until: Until
) -> None:
    pids = shop.folder / "pids"
    release = shop.release(f"sleep 99 & echo $! $$ > {pids}; wait", timeout=1)
    with pytest.raises(TransientError, match="no end within 1 s"):
        await shop.switch(release, 0)
    await until(lambda: not any(lives(int(pid)) for pid in pids.read_text().split()))
    assert (shop.deployed(), shop.ours()) == (2, [])


async def test_a_build_that_does_not_exist_is_a_permanent_error(shop: Shop) -> None:
    with pytest.raises(PermanentError, match="command not found"):
        await shop.switch(shop.release(build=["no-such-command"]), 0)
    assert (shop.deployed(), shop.ours()) == (2, [])


async def test_what_leads_git_elsewhere_does_not_reach_git_nor_the_build(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    monkeypatch.setenv("WORD", "kept")
    release = shop.release('echo "$WORD$GIT_DIR$GIT_INDEX_FILE" > built')
    await shop.switch(release, 0)
    assert (shop.current / "built").read_text() == "kept\n"


async def test_hooks_of_the_repository_are_not_run(shop: Shop) -> None:
    shop.repository.hook("post-checkout", f"touch {shop.folder}/hooked")
    await shop.switch(shop.release(), 0)
    assert not (shop.folder / "hooked").exists()


async def test_a_person_who_deploys_during_the_build_wins(shop: Shop) -> None:
    shop.deploy(shop.versions[1])
    shop.deploy(shop.versions[2])
    human = f"ln -sfn releases/by-hand-{shop.versions[1]} {shop.current}"
    with pytest.raises(ConflictError, match=shop.versions[1]):
        await shop.switch(shop.release(human), 0)
    assert shop.deployed() == 1


async def test_a_person_who_deploys_in_place_during_the_build_wins(shop: Shop) -> None:
    human = f"git -C {shop.current} checkout --quiet {shop.versions[1]}"
    with pytest.raises(ConflictError, match=shop.versions[1]):
        await shop.switch(shop.release(human), 0)
    assert (shop.deployed(), (shop.current / "version").read_text()) == (1, "1\n")


async def test_a_person_who_moves_the_same_commit_elsewhere_changes_nothing(shop: Shop) -> None:
    twin = shop.folder / "releases" / "twin"
    run("git", "worktree", "add", "--detach", str(twin), shop.versions[2], cwd=shop.repository.bare)
    await shop.switch(shop.release(f"ln -sfn releases/twin {shop.current}"), 0)
    assert shop.deployed() == 0


async def test_a_second_switch_at_the_same_time_is_turned_away(shop: Shop, until: Until) -> None:
    started, go = shop.folder / "started", shop.folder / "go"
    slow = shop.release(f"touch {started}; until test -e {go}; do sleep 0.01; done; {BUILD}")
    first = asyncio.create_task(shop.switch(slow, 0))
    await until(started.exists)
    with pytest.raises(TransientError, match="is being switched already"):
        await shop.switch(shop.release(), 1)
    go.touch()
    await first
    with pytest.raises(ConflictError):
        await shop.switch(shop.release(), 1)
    assert (shop.deployed(), len(shop.builds())) == (0, 1)


async def test_a_cancelled_switch_leaves_no_build_behind_and_can_be_begun_anew(
    shop: Shop, until: Until
) -> None:
    started = shop.folder / "started"
    task = asyncio.create_task(shop.switch(shop.release(f"echo $$ > {started}; sleep 99; true"), 0))
    await until(lambda: started.exists() and started.read_text().strip())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not lives(int(started.read_text())))
    assert shop.deployed() == 2
    await shop.switch(shop.release(), 0)
    assert (shop.deployed(), len(shop.ours())) == (0, 1)


async def test_a_build_that_outlives_a_killed_prunella_is_neither_used_nor_disturbed(
    shop: Shop, switches: Switches, until: Until
) -> None:
    started, go, done = (shop.folder / name for name in ("started", "go", "done"))
    script = f"echo $$ > {started}; until test -e {go}; do sleep 0.01; done; touch {done}"
    build = ["sh", "-c", script]
    old, new = shop.versions[0], shop.versions[2]
    child = switches(*switching("git", shop.folder, old, new, **shop.fields, build=build))
    await until(lambda: started.exists() and started.read_text().strip())
    child.kill()
    child.wait()
    (orphaned,) = shop.ours()
    assert shop.deployed() == 2

    await shop.switch(shop.release(), 0)
    assert shop.deployed() == 0
    assert shop.current.resolve().name != orphaned
    assert orphaned in shop.ours()

    go.touch()
    await until(lambda: done.exists() and not lives(int(started.read_text())))
    shop.repository.commit("w", version="w")
    await shop.switch(shop.release(), 1, 0)
    assert orphaned not in shop.ours()


async def test_a_checkout_that_is_killed_half_way_is_never_used(
    shop: Shop, switches: Switches, until: Until
) -> None:
    """Git itself is in the middle: a filter of the repository keeps it there."""
    started = shop.folder / "started"
    slow = f"sh -c 'echo $$ > {started}; sleep 99'"
    run("git", "config", "filter.slow.smudge", slow, cwd=shop.repository.bare)
    attributes = shop.repository.bare / "info" / "attributes"
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text("version filter=slow\n")
    argv = switching("git", shop.folder, shop.versions[0], shop.versions[2], **shop.fields)
    child = switches(*argv)
    await until(lambda: started.exists() and started.read_text().strip())
    child.kill()
    child.wait()
    os.killpg(os.getpgid(int(started.read_text())), signal.SIGKILL)
    attributes.unlink()
    await shop.switch(shop.release(), 0)
    assert (shop.current / "built").read_text() == "0\n"
    assert len(shop.ours()) == 1


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of releases, with 1 MiB for all of them."""
    with small_disk(tmp_path / "releases", "size=1m"):
        yield tmp_path / "releases"


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("x" * 2**21, "cannot check out .*: unable to write file"),
        ("x", "exit code 1: No space left on device; "),
    ],
    ids=["in the checkout", "in the build"],
)
async def test_a_full_disk_fails_the_switch_and_is_given_back(
    version: str, words: str, disk: Path, shop: Shop
) -> None:
    script = "seq 30000; head -c 2M /dev/zero > big"
    shop.versions[0] = shop.repository.commit("other", version=version)
    free = os.statvfs(disk).f_bavail
    with pytest.raises(TransientError, match=words):
        await shop.switch(shop.release(script), 0)
    assert (shop.deployed(), shop.ours()) == (2, [])
    spent = free - os.statvfs(disk).f_bavail
    assert spent * os.statvfs(disk).f_frsize < 2**18  # its log
    await shop.switch(shop.release(), 1)
    assert shop.deployed() == 1


async def test_git_is_not_asked_while_nothing_has_changed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = shop.release()
    assert await release.observe() == shop.versions[2]
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(shop.folder))  # where there is no git
    assert await release.observe() == shop.versions[2]
    monkeypatch.setenv("PATH", path)
    shop.deploy(shop.versions[1])
    monkeypatch.setenv("PATH", str(shop.folder))
    with pytest.raises(PermanentError, match="command not found: git"):
        await release.observe()


@pytest.mark.parametrize(
    ("before", "human"),
    [
        ("true", "git checkout --quiet HEAD~1"),
        ("true", "git switch --quiet --create other HEAD~1"),
        ("git switch -c mine", "git reset --quiet --hard HEAD~1"),
        ("git switch -c mine", "git commit --quiet --allow-empty --message mine"),
        (UNLOGGED, "git reset --quiet --hard HEAD~1"),
    ],
)
async def test_a_commit_that_a_person_checks_out_in_place_is_seen(
    shop: Shop, before: str, human: str
) -> None:
    run("sh", "-c", before, cwd=shop.current)
    release = shop.release()
    assert await release.observe() == shop.versions[2]
    run("sh", "-c", human, cwd=shop.current)
    now = run("git", "rev-parse", "HEAD", cwd=shop.current).strip()
    assert now != shop.versions[2]
    assert await release.observe() == now


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        ("rm current", TransientError, "cannot read .*current: No such file"),
        ("rm current; mkdir current", PermanentError, "is not a symbolic link"),
        ("ln -sfn releases/gone current", TransientError, "gone is no checkout of git"),
        ("mkdir releases/x; ln -sfn releases/x current", TransientError, "x is no checkout of git"),
        ("echo rubbish > current/.git", TransientError, "invalid gitfile format"),
        ("rm -r shop.git", TransientError, "not a git repository"),
    ],
)
async def test_what_is_deployed_cannot_be_told(
    shop: Shop, damage: str, error: type[Exception], words: str
) -> None:
    run("sh", "-c", damage, cwd=shop.folder)
    with pytest.raises(error, match=words):
        await shop.release().observe()


async def test_a_repository_around_the_releases_is_not_taken_for_them(shop: Shop) -> None:
    run("git", "init", "--quiet", ".", cwd=shop.folder)
    run("git", "commit", "--quiet", "--allow-empty", "--message", "around", cwd=shop.folder)
    (shop.folder / "releases" / "x").mkdir()
    link(shop.current, "releases/x")
    with pytest.raises(TransientError, match="is no checkout of git"):
        await shop.release().observe()


async def test_a_commit_on_no_branch_that_is_released_is_refused(shop: Shop) -> None:
    run("git", "branch", "release", shop.versions[1], cwd=shop.repository.bare)
    release = shop.release(ref="release")
    await shop.switch(release, 0)
    with pytest.raises(PermanentError, match=r"release of .*shop\.git does not contain"):
        await release.switch(shop.versions[2], before=shop.versions[0], reason="", epoch=EPOCH)
    assert shop.deployed() == 0


async def test_tags_are_released_by_a_pattern(shop: Shop) -> None:
    run("git", "tag", "v1.0", shop.versions[0], cwd=shop.repository.bare)
    release = shop.release(ref="v*")
    assert await remarks(release) == []
    with pytest.raises(PermanentError, match="does not contain"):
        await shop.switch(release, 1)
    await shop.switch(release, 0)
    assert shop.deployed() == 0


async def test_a_repository_that_has_lost_the_commit_is_refused_before_anything_is_made(
    shop: Shop,
) -> None:
    name = shop.versions[0]
    (shop.repository.bare / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(PermanentError, match=f"there is no commit {name}"):
        await shop.switch(shop.release(), 0)
    assert (shop.deployed(), shop.ours(".*")) == (2, [])


async def test_a_repository_that_has_lost_a_file_fails_the_checkout(shop: Shop) -> None:
    name = shop.repository.head(f"{shop.versions[0]}:version")
    (shop.repository.bare / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(TransientError, match="cannot check out"):
        await shop.switch(shop.release(), 0)
    assert (shop.deployed(), shop.ours()) == (2, [])


@pytest.mark.parametrize(
    ("damage", "fields", "said"),
    [
        ("rm current", {}, ["! cannot read .*current: No such file"]),
        ("rm current; mkdir current", {}, ["! .*current is not a symbolic link"]),
        ("mv shop.git elsewhere", {}, ["! .*shop.git cannot be used: .*cannot enter folder"]),
        ("rm -r shop.git/HEAD", {}, ["! .*shop.git cannot be used: .*not a git repository"]),
        ("true", {"ref": "mian"}, ["! .*shop.git has no branch and no tag mian"]),
        ("true", {"build": ["no-such-command"]}, ["! build: command not found: no-such-command"]),
        ("echo 9 > current/version", {}, ["what is deployed has changes that are in no commit"]),
        ("rm -r releases/*", {}, ["! .*is no checkout of git"]),
        (
            "git init -q o; git -C o commit -q --allow-empty -m o; ln -sfn o current",
            {},
            ["the deployed commit .* is not in .*shop.git"],
        ),
    ],
)
async def test_an_examination_names_each_thing_that_is_wrong(
    shop: Shop, damage: str, fields: dict[str, Any], said: list[str]
) -> None:
    run("sh", "-c", damage, cwd=shop.folder)
    found = await remarks(shop.release(**fields))
    assert len(found) == len(said), found
    for remark, words in zip(found, said, strict=True):
        assert re.match(words, remark)
