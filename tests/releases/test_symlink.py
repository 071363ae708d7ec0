"""Folders of releases, and a link to one of them."""

from pathlib import Path

import pytest
from tests.releases.conftest import build, link, remarks, small_disk

from prunella.core.model import Epoch
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.releases._link import Link

EPOCH = Epoch(1)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("1", "2", "3"):
        (tmp_path / "releases" / name).mkdir(parents=True)
    link(tmp_path / "current", "releases/3")
    return tmp_path


async def test_a_release_elsewhere_is_called_by_its_path_and_is_not_returned_to(
    home: Path,
) -> None:
    (home / "hotfix").mkdir()
    link(home / "current", str(home / "hotfix"))
    release = build("symlink", home, current=home / "current")
    elsewhere = await release.observe()
    assert elsewhere == str(home / "hotfix")
    await release.switch("2", before=elsewhere, reason="", epoch=EPOCH)
    with pytest.raises(PermanentError, match="there is no release"):
        await release.switch(elsewhere, before="2", reason="", epoch=EPOCH)
    assert await release.observe() == "2"


async def test_the_folder_of_releases_may_be_anywhere(home: Path) -> None:
    (home / "releases").rename(home / "elsewhere")
    link(home / "current", str(home / "elsewhere" / "3"))
    release = build("symlink", home, current=home / "current", releases=home / "elsewhere")
    assert await release.observe() == "3"
    await release.switch("1", before="3", reason="", epoch=EPOCH)
    assert (home / "current").readlink() == Path("elsewhere/1")


async def test_a_link_that_was_changed_since_it_was_read_is_not_replaced(home: Path) -> None:
    current = Link(home / "current")
    read = current.read()
    link(home / "current", "releases/2")
    assert not current.swap(home / "releases" / "1", expected=read)
    assert current.read() == "releases/2"
    assert not (home / ".current.prunella").is_symlink()


async def test_a_link_that_somebody_removes_is_not_made_again(home: Path) -> None:
    release = build("symlink", home, current=home / "current")
    await release.observe()
    (home / "current").unlink()
    with pytest.raises(TransientError, match="No such file"):
        await release.switch("1", before="3", reason="", epoch=EPOCH)
    assert not (home / "current").is_symlink()


async def test_a_disk_too_full_for_a_link_leaves_the_old_one(tmp_path: Path) -> None:
    home = tmp_path / "small"
    with small_disk(home, "nr_inodes=6"):
        for name in ("1", "2"):
            (home / "releases" / name).mkdir(parents=True)
        link(home / "current", "releases/2")
        release = build("symlink", tmp_path, current=home / "current")
        with pytest.raises(TransientError, match="No space left"):
            await release.switch("1", before="2", reason="", epoch=EPOCH)
        assert (home / "current").readlink() == Path("releases/2")


async def test_the_version_before_must_be_named(home: Path) -> None:
    release = build("symlink", home, current=home / "current")
    with pytest.raises(ConflictError):
        await release.switch("1", before="", reason="", epoch=EPOCH)
    assert await release.observe() == "3"


async def test_an_examination_says_what_is_missing(home: Path) -> None:
    release = build("symlink", home, current=home / "current")
    assert await remarks(release) == []
    for name in ("1", "2"):
        (home / "releases" / name).rmdir()
    (said,) = await remarks(release)
    assert said.endswith("no other release than 3, so there is nothing to roll back to yet")
    (home / "releases" / "3").rmdir()
    assert f"! {home}/current leads to no folder" in await remarks(release)
    (home / "releases").rmdir()
    assert f"! there is no folder {home}/releases" in await remarks(release)
