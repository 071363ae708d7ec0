"""Commits that bring a version back, pushed to a repository that others push to as well."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.releases.conftest import (
    SERVICE,
    Repository,
    Switches,
    Until,
    lives,
    remarks,
    run,
    switching,
)

from prunella.core.model import Epoch
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.plugins import ReleaseContext
from prunella.ports import Release
from prunella.releases.git_revert import GitRevertRelease, GitRevertSpec
from prunella.testing.clock import SimClock

EPOCH = Epoch(1)
FOLDER = "apps/shop"


class Deployment:
    """A repository in which one of two folders is ours, with three versions of both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = Repository(folder)
        self.commits = [
            self.repository.commit(f"v{n}", apps__shop__image=f"{n}", apps__cart__image=f"{n}")
            for n in range(3)
        ]
        self.versions = [self.repository.head(f"{one}:{FOLDER}") for one in self.commits]
        self.clock = SimClock()

    @property
    def fields(self) -> dict[str, Any]:
        return {"repository": self.repository.bare, "ref": "main", "path": FOLDER}

    def release(self, **fields: Any) -> GitRevertRelease:
        spec = GitRevertSpec.model_validate(self.fields | fields)
        context = ReleaseContext(SERVICE, self.clock, self.folder / "state")
        return GitRevertRelease(spec, context)

    async def switch(self, release: Release, to: int = 0, before: int = 2) -> None:
        await release.switch(
            self.versions[to], before=self.versions[before], reason="erroring: 30 %", epoch=EPOCH
        )

    def shown(self, what: str, form: str = "%B") -> str:
        return run("git", "log", "-1", f"--format={form}", what, cwd=self.repository.bare)

    def file(self, path: str) -> str:
        return run("git", "show", f"main:{path}", cwd=self.repository.bare)

    def commits_of(self, subject: str) -> int:
        return len([one for one in self.repository.log() if subject in one])


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


async def test_one_commit_on_top_brings_the_folder_back_and_leaves_the_others(
    deployment: Deployment,
) -> None:
    await deployment.switch(deployment.release())
    assert deployment.file("apps/shop/image") == "0"
    assert deployment.file("apps/cart/image") == "2"
    assert deployment.repository.log() == [
        f"Roll shop back to {deployment.versions[0][:12]}",
        "v2",
        "v1",
        "v0",
    ]
    assert deployment.repository.head("main^") == deployment.commits[2]


async def test_the_commit_says_by_whom_and_why_and_what_it_takes_back(
    deployment: Deployment,
) -> None:
    deployment.repository.commit("only the cart", apps__cart__image="3")
    await deployment.switch(deployment.release(author="Healer <healer@example.org>"))
    assert deployment.shown("main", "%an %ae %cn") == "Healer healer@example.org Healer\n"
    newest, older = (one[:7] for one in (deployment.commits[2], deployment.commits[1]))
    assert re.sub(r"\b([0-9a-f]{7})[0-9a-f]*\b", r"\1", deployment.shown("main")).split("\n") == [
        f"Roll shop back to {deployment.versions[0][:7]}",
        "",
        "erroring: 30 %",
        "",
        "This takes back:",
        f"- {newest} v2 (Ada)",
        f"- {older} v1 (Ada)",
        "",
        "",
    ]


async def test_a_message_names_so_many_changes_and_counts_the_rest(deployment: Deployment) -> None:
    for n in range(3, 30):
        deployment.repository.commit(f"v{n}", apps__shop__image=f"{n}")
    before = deployment.repository.head(f"main:{FOLDER}")
    release = deployment.release()
    await release.switch(deployment.versions[0], before=before, reason="", epoch=EPOCH)
    listed = [line for line in deployment.shown("main").splitlines() if line.startswith("- ")]
    assert (len(listed), listed[-1]) == (21, "- and 9 more")


async def test_all_of_the_repository_can_be_one_service(deployment: Deployment) -> None:
    release = deployment.release(path="")
    trees = [deployment.repository.head(f"{one}^{{tree}}") for one in deployment.commits]
    assert await release.observe() == trees[2]
    await release.switch(trees[1], before=trees[2], reason="", epoch=EPOCH)
    assert deployment.repository.head("main^{tree}") == trees[1]


async def test_what_a_merge_brought_is_taken_back_with_it(deployment: Deployment) -> None:
    work = deployment.repository.work
    run("git", "switch", "--quiet", "--create", "feature", deployment.commits[1], cwd=work)
    (work / "apps/shop/extra").write_text("x")
    run("git", "add", "--all", cwd=work)
    run("git", "commit", "--quiet", "--message", "feature", cwd=work)
    run("git", "switch", "--quiet", "main", cwd=work)
    run("git", "merge", "--quiet", "--no-edit", "feature", cwd=work)
    run("git", "push", "--quiet", "origin", "main", cwd=work)
    merged = deployment.repository.head(f"main:{FOLDER}")
    release = deployment.release()
    await release.switch(deployment.versions[2], before=merged, reason="", epoch=EPOCH)
    assert deployment.repository.head(f"main:{FOLDER}") == deployment.versions[2]
    assert "Merge branch 'feature'" in deployment.shown("main")


async def test_a_push_that_is_refused_once_is_offered_again(deployment: Deployment) -> None:
    seen = deployment.folder / "seen"
    deployment.repository.hook("pre-receive", f"test -e {seen} || {{ touch {seen}; exit 1; }}")
    await deployment.switch(deployment.release())
    assert deployment.repository.head(f"main:{FOLDER}") == deployment.versions[0]
    assert deployment.commits_of("Roll shop back") == 1
    assert deployment.clock.now() == 0.5


async def test_a_push_that_is_refused_always_is_given_up_with_the_refusals_words(
    deployment: Deployment,
) -> None:
    count = deployment.folder / "count"
    script = f"echo x >> {count}; echo frozen until Monday; exit 1"
    deployment.repository.hook("pre-receive", script)
    with pytest.raises(TransientError, match=r"pre-receive hook declined.*frozen until Monday"):
        await deployment.switch(deployment.release())
    assert count.read_text() == "x\n" * 3
    assert deployment.repository.head() == deployment.commits[2]


def race(deployment: Deployment, **files: str) -> None:
    """Somebody pushes right before our first commit arrives, which is then refused."""
    rival = Path(f"{deployment.repository.work}-rival")
    run("git", "clone", "--quiet", str(deployment.repository.bare), str(rival))
    for name, text in files.items():
        (rival / name.replace("__", "/")).write_text(text)
    run("git", "commit", "--all", "--quiet", "--message", "rival", cwd=rival)
    run("git", "push", "--quiet", "origin", "main:refs/heads/rival", cwd=rival)
    seen = deployment.folder / "seen"
    won = "unset GIT_QUARANTINE_PATH; git update-ref refs/heads/main refs/heads/rival"
    deployment.repository.hook("pre-receive", f"test -e {seen} || {{ touch {seen}; {won}; }}")


async def test_a_race_about_something_else_is_run_again_on_top_of_the_winner(
    deployment: Deployment,
) -> None:
    race(deployment, apps__cart__image="9")
    await deployment.switch(deployment.release())
    assert deployment.file("apps/shop/image") == "0"
    assert deployment.file("apps/cart/image") == "9"
    assert deployment.repository.log()[1] == "rival"


async def test_a_person_who_deploys_in_the_same_moment_wins(deployment: Deployment) -> None:
    race(deployment, apps__shop__image="9")
    with pytest.raises(ConflictError):
        await deployment.switch(deployment.release())
    assert deployment.file("apps/shop/image") == "9"
    assert deployment.repository.log()[0] == "rival"


async def test_two_of_us_at_once_make_one_commit(deployment: Deployment) -> None:
    others = GitRevertRelease(
        GitRevertSpec.model_validate(deployment.fields),
        ReleaseContext(SERVICE, deployment.clock, deployment.folder / "other-state"),
    )
    await asyncio.gather(deployment.switch(deployment.release()), deployment.switch(others))
    assert deployment.commits_of("Roll shop back") == 1


async def test_a_push_that_took_effect_and_then_hung_is_not_done_twice(
    deployment: Deployment,
) -> None:
    deployment.repository.hook("post-receive", "sleep 5")
    await deployment.switch(deployment.release(timeout=2))
    assert deployment.commits_of("Roll shop back") == 1
    assert deployment.repository.head(f"main:{FOLDER}") == deployment.versions[0]


async def test_killed_in_the_middle_of_a_push_it_makes_one_commit_when_asked_again(
    deployment: Deployment, switches: Switches, until: Until
) -> None:
    started, go = deployment.folder / "started", deployment.folder / "go"
    wait = f"echo $$ > {started}; until test -e {go}; do sleep 0.01; done"
    deployment.repository.hook("pre-receive", f"test -e {started} || {{ {wait}; }}")
    old, new = deployment.versions[0], deployment.versions[2]
    argv = switching("git-revert", deployment.folder, old, new, **deployment.fields)
    child = switches(*argv)
    await until(lambda: started.exists() and started.read_text().strip())
    child.kill()
    child.wait()
    hook = int(started.read_text())
    assert deployment.repository.head() == deployment.commits[2]
    await deployment.switch(deployment.release())
    go.touch()
    await until(lambda: not lives(hook))
    assert deployment.commits_of("Roll shop back") == 1
    assert deployment.repository.head(f"main:{FOLDER}") == deployment.versions[0]


async def test_the_repository_is_asked_no_more_often_than_it_says(deployment: Deployment) -> None:
    release = deployment.release(interval=30)
    assert await release.observe() == deployment.versions[2]
    deployment.repository.commit("v1 again", apps__shop__image="1")
    deployment.clock.advance(29)
    assert await release.observe() == deployment.versions[2]
    deployment.clock.advance(2)
    assert await release.observe() == deployment.versions[1]


async def test_one_that_cannot_be_reached_is_asked_no_more_often_either(
    deployment: Deployment,
) -> None:
    release = deployment.release(interval=30)
    away = deployment.repository.bare.rename(deployment.folder / "away.git")
    for _ in range(2):
        with pytest.raises(TransientError, match=r"shop\.git' does not appear"):
            await release.observe()
        if away.exists():
            away.rename(deployment.repository.bare)
    deployment.clock.advance(31)
    assert await release.observe() == deployment.versions[2]


async def test_after_a_switch_it_knows_at_once(deployment: Deployment) -> None:
    release = deployment.release()
    assert await release.observe() == deployment.versions[2]
    await deployment.switch(release)
    assert await release.observe() == deployment.versions[0]


@pytest.mark.parametrize(
    "damage",
    [
        "echo rubbish > HEAD",
        "rm -r objects",
        "touch refs/prunella/head.lock",
        "touch shallow.lock config.lock HEAD.lock revert-index revert-index.lock",
        "find objects -type f -delete",
        "for file in $(find objects -type f); do rm -f $file; : > $file; done",
    ],
)
async def test_a_copy_that_is_locked_or_damaged_is_made_anew(
    deployment: Deployment, damage: str
) -> None:
    release = deployment.release(interval=0.001)
    await release.observe()
    run("sh", "-c", damage, cwd=deployment.folder / "state" / "release.git")
    deployment.repository.commit("v9", apps__shop__image="9")
    deployment.clock.advance(1)
    now = await release.observe()
    assert now == deployment.repository.head(f"main:{FOLDER}")
    await release.switch(deployment.versions[0], before=now, reason="", epoch=EPOCH)
    assert deployment.file("apps/shop/image") == "0"


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"ref": "mian"}, PermanentError, "has no branch refs/heads/mian"),
        ({"path": "apps/shp"}, PermanentError, "has no folder apps/shp on refs/heads/main"),
        ({"repository": "/no/such.git"}, TransientError, "cannot read /no/such.git: "),
        (
            {"repository": "http://ada:secret@127.0.0.1:1/x.git"},
            TransientError,
            r"cannot read http://\*\*\*@127\.0\.0\.1:1/x\.git: unable to access",
        ),
    ],
)
async def test_what_is_deployed_cannot_be_told(
    deployment: Deployment, fields: dict[str, Any], error: type[Exception], words: str
) -> None:
    release = deployment.release(**fields)
    with pytest.raises(error, match=words):
        await release.observe()
    (remark,) = await remarks(release)
    assert re.match(f"! .*({words})", remark)


async def test_a_version_that_is_too_long_ago_is_refused(deployment: Deployment) -> None:
    lines = ["reset refs/heads/main", "from refs/heads/main^0"]
    for n in range(201):
        lines += [
            "commit refs/heads/main",
            f"committer Ada <ada@example.org> {1_800_000_000 + n} +0000",
            "data 1",
            "x",
            f"M 100644 inline {FOLDER}/image",
            f"data {len(str(n + 10))}",
            f"{n + 10}",
        ]
    script = deployment.folder / "import"
    script.write_text("\n".join(lines) + "\n")
    run("sh", "-c", f"git fast-import --quiet < {script}", cwd=deployment.repository.bare)
    release = deployment.release()
    before = await release.observe()
    with pytest.raises(PermanentError, match="is not among the last 200 versions"):
        await release.switch(deployment.versions[0], before=before, reason="", epoch=EPOCH)


@pytest.fixture
async def served(deployment: Deployment) -> AsyncIterator[str]:
    """The repository behind git's own daemon, which lets nobody push: its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = await asyncio.create_subprocess_exec(
        "git",
        "daemon",
        "--export-all",
        "--reuseaddr",
        "--listen=127.0.0.1",
        f"--port={port}",
        f"--base-path={deployment.folder}",
        start_new_session=True,
    )
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                await writer.wait_closed()
                break
    yield f"git://127.0.0.1:{port}/shop.git"
    os.killpg(daemon.pid, signal.SIGTERM)
    await daemon.wait()


async def test_a_repository_that_may_only_be_read_is_a_fault_before_it_is_needed(
    deployment: Deployment, served: str
) -> None:
    release = deployment.release(repository=served)
    assert await release.observe() == deployment.versions[2]
    (remark,) = await remarks(release)
    assert re.match(f"! {served} takes no pushes: .*access denied", remark)
    with pytest.raises(TransientError, match="access denied"):
        await deployment.switch(release)
    assert deployment.repository.head() == deployment.commits[2]


async def test_a_checkout_as_repository_is_warned_of(deployment: Deployment) -> None:
    (remark,) = await remarks(deployment.release(repository=deployment.repository.work))
    assert "is not bare" in remark
    with pytest.raises(TransientError, match="branch is currently checked out"):
        await deployment.switch(deployment.release(repository=deployment.repository.work))


@pytest.fixture
def silent() -> Iterator[str]:
    """A URL behind which somebody accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"git://127.0.0.1:{listener.getsockname()[1]}/shop.git"


async def test_a_silent_repository_holds_nobody_up_for_long(
    deployment: Deployment, silent: str
) -> None:
    release = deployment.release(repository=silent, timeout=60)
    async with asyncio.timeout(8):
        with pytest.raises(TransientError, match="has not answered yet"):
            await release.observe()
    async with asyncio.timeout(1):
        await release.close()


async def test_a_silent_repository_is_given_up_in_time(deployment: Deployment, silent: str) -> None:
    release = deployment.release(repository=silent, timeout=0.3)
    with pytest.raises(TransientError, match=r"no end within 0\.3 s"):
        await release.observe()
    with pytest.raises(TransientError, match=r"no end within 0\.3 s"):
        await deployment.switch(release)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("./deploy.git", Path),
        ("deploy.git", Path),
        ("/srv/a:b.git", Path),
        ("./a:b.git", Path),
        ("https://example.org/a.git", str),
        ("git@example.org:a/b.git", str),
        ("example.org:b.git", str),
        ("ssh://git@example.org:22/a", str),
    ],
)
def test_what_is_not_a_url_is_a_path(value: str, kind: type[object]) -> None:
    spec = GitRevertSpec.model_validate({"repository": value, "ref": "main"})
    assert isinstance(spec.repository, kind)


@pytest.mark.parametrize(
    ("path", "inside"),
    [("apps/shop", "apps/shop"), ("./apps//shop/", "apps/shop"), ("", ""), (".", "")],
)
def test_a_folder_is_inside_of_the_repository(path: str, inside: str) -> None:
    assert GitRevertSpec.model_validate({"repository": "x", "ref": "main", "path": path}).path == (
        inside
    )


@pytest.mark.parametrize(
    "fields", [{"path": "../x"}, {"path": "/x"}, {"ref": "-x"}, {"ref": "a*"}, {"author": "Ada"}]
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        GitRevertSpec.model_validate({"repository": "x", "ref": "main"} | fields)
